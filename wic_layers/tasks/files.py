"""Hide, reveal, reduce and restore image files. Whatever runs backwards needs the file alone."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.images import (
    check_output,
    psnr,
    read_carrier,
    read_image,
    size_of,
    write_png,
)
from wic_layers.models import packaged_weights
from wic_layers.quantization import quantize
from wic_layers.tasks.base import Task
from wic_layers.tasks.memory import (
    HIDING,
    RESCALING,
    backward_pixels,
    check_size,
    fit_secret,
    forward_pixels,
    load_network,
    packed_input,
)

__all__ = ["Mark", "Written", "down_file", "hide_file", "reveal_file", "up_file"]

_FORMAT = 1


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        path: The file.
        size: Its (width, height).
        source: The (width, height) of the image it was made from: cover, photo, stego or small
            image.
        returns: The (width, height) of what comes back from it; None for what came back.
        psnr: PSNR in dB of the file against what it should look like; None for what came back.
        psnr_back: PSNR in dB of what comes back from the file; None for what came back.
        reduced_from: The (width, height) of a secret that was made smaller to fit; else None.
    """

    path: Path
    size: tuple[int, int]
    source: tuple[int, int]
    returns: tuple[int, int] | None = None
    psnr: float | None = None
    psnr_back: float | None = None
    reduced_from: tuple[int, int] | None = None


@dataclass(frozen=True)
class Mark:
    """What a file says about itself, as JSON in its text chunk.

    Attributes:
        task: Name of the task.
        preset: The preset of the network that made it, or None.
        weights: The first 16 hex digits of the SHA-256 of the weights file.
        size: The (width, height) of what comes back.
        pixels: The (width, height) of the file.
    """

    task: str
    preset: str | None
    weights: str
    size: tuple[int, int]
    pixels: tuple[int, int]

    def dumps(self) -> str:
        """Returns the mark as ASCII text."""
        return json.dumps({"format": _FORMAT, **asdict(self)})

    @classmethod
    def loads(cls, text: str) -> Mark:
        """Returns the mark that a text stands for.

        Raises:
            WICFileError: If it stands for none, or for one of another format.
        """
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise WICFileError("its wic-layers chunk is damaged.")
        if found.pop("format", None) != _FORMAT:
            raise WICFileError(
                f"its wic-layers chunk is not of format {_FORMAT}, the one known to this version."
            )
        fits = (
            found.keys() == cls.__dataclass_fields__.keys()
            and all(isinstance(found[key], str) for key in ("task", "weights"))
            and isinstance(found["preset"], str | None)
            and all(_is_size(found[key]) for key in ("size", "pixels"))
        )
        if not fits:
            raise WICFileError("its wic-layers chunk is damaged.")
        return cls(**{**found, "size": tuple(found["size"]), "pixels": tuple(found["pixels"])})


def _is_size(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(side) is int and side > 0 for side in value)
    )


def hide_file(
    cover: str | Path,
    secret: str | Path,
    out: str | Path,
    *,
    model: str | Path = "hiding-1-naive-small",
    marked: bool = True,
    fit: bool = False,
    force: bool = False,
    device: str | torch.device | None = None,
) -> Written:
    """Hides an image file in another one.

    Args:
        cover: What the result should look like.
        secret: What it should hold; at most as wide and as high as the cover.
        out: The PNG to write. Its odd sides are one pixel longer than the cover's.
        model: A preset with weights in the package, or the path of a weights file.
        marked: Say in a text chunk what made the file. Without it the file holds pixels only, and
            :func:`reveal_file` needs ``model`` and ``size``.
        fit: Reduce a secret that is larger than the cover, keeping its proportions.
        force: Replace ``out`` if it exists.
        device: Where to run; the CPU by default.

    Returns:
        What was written, and the PSNR of the file and of the secret that comes back from it.

    Raises:
        WICFileError: If a file cannot be read or written.
        WICShapeError: If the secret is too large.
        WICArgumentError: If ``model`` is of another task or unknown.
    """
    target = check_output(out, inputs=(cover, secret), force=force)
    covered = read_image(cover)
    given = read_image(secret)
    hidden = fit_secret(given, size_of(covered), fit=fit)
    network = load_network(HIDING, model, device)
    written = _write_forward(
        HIDING, network, (covered, hidden), target, marked=marked, force=force
    )
    fitted = None if hidden is given else size_of(given)
    return replace(written, reduced_from=fitted)


def reveal_file(
    stego: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    size: tuple[int, int] | None = None,
    force: bool = False,
    device: str | torch.device | None = None,
) -> Written:
    """Brings back the image that :func:`hide_file` hid.

    Args:
        stego: The PNG, every pixel as it was written.
        out: The PNG to write.
        model: The preset or weights file that hid it; what the file says by default.
        size: The secret's own (width, height). A marked file says it; if both do, they must agree.
        force: Replace ``out`` if it exists.
        device: Where to run; the CPU by default.

    Returns:
        What was written.

    Raises:
        WICFileError: If a file cannot be read or written, or nothing can come back from it.
        WICArgumentError: If ``model`` or ``size`` do not agree with the file.
    """
    return _write_back(HIDING, stego, out, model, size, force=force, device=device)


def down_file(
    photo: str | Path,
    out: str | Path,
    *,
    model: str | Path = "rescaling-x2-naive-small",
    force: bool = False,
    device: str | torch.device | None = None,
) -> Written:
    """Makes an image file half as wide and high, so that :func:`up_file` can bring it back.

    Args:
        photo: The image file.
        out: The PNG to write.
        model: A preset with weights in the package, or the path of a weights file.
        force: Replace ``out`` if it exists.
        device: Where to run; the CPU by default.

    Returns:
        What was written, and the PSNR of the file (against bicubic) and of what comes back from
        it.

    Raises:
        WICFileError: If a file cannot be read or written.
        WICArgumentError: If ``model`` is of another task or unknown.
    """
    target = check_output(out, inputs=(photo,), force=force)
    pixels = read_image(photo)
    network = load_network(RESCALING, model, device)
    return _write_forward(RESCALING, network, (pixels,), target, marked=True, force=force)


def up_file(
    small: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    size: tuple[int, int] | None = None,
    force: bool = False,
    device: str | torch.device | None = None,
) -> Written:
    """Brings back the image that :func:`down_file` made small; see :func:`reveal_file`."""
    return _write_back(RESCALING, small, out, model, size, force=force, device=device)


def _write_forward(
    task: Task,
    network: Any,
    images: tuple[Tensor, ...],
    target: Path,
    *,
    marked: bool,
    force: bool,
) -> Written:
    picture = forward_pixels(task, network, *images)
    returns = size_of(images[-1])
    mark = Mark(task.name, network.preset, network.weights_id, returns, size_of(picture))
    write_png(picture, target, text=mark.dumps() if marked else None, force=force)

    written = read_carrier(target)[0]
    reference = (quantize(task.reference(packed_input(task, *images)))[0] * 255).round()
    source = size_of(images[0])
    # what was padded at the same size does not count
    width, height = source if task.scale == 1 else size_of(written)
    back = backward_pixels(task, network, written, returns)
    return Written(
        target,
        size_of(written),
        source,
        returns,
        psnr(written[:, :height, :width], reference[:, :height, :width]),
        psnr(back, images[-1]),
    )


def _write_back(
    task: Task,
    source: str | Path,
    out: str | Path,
    model: str | Path | None,
    size: tuple[int, int] | None,
    *,
    force: bool,
    device: str | torch.device | None,
) -> Written:
    target = check_output(out, inputs=(source,), force=force)
    picture, text = read_carrier(source)
    if text is not None:
        mark = _mark(text, source)
        model, size = _agree(task, source, picture, mark, model, size)
        network = load_network(task, model, device)
        if network.weights_id != mark.weights:
            raise WICFileError(
                f"{source} was made with the weights {mark.weights!r}; those at hand ({model}) "
                f"are {network.weights_id!r}. Pass the file of its own weights by --weights."
            )
    elif model is None or size is None:
        raise WICFileError(_unmarked(task, source))
    else:
        network = load_network(task, model, device)
    check_size(task, picture, size, str(source))
    back = backward_pixels(task, network, picture, size)
    write_png(back, target, force=force)
    return Written(target, size_of(back), size_of(picture))


def _mark(text: str, source: str | Path) -> Mark:
    try:
        return Mark.loads(text)
    except WICFileError as error:
        raise WICFileError(f"{source} cannot be used: {error}") from error


def _unmarked(task: Task, source: str | Path) -> str:
    forward, backward = task.commands
    return (
        f"{source} does not say that `{forward}` made it, so nothing can be brought back; if it "
        f"did, and its chunk was left out or lost, say so: `{backward} {source} --preset "
        f"{task.preset} --size 640x480`, with the size of what comes back."
    )


def _agree(
    task: Task,
    source: str | Path,
    picture: Tensor,
    mark: Mark,
    model: str | Path | None,
    size: tuple[int, int] | None,
) -> tuple[str | Path, tuple[int, int]]:
    """Checks what a file says against its pixels and the arguments; returns model and size."""
    forward, backward = task.commands
    if mark.task != task.name:
        raise WICFileError(
            f"{source} was made for {mark.task!r}; `{backward}` takes what `{forward}` made."
        )
    if mark.pixels != size_of(picture):
        width, height = size_of(picture)
        raise WICFileError(
            f"{source} is {width}x{height} but was written as {mark.pixels[0]}x{mark.pixels[1]}: "
            f"it was resized or cropped, which destroys what it holds."
        )
    if size is not None and size != mark.size:
        raise WICArgumentError(
            f"--size {size[0]}x{size[1]} does not agree with {source}, which says "
            f"{mark.size[0]}x{mark.size[1]}; leave it out."
        )
    if model is None:
        if mark.preset not in packaged_weights():
            made = f" of {mark.preset!r}" if mark.preset else ""
            raise WICFileError(
                f"{source} was made with the weights {mark.weights!r}{made}, which are not in "
                f"this package; pass their file by --weights."
            )
        model = str(mark.preset)
    return model, mark.size
