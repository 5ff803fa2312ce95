"""Attack: what happens to a picture on its way, JPEG, WebP, a resize, a chain; ``attacks``.

The real codecs do it (Pillow, PyAV), so that what is trained and judged is what files go through.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from wic_layers.errors import WICArgumentError, needing, quoted
from wic_layers.pictures.colour import tensor_of
from wic_layers.pictures.jpeg import encode_jpeg
from wic_layers.pictures.opening import import_pillow
from wic_layers.pictures.writing import to_pil

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Attack", "Attacked", "attacks"]

_NUMBER = r"\d{1,5}(?:\.\d{1,4})?"
_STEP = re.compile(rf"([a-z]\w*):({_NUMBER}(?:-{_NUMBER})?(?:,{_NUMBER}(?:-{_NUMBER})?)*)")
_MOST = 1000  # attacks that a few letters may stand for


class Attacked(NamedTuple):
    """What is left of a picture.

    Attributes:
        pixels: uint8 (C, h, w); of the picture's own size where nothing was cut off.
        box: The (left, top, width, height) of what is left of the picture.
        size: Bytes of the last file that it was; None if it was none.
    """

    pixels: Tensor
    box: tuple[int, int, int, int]
    size: int | None


@dataclass(frozen=True)
class Step:
    """One thing that happens, with the least and the most of its number."""

    name: str
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name}:{self.low:g}" + f"-{self.high:g}" * (self.high != self.low)

    def drawn(self) -> Step:
        """Returns the step with a single number."""
        if self.low == self.high:
            return self
        value = self.low + (self.high - self.low) * float(torch.rand(()))
        if _KINDS[self.name].is_whole:
            value = math.floor(self.low + (self.high - self.low + 1) * float(torch.rand(())))
        return Step(self.name, value, value)


@dataclass(frozen=True)
class Attack:
    """What happens to a picture, one thing after the other; written ``resize:0.5+jpeg:75``.

    A picture that was resized is brought back to its own size at the end, as whoever gets it
    would.

    Attributes:
        steps: What happens. A number may be a range, of which each picture draws its own.
    """

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.steps))

    @property
    def is_fixed(self) -> bool:
        """Whether no number is a range."""
        return all(step.low == step.high for step in self.steps)

    def drawn(self) -> Attack:
        """Returns it with single numbers, drawn from torch's generator of the CPU."""
        return Attack(tuple(step.drawn() for step in self.steps))

    @property
    def cuts(self) -> bool:
        """Whether a part of the picture is lost."""
        return any(step.name == "crop" for step in self.steps)

    def has(self, name: str) -> bool:
        """Whether one of its steps is of that kind; ``jpeg`` has both samplings of chroma."""
        return any(step.name in (name, f"{name}444") for step in self.steps)

    def __call__(self, picture: Tensor) -> Attacked:
        """Returns what is left of a picture, uint8 (3, H, W) or (1, H, W)."""
        image, size = to_pil(picture.cpu()), None
        box = (0, 0, *image.size)
        for step in self.drawn().steps:
            value = step.low
            if step.name == "crop":
                box = _middle(image.size, value)
                image = image.crop((box[0], box[1], box[0] + box[2], box[1] + box[3]))
            else:
                mode = image.mode
                image, bytes_now = _KINDS[step.name].run(image, value)
                image = image if image.mode == mode else image.convert(mode)
                size = size if bytes_now is None else bytes_now
        if image.size != box[2:]:
            image = _resized(image, box[2:])
        return Attacked(tensor_of(image).clone(), box, size)


# ----------------------------------------------------------------------------------- what happens


def _decoded(content: bytes) -> tuple[Image.Image, int]:
    image = import_pillow().open(io.BytesIO(content))
    image.load()
    return image, len(content)


def _jpeg(image: Image.Image, quality: float) -> tuple[Image.Image, int]:
    return _decoded(encode_jpeg(image, int(quality)))


def _jpeg444(image: Image.Image, quality: float) -> tuple[Image.Image, int]:
    return _decoded(encode_jpeg(image, int(quality), has_full_chroma=True))


def _webp(image: Image.Image, quality: float) -> tuple[Image.Image, int]:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=int(quality))
    return _decoded(buffer.getvalue())


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, import_pillow().Resampling.BICUBIC)


def _resize(image: Image.Image, factor: float) -> tuple[Image.Image, None]:
    width, height = (max(round(side * factor), 1) for side in image.size)
    return _resized(image, (width, height)), None


def _fit(image: Image.Image, longest: float) -> tuple[Image.Image, None]:
    return _resize(image, min(longest / max(image.size), 1.0))


def _middle(size: tuple[int, int], share: float) -> tuple[int, int, int, int]:
    """The middle of a picture, from even places on, with even sides where the picture has."""
    sides = [max(round(side * share) // 2 * 2, 2) if share < 1 else side for side in size]
    left, top = ((whole - side) // 4 * 2 for whole, side in zip(size, sides, strict=True))
    return left, top, sides[0], sides[1]


def _h264(image: Image.Image, rate: float) -> tuple[Image.Image, int]:
    with needing("A frame of H.264 needs {name}", "video"):
        import av
    width, height = (side + side % 2 for side in image.size)
    padded = import_pillow().new("RGB", (width, height))
    padded.paste(image.convert("RGB"))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="h264") as file:
        stream = file.add_stream("libx264", rate=1, options={"crf": f"{rate:g}"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        frame = av.VideoFrame.from_image(padded)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    content = buffer.getvalue()
    with av.open(io.BytesIO(content), format="h264") as file:
        decoded = next(file.decode(video=0)).to_image()
    return decoded.crop((0, 0, *image.size)), len(content)


class _Kind(NamedTuple):
    """A kind of step: what its number may be, and what happens."""

    least: float
    most: float
    run: Callable[[Image.Image, float], tuple[Image.Image, int | None]]
    is_whole: bool = True


_KINDS = {
    "jpeg": _Kind(1, 100, _jpeg),
    "jpeg444": _Kind(1, 100, _jpeg444),
    "webp": _Kind(1, 100, _webp),
    "h264": _Kind(0, 51, _h264),
    "resize": _Kind(0.1, 4, _resize, is_whole=False),
    "fit": _Kind(16, 65535, _fit),
    "crop": _Kind(0.1, 1, lambda image, share: (image, None), is_whole=False),
}


# ------------------------------------------------------------------------------- how it is written


def attacks(texts: Iterable[str]) -> list[Attack]:
    """Returns the attacks that texts stand for.

    ``jpeg:90,50`` are two, ``jpeg:75-95`` is one with a range, ``resize:0.5+jpeg:75`` a chain.
    The kinds, each with its number: ``jpeg`` (quality; 4:2:0), ``jpeg444`` (the same with whole
    chroma), ``webp`` (quality), ``h264`` (constant rate factor of a single frame), ``resize``
    (factor), ``fit`` (the longest side, if it is longer), ``crop`` (share of each side that is
    left in the middle; first of a chain).

    Raises:
        WICArgumentError: If a text stands for none.
    """
    several: list[Attack] = []
    for text in texts:
        choices = [_choices(part, text) for part in text.split("+")]
        if math.prod(map(len, choices)) > _MOST - len(several):
            raise WICArgumentError(f"Expected at most {_MOST} attacks; got {quoted(text)}.")
        several += [Attack(steps) for steps in itertools.product(*choices)]
    for attack in several:
        if any(step.name == "crop" for step in attack.steps[1:]):
            raise WICArgumentError(
                f"Expected crop at the beginning of a chain, as its place in the picture is "
                f"known there; got {attack}."
            )
    return several


def _choices(text: str, whole: str) -> Sequence[Step]:
    """The steps, one or the other, that a part of a chain stands for."""
    match = _STEP.fullmatch(text)
    if match is None or match[1] not in _KINDS:
        raise WICArgumentError(
            f"Expected what a picture goes through, such as jpeg:90, jpeg:75-95, webp:80, "
            f"resize:0.5+jpeg:75 (kinds: {', '.join(_KINDS)}); got {quoted(whole)}."
        )
    kind, steps = _KINDS[match[1]], []
    for each in match[2].split(","):
        low, _, high = each.partition("-")
        step = Step(match[1], float(low), float(high or low))
        fits = kind.least <= step.low <= step.high <= kind.most
        if not fits or (kind.is_whole and (step.low % 1 or step.high % 1)):
            number = "a whole number" if kind.is_whole else "a number"
            raise WICArgumentError(
                f"Expected {number} from {kind.least:g} to {kind.most:g} for {step.name}, the "
                f"smaller one first in a range; got {quoted(whole)}."
            )
        steps.append(step)
    return steps
