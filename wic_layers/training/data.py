"""``Photographs``, decoded in a mapped file; ``Crops`` of them; ``Batches``, packed for a task."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wic_layers._files import put_in_place
from wic_layers.errors import WICArgumentError, WICFileError, WICWarning
from wic_layers.pictures import as_kind, has_halved_chroma, read_image
from wic_layers.tasks import Task
from wic_layers.training.cache import DECODING, INDEX, PHOTOGRAPHS, prune
from wic_layers.training.lettering import lettered
from wic_layers.training.recipe import Settings

__all__ = [
    "Batches",
    "Crops",
    "Photographs",
    "arrange",
    "cache_folder",
    "margin",
    "pack_crops",
    "read_batches",
]

_FORMAT = 1
_PIXELS = "pixels.bin"
_LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601, as Pillow's conversion to grey
Reduce = Literal["auto"] | int
Pixels: TypeAlias = NDArray[np.uint8]


class Crops(NamedTuple):
    """What a reader hands out; :func:`arrange` makes pixels for a network of it, on the device.

    Attributes:
        pixels: uint8 (B, crop, crop, 3), as they stand in the photographs.
        turn: Which of the eight flips and rotations each crop gets, 0 to 7: (B,).
        tone: Random numbers in [0, 1): three that decide about saturation, one about grey: (4, B).
    """

    pixels: Tensor
    turn: Tensor
    tone: Tensor

    def to(self, device: torch.device) -> Crops:
        """Moves the crops; without waiting, where they are pinned."""
        return Crops(*(tensor.to(device, non_blocking=True) for tensor in self))


def arrange(crops: Crops, *, saturate: float = 0.0, grey: float = 0.0) -> Tensor:
    """Returns crops as a network takes them, flipped and turned: (B, 3, crop, crop) in [0, 1].

    Args:
        crops: What :meth:`Photographs.crops` cut out, on the device where the network is.
        saturate: Chance of a crop to have its contrast and brightness changed at random, so that
            some of its pixels become black or white. Networks that see few of those fail on them:
            where the forward picture is clipped, what comes back is far off.
        grey: Chance of a crop to lose its colours. Networks that see few of those give colours to
            grey photographs, and to the small pictures of them.
    """
    x = crops.pixels.permute(0, 3, 1, 2)
    for bit, change in enumerate((lambda x: x.mT, lambda x: x.flip(2), lambda x: x.flip(3))):
        chosen = ((crops.turn >> bit) & 1).bool()[:, None, None, None]
        x = torch.where(chosen, change(x), x)
    pixels = x.contiguous().float() / 255
    chance, contrast, brightness, colourless = crops.tone[:, :, None, None, None]
    if grey:
        luma = (pixels * pixels.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
        pixels = torch.where(colourless < grey, (luma * 255).round() / 255, pixels)
    if not saturate:
        return pixels
    changed = (pixels - 0.5) * (0.6 + 1.2 * contrast) + 0.2 + 0.6 * brightness
    return torch.where(chance < saturate, changed.clamp(0, 1), pixels)


def cache_folder() -> Path:
    """Where decoded photographs are kept: ``$XDG_CACHE_HOME/wic-layers``, or in ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "wic-layers"


class Photographs:
    """Decoded images in a memory-mapped file, and random crops of them.

    The files are decoded once: a later run on the same files with the same settings, or another
    process of this one, finds what is there. Batch k depends on the seed and k alone, so that a
    resumed run sees what an uninterrupted one would, with any number of readers.

    Args:
        paths: The image files. Those that cannot be read are left out, with a warning.
        reduce: Every image is first made that many times smaller (antialiased). ``"auto"``: those
            stored with halved chroma (nearly every JPEG) by 2, the others not. What a network
            learns of halved chroma is no use on images that have it whole.
        levels: How many sizes of every image are used, each half the one before, with equal
            chances. Large photographs are soft at their full size; a network that sees nothing
            sharper fails on small, sharp pictures.
        smallest: Least side, in pixels, that an image must have after that; smaller ones are left
            out.
        cache: Folder for the decoded pixels (3 bytes each); :func:`cache_folder` by default. Once
            it has more than 20 GB, those that were used longest ago are removed.

    Attributes:
        digest: Of the files' names and sizes, wherever they are: whether two runs see the same.

    Raises:
        WICArgumentError: If ``reduce`` or ``levels`` is less than 1.
        WICFileError: If no image can be read or none is large enough, or the cache cannot be
            written.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        reduce: Reduce = "auto",
        levels: int = 1,
        smallest: int = 64,
        cache: Path | None = None,
    ) -> None:
        if reduce != "auto" and (not isinstance(reduce, int) or reduce < 1):
            raise WICArgumentError(f'Expected reduce "auto" or at least 1; got {reduce!r}.')
        if levels < 1:
            raise WICArgumentError(f"Expected levels of at least 1; got {levels!r}.")
        named = [[path.name, path.stat().st_size] for path in paths if path.is_file()]
        described = json.dumps([reduce, levels, smallest, named])
        self.digest = hashlib.sha256(described.encode()).hexdigest()[:16]
        self._folder = _decoded(paths, reduce, levels, cache or cache_folder())
        index = json.loads((self._folder / INDEX).read_text(encoding="utf-8"))
        places = [place for place in index if min(place[2:]) >= smallest]
        if not places:
            how = "where chroma is halved" if reduce == "auto" else f"by {reduce}"
            raise WICFileError(
                f"Expected images of at least {smallest} pixels a side after reducing them {how}; "
                f"none of {len(paths)} is. Choose a smaller crop."
            )
        self._places = [tuple(offset_and_size) for _, *offset_and_size in places]
        level = np.array([place[0] for place in places])
        _, which, counts = np.unique(level, return_inverse=True, return_counts=True)
        chances = 1 / counts[which]
        self._upto = np.cumsum(chances / chances.sum())
        self._mapped: Pixels | None = None

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Pixels:
        """Pixels of an image, (H, W, 3), uint8, read-only."""
        if self._mapped is None:
            self._mapped = np.memmap(self._folder / _PIXELS, dtype=np.uint8, mode="r")
        offset, height, width = self._places[index]
        pixels = self._mapped[offset : offset + 3 * height * width]
        return pixels.reshape(height, width, 3)

    def __iter__(self) -> Iterator[Pixels]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, object]:
        """Every process maps the file for itself."""
        return {**self.__dict__, "_mapped": None}

    def crops(
        self,
        index: int,
        *,
        size: int,
        crop: int,
        seed: int,
        candidates: int = 1,
        lettering: float = 0.0,
        rows: Sequence[int] | None = None,
    ) -> Crops:
        """Cuts out the crops of batch ``index``.

        Args:
            index: Number of the batch.
            size: Crops in it.
            crop: Their side in pixels.
            seed: Of all batches.
            candidates: Of so many random crops the one with the most details is taken: much of a
                photograph is sky or out of focus, and teaches little.
            lettering: Chance of a crop to be shown with text and shapes on it, or them alone.
            rows: Which of the crops to cut out, all by default: one process of several takes its
                share of the same batch.
        """
        random = np.random.default_rng((seed, index))
        drawn = random.random((3, size, candidates))
        turn = random.integers(8, size=size)
        tone = random.random((4, size), dtype=np.float32)
        which = np.minimum(np.searchsorted(self._upto, drawn[0], side="right"), len(self) - 1)
        chosen = list(range(size) if rows is None else rows)
        pixels = np.empty((len(chosen), crop, crop, 3), dtype=np.uint8)
        for place, row in enumerate(chosen):
            cuts = [
                self._cut(image, down, across, crop)
                for image, down, across in zip(which[row], *drawn[1:, row], strict=True)
            ]
            cut = max(cuts, key=_details) if candidates > 1 else cuts[0]
            if lettering:
                own = np.random.default_rng((seed, index, row))
                cut = lettered(cut, own) if own.random() < lettering else cut
            pixels[place] = cut
        return Crops(
            torch.from_numpy(pixels), torch.from_numpy(turn)[chosen],
            torch.from_numpy(tone)[:, chosen],
        )  # fmt: skip

    def _cut(self, index: int, down: float, across: float, crop: int) -> Pixels:
        image = self[index]
        top = int(down * (image.shape[0] - crop + 1))
        left = int(across * (image.shape[1] - crop + 1))
        return image[top : top + crop, left : left + crop]


def _details(image: Pixels) -> float:
    """The mean difference between neighbours, down and across together."""
    pixels = image.astype(np.int16)
    return float(sum(np.abs(np.diff(pixels, axis=axis)).mean() for axis in (0, 1)))


def _decoded(paths: Sequence[Path], reduce: Reduce, levels: int, cache: Path) -> Path:
    """The folder that holds the decoded images; made if it is not there."""
    files = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise WICFileError(f"{path} cannot be read: {error.strerror}.") from error
        files.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    described = json.dumps([_FORMAT, reduce, levels, files])
    target = cache / f"{PHOTOGRAPHS}{hashlib.sha256(described.encode()).hexdigest()[:24]}"
    if (target / INDEX).is_file():
        prune(cache, target)
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=DECODING, dir=cache))
    except OSError as error:
        raise WICFileError(
            f"Decoded photographs cannot be kept in {cache}: {error.strerror}. Choose another "
            f"folder with --cache."
        ) from error
    try:
        _decode_into(temporary, paths, reduce, levels)
        try:
            put_in_place(temporary, target)
        except OSError:
            if not (target / INDEX).is_file():
                raise  # another process was not faster, whose folder is as good
    except OSError as error:
        if isinstance(error, WICFileError):
            raise
        raise WICFileError(
            f"Decoded photographs cannot be written to {cache}: {error.strerror}. Choose another "
            f"folder with --cache."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    prune(cache, target)
    return target


def _decode_into(folder: Path, paths: Sequence[Path], reduce: Reduce, levels: int) -> None:
    index: list[list[int]] = []
    failed: list[WICFileError] = []
    offset = 0
    read = partial(_sizes, reduce=reduce, levels=levels)
    readers = min(os.cpu_count() or 1, 4)
    with (folder / _PIXELS).open("wb") as file, ThreadPoolExecutor(readers) as pool:
        for start in range(0, len(paths), readers):  # not all at once: they stay in memory
            for sizes in pool.map(read, paths[start : start + readers]):
                if isinstance(sizes, WICFileError):
                    failed.append(sizes)
                    continue
                for level, pixels in enumerate(sizes):
                    file.write(pixels.tobytes())
                    index.append([level, offset, *pixels.shape[:2]])
                    offset += pixels.size
    if failed and len(failed) == len(paths):
        raise failed[0]
    if failed:
        shown = " ".join(map(str, failed[:3]))
        more = " ..." if len(failed) > 3 else ""
        warnings.warn(
            f"{len(failed)} of {len(paths)} files are left out: {shown}{more}",
            WICWarning,
            stacklevel=5,
        )
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _sizes(path: Path, reduce: Reduce, levels: int) -> list[Pixels] | WICFileError:
    """Reads an image and returns it at each of its sizes, but for those of no pixels."""
    try:
        image = as_kind(read_image(path), Image.new("RGB", (1, 1)))
        first = reduce if reduce != "auto" else 2 if has_halved_chroma(path) else 1
    except WICFileError as error:
        return error
    sizes = []
    for level in range(levels):
        factor = first * 2**level
        size = (image.width // factor, image.height // factor)
        if min(size):
            small = image.resize(size, Image.Resampling.BICUBIC) if factor > 1 else image
            sizes.append(np.asarray(small))
    return sizes


def margin(task: Task) -> int:
    """Pixels around a crop, so that its reference is that of the whole photograph."""
    return -(-8 // task.scale) * task.scale


class Batches(Dataset[Crops]):
    """One process' crops of every step; each step's depend on its number alone.

    Args:
        images: Where they come from.
        task: Says of how many photographs a sample is made, and how large they are.
        settings: Batch, crop, seed and candidates.
        process: Number of the process, from 0.
        processes: How many there are; each has its share of every batch.
    """

    def __init__(
        self, images: Photographs, task: Task, settings: Settings, process: int, processes: int
    ) -> None:
        self.images, self.settings = images, settings
        self.size = settings.batch * task.sources
        self.crop = task.source_side(settings.crop + 2 * margin(task))
        self.rows = [
            image * settings.batch + row
            for image in range(task.sources)
            for row in range(process, settings.batch, processes)
        ]

    def __getitem__(self, step: int) -> Crops:
        return self.images.crops(
            step, size=self.size, crop=self.crop, seed=self.settings.seed,
            candidates=self.settings.candidates, lettering=self.settings.lettering,
            rows=self.rows,
        )  # fmt: skip


def pack_crops(
    crops: Crops, task: Task, *, saturate: float = 0.0, grey: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Returns the packed crops of a step and their reference; see :func:`arrange`."""
    sources = arrange(crops, saturate=saturate, grey=grey).chunk(task.sources)
    packed = task.pack(*task.compose(*sources))
    around = margin(task)
    inner = slice(around, -around)
    edge = slice(around // task.scale, -(around // task.scale))
    return packed[..., inner, inner], task.reference(packed)[..., edge, edge]


def read_batches(
    batches: Batches, settings: Settings, start: int, device: torch.device
) -> Iterator[Crops]:
    """Yields the crops of the steps from ``start`` on, cut out by ``settings.readers``."""
    loader: DataLoader[Crops] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, settings.steps),
        num_workers=settings.readers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # it draws a seed for its readers, not from ours
    )
    return iter(loader)
