"""The curves of a training, over all pieces that went on from each other.

    python benchmarks/curves.py rescaling-x2 FOLDER [FOLDER ...]
    python benchmarks/curves.py rescaling-x2 --on FOLDER [FOLDER ...]

Each FOLDER holds the ``log.jsonl`` of a piece, in their order; with ``--on`` they follow the
pieces that were drawn before. Their lines are kept together in ``results/curves/PRESET.jsonl``;
``results/curves/PRESET.png`` shows the PSNR of the photographs that were held out, rounded to 8
bits, and where a piece begins. A piece that reduces photographs by another factor, or reads other
ones, is judged on other pictures: curves may jump there.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

CURVES = Path(__file__).parent / "results" / "curves"
NAMES = {"psnr_forward": "forward picture", "psnr_back": "what comes back"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--on", action="store_true", help="after the pieces drawn before")
    args = parser.parse_args()
    for folder in args.folders:
        if not (folder / "log.jsonl").is_file():
            parser.error(f"Expected a folder that `wic train` wrote; {folder} has no log.jsonl.")
    store = CURVES / f"{args.preset}.jsonl"
    known = store.read_text(encoding="utf-8").splitlines() if args.on else []
    lines = [json.loads(text) for text in known]
    done = lines[-1]["piece"] if lines else 0
    for piece, folder in enumerate(args.folders, done + 1):
        first = lines[-1]["step"] if lines else 0
        for text in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if NAMES.keys() <= line.keys():
                lines.append({"piece": piece, **line, "step": first + line["step"]})
    CURVES.mkdir(parents=True, exist_ok=True)
    kept = "".join(json.dumps(line) + "\n" for line in lines)
    store.write_text(kept, encoding="utf-8")

    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for key, name in NAMES.items():
        axis.plot([line["step"] for line in lines], [line[key] for line in lines], label=name)
    for before, line in itertools.pairwise(lines):
        if before["piece"] != line["piece"]:
            axis.axvline(before["step"], color="gray", linestyle=":", linewidth=1)
    axis.set(title=args.preset, xlabel="step", ylabel="PSNR on held-out photographs, dB")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(CURVES / f"{args.preset}.png", dpi=100)


if __name__ == "__main__":
    main()
