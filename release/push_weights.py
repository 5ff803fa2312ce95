"""Pushes every folder of weights, with its card, to the Hugging Face hub under one owner.

``python release/push_weights.py --owner NAME --dry-run`` says what would be sent; without
``--dry-run`` it is. Weights keep their names: a repository is OWNER/wic-layers-PRESET, and one
that was pushed is pushed again only with the same numbers, or with ``--replace``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from wic_layers.errors import WICError, WICFileError
from wic_layers.models.hub import HUB, OWNER, download, repository_of, upload
from wic_layers.models.packaged import CARD, CONFIG, TENSORS, described_weights

FILES = (TENSORS, CONFIG, CARD)


def checked(name: str, folder: Path) -> dict[str, int]:
    """Returns the sizes of a folder's files, after they were compared with each other.

    Raises:
        WICFileError: If a file lacks, or is of other weights.
    """
    others = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
    missing = [file for file in FILES if not (folder / file).is_file()]
    if others or missing:
        raise WICFileError(
            f"{folder}: expected {FILES}; {missing} are missing, {others} too many."
        )
    config = json.loads((folder / CONFIG).read_bytes())
    sha256 = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    card = (folder / CARD).read_text(encoding="utf-8")
    if config["sha256"] != sha256 or sha256 not in card or config["preset"] != name:
        raise WICFileError(f"{folder}: {CONFIG} or {CARD} are of other weights than {TENSORS}.")
    if not config["card"].get("licence"):
        raise WICFileError(f"{folder}: the card names no licence.")
    return {file: (folder / file).stat().st_size for file in FILES}


def on_hub(repository: str) -> str | None:
    """The SHA-256 of the weights that a repository says it holds; None if there is none."""
    try:
        folder = download(f"{HUB}{repository}", None, [CONFIG])
        return str(json.loads((folder / CONFIG).read_bytes())["sha256"])
    except (WICFileError, FileNotFoundError):
        return None


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", metavar="PRESET", nargs="*", help="only these")
    parser.add_argument("--owner", default=OWNER, help="the account on the hub")
    parser.add_argument("--token", help="the hub's access token; the saved one by default")
    parser.add_argument("--dry-run", action="store_true", help="send nothing, and ask nothing")
    parser.add_argument(
        "--replace", action="store_true", help="also where there are other weights"
    )
    args = parser.parse_args(arguments)
    if args.owner is None:
        parser.error("expected --owner: nobody holds the weights yet")
    every = described_weights()
    unknown = sorted(set(args.names) - every.keys())
    if unknown:
        parser.error(f"expected presets with weights ({', '.join(every)}); got {unknown}")
    names = args.names or list(every)
    try:
        sizes = {name: checked(name, every[name]) for name in names}  # all before the first goes
        for name in names:
            repository = repository_of(name, args.owner)
            size = sum(sizes[name].values()) / 1e6
            if args.dry_run:
                print(f"would push {len(FILES)} files, {size:.2f} MB, to {repository}")
                continue
            sha256 = json.loads((every[name] / CONFIG).read_bytes())["sha256"]
            there = on_hub(repository)
            if there not in (None, sha256) and not args.replace:
                raise WICFileError(
                    f"{repository} holds other weights, on which files out there may depend. Give "
                    "the new ones a name of their own, or say --replace."
                )
            print(upload(repository, str(every[name]), private=False, token=args.token))
    except WICError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
