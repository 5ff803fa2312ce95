"""The Python in README and in the page for one's own network runs as it stands, top to bottom."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
CLOSE_YOUR_OWN = README.parent / "integrations" / "CLOSE_YOUR_OWN.md"


@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
def test_every_python_block_runs():
    pytest.importorskip("FrEIA")
    pytest.importorskip("normflows")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    namespace = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"README, Python block {number + 1}", "exec"), namespace)


def test_every_block_about_closing_a_network_runs():
    text = CLOSE_YOUR_OWN.read_text(encoding="utf-8")
    assert len(re.findall(r"^## \d\. ", text, re.MULTILINE)) == 5
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 8
    namespace = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"CLOSE_YOUR_OWN, Python block {number + 1}", "exec"), namespace)
