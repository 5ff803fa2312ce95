"""Commands that learn and judge: ``wic eval``, ``train``, ``upgrade``; all need an extra."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

from wic_layers.cli.bar import Bar
from wic_layers.cli.command import Command, path
from wic_layers.errors import WICDependencyError

__all__ = ["COMMANDS"]


def _optional(part: str) -> ModuleType:
    try:
        return importlib.import_module(f"wic_layers.{part}")
    except ModuleNotFoundError as error:
        raise WICDependencyError(
            f"Training needs {error.name}, which is not installed. "
            f"Run: pip install 'wic-layers[train]'"
        ) from error


def _eval(args: argparse.Namespace) -> int:
    return int(_optional("evaluation.command").run(args, Bar))


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clear", action="store_true", help="remove what is in it")
    parser.add_argument(
        "--cache", metavar="FOLDER", type=path,
        help="the folder, as given to wic train (default: ~/.cache/wic-layers)",
    )  # fmt: skip


def _cache(args: argparse.Namespace) -> int:
    data, cache = _optional("training.data"), _optional("training.cache")
    folder = args.cache or data.cache_folder()
    if args.clear:
        print(f"{folder}: {cache.clear(folder) / 1e9:.2f} GB of decoded photographs removed")
    else:
        print(f"{folder}: {cache.size(folder) / 1e9:.2f} GB of decoded photographs")
    return 0


COMMANDS = (
    Command(
        "eval",
        "Judge a network on folders of images, through 8-bit PNG files",
        lambda parser: _optional("evaluation.command").add_arguments(parser),
        _eval,
        "Prints PSNR and SSIM, in RGB and of the luma Y (BT.601), of what the network makes of "
        "each image and of what comes back from its file, beside them the same without rounding "
        "(float); then by bicubic interpolation, and of a second round trip, from the original "
        "and from what came back first. Rescaling: the small picture is judged against Pillow's "
        "bicubic reduction, and borders of the scale's pixels are left out. Hiding: the images "
        "that follow are the secrets. Decolorization: the grey picture is judged against the "
        "lightness L*. Bits per pixel are those of the PNG, in bicubic's row those of the bicubic "
        "reduction. With --through, what comes back after JPEG and the like, beside bicubic's, "
        "and the bytes of each file; with --generations, what is left after many times.",
    ),
    Command(
        "train",
        "Train a network on a folder of photographs",
        lambda parser: _optional("training.command").add_arguments(parser),
        lambda args: int(_optional("training.command").run(args)),
        "The preset comes first: wic train PRESET --data FOLDER -o OUT. Presets of IRN, HiNet, "
        "IICNet, HCFlow and DLV have their authors' losses and schedules in place of some of the "
        "defaults below; OUT/settings.yaml says which.",
    ),
    Command(
        "upgrade",
        "Turn a checkpoint of other code into a network with a WIC",
        lambda parser: _optional("training.upgrade").add_arguments(parser),
        lambda args: int(_optional("training.upgrade").run(args)),
        "Reads the checkpoint of IRN, HiNet or IICNet as its own code writes it, keeps all of its "
        "weights and puts a WIC where z was, or IICNet's channel squeeze: the forward picture "
        "stays as it is. With --data it is fine-tuned on those photographs, and judged beside the "
        "original.",
    ),
    Command(
        "cache",
        "Show or clear the folder of decoded photographs",
        _add_cache,
        _cache,
        "Trainings keep photographs decoded, so that the next one starts at once. Past 20 GB "
        "those that were used longest ago go by themselves.",
    ),
)
