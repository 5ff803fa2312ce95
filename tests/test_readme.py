"""The Python in README runs as it stands, from top to bottom."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
def test_every_python_block_runs():
    pytest.importorskip("FrEIA")
    pytest.importorskip("normflows")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    namespace = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"README, Python block {number + 1}", "exec"), namespace)
