r"""Which gradient should a training through JPEG have? Three of them, on equal time.

    python benchmarks/carrier_gradients.py --photos PHOTOS --eval EVAL --seeds 2

Tiny networks are trained through JPEG with the gradient of rounding alone, with that of colours at
half their size, which ``wic train --through`` has, and with that of kornia's differentiable JPEG
(``pip install kornia``); the pixels are those of the real one. EVAL holds BSD100, of which ten
pictures judge, by 2 reduced where something is hidden. It writes
``results/carrier-gradients.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import trials
from carriers import THROUGH, judged, pictures_of
from torch import Tensor
from trials import RESULTS

from wic_layers.codec.attacks import attacks
from wic_layers.codec.carrier import Lossy, carrier_of
from wic_layers.layer.quantization import quantize
from wic_layers.models import NETWORKS, PRESETS
from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Objective, Photographs, Settings

TINY = {"rescaling-x2": "rescaling-x2-naive-tiny", "hiding-1": "hiding-1-naive-tiny"}
FORWARD = {"rescaling-x2": 2.0, "hiding-1": 1.0}  # weight of the forward picture


def as_rounding(x: Tensor) -> Tensor:
    """The real JPEG's pixels with the gradient of rounding, of a quality drawn for each crop."""
    rounded = quantize(x)
    real = carrier_of(THROUGH).through(x.detach())
    return rounded + (real - rounded.detach())


def as_kornia(x: Tensor) -> Tensor:
    """The real JPEG's pixels with the gradient of kornia's, of one quality drawn for all crops."""
    from kornia.enhance import jpeg_codec_differentiable

    (choice,) = attacks(THROUGH)
    drawn = choice.drawn()
    real = Lossy([drawn]).through(x.detach())
    soft = jpeg_codec_differentiable(quantize(x), x.new_tensor([drawn.steps[0].low]))
    return real + (soft - soft.detach())


def compare(args: argparse.Namespace) -> None:
    """Trains with each gradient on equal time, and writes a table."""
    lines = []
    for name, preset in TINY.items():
        task = TASKS[name]
        photos = Photographs(find_images(args.photos), reduce=2, levels=2, smallest=80)
        shared = {
            "preset": preset, "crop": 48, "batch": 4, "optimizer": "muon", "learning_rate": 2e-3,
            "warmup": 50, "weights": (FORWARD[name], 1.0, 0.1, 1.0),
        }  # fmt: skip
        ways: dict[str, Callable[[Tensor], Tensor]] = {
            "rounding's": as_rounding, "kornia's": as_kornia,
            "halved colours'": carrier_of(THROUGH).through,
        }  # fmt: skip

        def training(
            through: Callable[[Tensor], Tensor], steps: int, seed: int,
            *, task: Task = task, photos: Any = photos, shared: Any = shared, preset: Any = preset,
        ) -> trials.Training:  # fmt: skip
            torch.manual_seed(seed)
            model = NETWORKS[PRESETS[preset].network].from_preset(preset)
            settings = Settings(**shared, steps=steps, seed=seed)
            trained = trials.Training(model, task, photos, settings)
            trained.objective = Objective(task, settings.weights, rounding=through)
            return trained

        times = trials.step_times({way: training(f, 100, 0).step for way, f in ways.items()}, 12)
        print(name, times, flush=True)
        images = pictures_of(args.eval / "BSD100", task, 10)
        for seed in range(args.seeds):
            for way, through in ways.items():
                steps = round(args.steps / times[way])
                began = time.monotonic()
                run = training(through, steps, seed)
                trials.fit(run)
                result = judged(run.model, task, images, attacks(["jpeg:90,75,50,30"]))
                row = {"task": name, "gradient": way, "seed": seed, "steps": steps}
                row |= {"minutes": (time.monotonic() - began) / 60, **result}
                print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()},
                      flush=True)  # fmt: skip
                lines.append(row)
    columns = ["picture RGB", *(f"jpeg:{quality} RGB" for quality in (90, 75, 50, 30))]
    text = [
        "| task | gradient | seed | steps | picture | 90 | 75 | 50 | 30 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in lines:
        cells = [str(row[key]) for key in ("task", "gradient", "seed", "steps")]
        cells += [f"{row[key]:.2f}" for key in columns]
        text.append(f"| {' | '.join(cells)} |")
    (RESULTS / "carrier-gradients.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=600, help="of the first; others as long")
    args = parser.parse_args()
    torch.set_num_threads(1)
    compare(args)


if __name__ == "__main__":
    main()
