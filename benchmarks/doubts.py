"""How often what comes back is doubted: rightly, and where nothing is wrong.

    python benchmarks/doubts.py BSD100 Set14
    python benchmarks/doubts.py BSD100 --weights FOLDER --through jpeg:90 jpeg:50

The middle 130 x 130 pixels of every third photograph (260 x 260 for x4; ``--every 1`` takes all),
through the packaged weights of ``hide`` (one secret) and ``down``: the picture as it was made, the
plain photograph in its place, and both after JPEG; then every number of secrets hidden, and asked
for. With other weights the first table alone is of those.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from wic_layers.codec.attacks import attacks
from wic_layers.codec.checking import doubted as doubt_of
from wic_layers.codec.running import (
    backward_pixels,
    forward_pixels,
    load_network,
    reference_pixels,
)
from wic_layers.codec.surviving import trained_through
from wic_layers.models import packaged_weights
from wic_layers.pictures import find_images, read_image
from wic_layers.tasks import HIDING, RESCALING


def middle(image: Tensor, side: int) -> Tensor:
    top, left = ((length - side) // 2 for length in image.shape[1:])
    return image[:, top : top + side, left : left + side].contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--weights", nargs="+", default=[], help="in place of the package's")
    parser.add_argument("--through", nargs="+", default=["jpeg:95,75"], metavar="ATTACK")
    parser.add_argument("--every", type=int, default=3, metavar="N", help="every Nth photograph")
    args = parser.parse_args()
    folders, through = args.folders, attacks(args.through)
    paths = [path for folder in folders for path in find_images(folder)][:: args.every]
    heads = ["as made", *(f"{each}" for each in through)]
    heads += ["plain photograph", *(f"plain, {each}" for each in through)]
    print(f"| task | photographs | {' | '.join(heads)} |")
    print("|---" * (2 + len(heads)) + "|")
    images = [read_image(path) for path in paths]
    large = sum(min(image.shape[1:]) >= 130 for image in images)
    if large < 5:  # a cover, and four secrets
        parser.error(f"expected at least 5 photographs of 130 x 130 pixels; got {large}")
    given = [task for task in RESCALING if task.preset in packaged_weights()]
    asked_for = [((HIDING[0], *given), model) for model in args.weights]
    for several, model in asked_for or [((chosen,), None) for chosen in (HIDING[0], *given)]:
        task, network = load_network(several, model)
        side = 65 * task.multiple
        crops = [middle(image, side) for image in images if min(image.shape[1:]) >= side]
        doubted = [0] * len(heads)
        for image, following in zip(crops, crops[1:] + crops[:1], strict=True):
            inputs = [image, following][: task.images]
            x = task.packed(*inputs)
            made = forward_pixels(task, network, x)
            carriers = [
                arrived
                for picture in (made, reference_pixels(task, x))
                for arrived in (picture, *(each(picture).pixels for each in through))
            ]
            may_be_lossy = trained_through(network)
            for index, carrier in enumerate(carriers):
                back = backward_pixels(task, network, carrier, [(side, side)])
                doubt = doubt_of(task, carrier, back, may_be_lossy=may_be_lossy)
                doubted[index] += doubt is not None
        print(f"| {task.name} | {len(crops)} | {' | '.join(map(str, doubted))} |", flush=True)
    if args.weights:
        return

    asked = [load_network((task,), None) for task in HIDING]
    print(f"\n| hidden | {' | '.join(f'asked for {task.images - 1}' for task, _ in asked)} |")
    print("|---" * (1 + len(asked)) + "|")
    crops = [middle(image, 130) for image in images if min(image.shape[1:]) >= 130]
    for hidden, (maker, network) in enumerate([(None, None), *asked]):
        doubted = [0] * len(asked)
        for index in range(len(crops)):
            inputs = (crops[index:] + crops[:index])[: 1 + hidden]
            made = inputs[0]
            if maker is not None:
                made = forward_pixels(maker, network, maker.packed(*inputs))
            for column, (task, reader) in enumerate(asked):
                back = backward_pixels(task, reader, made, [(130, 130)] * (task.images - 1))
                doubted[column] += doubt_of(task, made, back) is not None
        print(f"| {hidden} | {' | '.join(map(str, doubted))} |", flush=True)


if __name__ == "__main__":
    main()
