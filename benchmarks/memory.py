"""Peak memory of a command on photographs of growing size: what tiles are for.

    python benchmarks/memory.py rescaling-x2-naive-small 1 6 24

Every size runs in a process of its own, on a synthetic photograph (scikit-image's, mirrored until
it is large enough), and once more on 4 x 4 pixels: what torch and Python take by themselves.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from wic_layers.models import PRESETS
from wic_layers.tasks import TASKS

CHILD = """
import resource, sys, time
from wic_layers.cli import main
began = time.monotonic()
code = main()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak * 1024 if sys.platform != "darwin" else peak, time.monotonic() - began)
sys.exit(code)
"""


def photograph(width: int, height: int) -> Image.Image:
    image = data.chelsea()
    rows = -(-height // image.shape[0]), -(-width // image.shape[1])
    wide = np.concatenate([image[:, :: (-1) ** column] for column in range(rows[1])], axis=1)
    tall = np.concatenate([wide[:: (-1) ** row] for row in range(rows[0])], axis=0)
    return Image.fromarray(np.ascontiguousarray(tall[:height, :width]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", help="preset with weights in the package")
    parser.add_argument("megapixels", nargs="+", type=float)
    parser.add_argument("--tile", type=int)
    args = parser.parse_args()
    task = TASKS[PRESETS[args.preset].task]
    forward, back = (command.split()[1] for command in task.commands)
    print("| photograph | command | peak memory | beyond 4 x 4 pixels | seconds |")
    print("|---|---|---|---|---|")
    base: dict[str, float] = {}
    for megapixels in (16e-6, *args.megapixels):
        height = max(round(math.sqrt(megapixels * 1e6 / 1.5)), 4)
        width = max(round(megapixels * 1e6 / height), 4)
        with tempfile.TemporaryDirectory() as folder:
            photograph(width, height).save(Path(folder) / "photo.png")
            sources = ["photo.png"] * task.images
            for command, words in (
                (forward, [*sources, "-o", "made.png", "--preset", args.preset]),
                (back, ["made.png", "-o", "back.png"]),
            ):
                tile = ["--tile", str(args.tile)] if args.tile else []
                done = subprocess.run(
                    [sys.executable, "-c", CHILD, command, *words, *tile],
                    cwd=folder, check=True, capture_output=True, text=True,
                )  # fmt: skip
                peak, seconds = map(float, done.stdout.split()[-2:])
                beyond = peak - base.setdefault(command, peak)
                print(
                    f"| {width} x {height} | {command} | {peak / 2**20:.0f} MiB | "
                    f"{beyond / 2**20:.0f} MiB | {seconds:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
