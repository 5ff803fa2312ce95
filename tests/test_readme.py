"""README and pages for users: their Python runs as it stands, and their links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from wic_layers.cli.program import COMMANDS, _parsers

ROOT = Path(__file__).parents[1]
CLOSE_YOUR_OWN = ROOT / "integrations" / "CLOSE_YOUR_OWN.md"
SITE = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "_generated" not in page.parts]
PAGES = [ROOT / "README.md", CLOSE_YOUR_OWN, *SITE]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


TYPED = re.compile(r"^(?:\$ )?wic (.*?)(?: +#.*)?$", re.MULTILINE)


def anchors(page):
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_python_block_runs(page):
    pytest.importorskip("FrEIA")
    pytest.importorskip("normflows")
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    namespace = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page.name}, Python block {number + 1}", "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path) if path else page
        assert place.exists(), f"{page.name} links to {target}"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{page.name} links to {target}"


def test_the_readme_is_short_and_has_each_of_its_commands_once():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) < 8192
    for title in ("Quick start", "Run the tests"):
        section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        assert len(re.findall(r"^\$ ", section, re.MULTILINE)) == 1


def test_five_kinds_of_networks_can_be_closed():
    text = CLOSE_YOUR_OWN.read_text(encoding="utf-8")
    assert len(re.findall(r"^## \d\. ", text, re.MULTILINE)) == 5
    assert len(re.findall(r"```python\n", text)) >= 8


def test_every_command_that_pages_show_can_be_typed():
    """They are parsed; those of the page of all commands run when the site is built."""
    commands = []
    for page in {*PAGES, *(ROOT / "integrations").rglob("*.md")}:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
            commands += [(page, words) for words in TYPED.findall(block.replace("\\\n", " "))]
        if page.name == "commands.md" and page.parent.name == "docs":
            cells = re.findall(r"wic\(\s*(\".*?\")\s*\)", text, re.DOTALL)
            run = [(page, "".join(re.findall(r'"(.*?)"', cell))) for cell in cells]
            assert {words.split()[0] for _, words in run} >= {each.name for each in COMMANDS}
            commands += run
    assert len(commands) > 50
    for page, line in commands:
        words = shlex.split(line.partition(" > ")[0])
        if words[0] != "help" and "..." not in words:
            parser, _ = _parsers(words)
            try:
                parser.parse_args(words)
            except SystemExit:
                pytest.fail(f"{page.relative_to(ROOT)}: wic {line}")
