"""Figures that pages have by hand are those of the weights' own cards."""

import json
import re

from test_site import DOCS, pages  # noqa: F401 - a fixture

from wic_layers.models import packaged_weights

ROOT = DOCS.parent
CARDS = {
    name: (folder, json.loads((folder / "config.json").read_bytes())["card"])
    for name, folder in packaged_weights().items()
}


def rows_of(text, title):
    """The rows of all tables of a section, as lists of cells."""
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| ?(.*?) ?\|$", section, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def test_the_readme_says_what_the_cards_say(pages):  # noqa: F811
    rows = rows_of((ROOT / "README.md").read_text(encoding="utf-8"), "What it reaches")
    rows = [(row, name[1]) for row in rows if (name := re.search(r"`([\w-]+)`", row[1]))]
    assert len(rows) >= 5
    for (what, weights, _, reached, *_), name in rows:
        folder, card = CARDS[name]
        figures = {place: pair for place, *pair in pages.judged(card["PSNR"])}
        quantity, _, sets = what.rpartition(", ")
        if "restored" in quantity:
            wanted = " / ".join(figures[place][1] for place in sets.split(" / "))
        else:
            (pair,) = (pair for place, pair in figures.items() if place.startswith(sets))
            wanted = " / ".join(pair)
        assert reached == wanted, f"README on {name}; its card has {wanted}"
        own = re.search(r"([\d,]+) parameters", (folder / "README.md").read_text("utf-8"))[1]
        millions = f"{int(own.replace(',', '')) / 1e6:.2f} million"
        assert millions in weights, f"README on {name}; it has {millions} parameters"


def test_the_model_card_says_what_the_cards_say(pages):  # noqa: F811
    folder = next(iter(packaged_weights().values())).parent
    rows = rows_of((folder / "README.md").read_text(encoding="utf-8"), "Figures")
    wanted = [
        [picture, back]
        for _, card in CARDS.values()
        for _, picture, back in pages.judged(card["PSNR"])
    ]
    stated = [
        row[at : at + 2]
        for row in rows
        for at in range(len(row) - 1)
        if re.fullmatch(r"[\d.]+", row[at]) and row[at : at + 2] in wanted
    ]
    missing = [pair for pair in wanted if pair not in stated]
    assert not missing, f"The model card lacks {missing}."
    others = [row for row in rows if re.search(r"\d\d\.\d", "".join(row))]
    assert len(others) == len(stated), "A row of the model card is of no weights."
