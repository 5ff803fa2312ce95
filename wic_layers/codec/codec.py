"""Codec: a network at work on 8-bit images, in memory and in files, forward and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, get_args

import torch
from torch import Tensor, nn

from wic_layers.codec.beside import Beside, read_photos
from wic_layers.codec.carrier import CARRIER, Carrier
from wic_layers.codec.checking import Check, Written, doubted, judge, runs_to_judge
from wic_layers.codec.mark import Mark, Sizes, digest
from wic_layers.codec.options import Model, Options, PathLike
from wic_layers.codec.parts import Part, join
from wic_layers.codec.returning import write_images
from wic_layers.codec.running import backward_pixels, check_size, forward_pixels, load_network
from wic_layers.codec.sentences import refuse_paths
from wic_layers.codec.source import read_source
from wic_layers.codec.surviving import trained_through
from wic_layers.codec.target import Target
from wic_layers.codec.tiles import Progress
from wic_layers.codec.work import in_notebook, part
from wic_layers.errors import WICArgumentError, warn
from wic_layers.models import Network
from wic_layers.pictures import (
    as_channels,
    as_grey,
    as_kind,
    as_layer,
    as_pixels,
    check_output,
    is_grey,
    pad_to,
    psnr,
    size_of,
)
from wic_layers.pictures.names import numbered
from wic_layers.tasks.base import Task
from wic_layers.tasks.registry import find_task

__all__ = ["Codec", "Options", "PathLike"]

_WRITING = 0.05
"""The share of a file's work that writing it is, of small networks as of large pictures."""

_RUNS_OF_A_STEP = 3
"""Runs of a network that a step of ``refine`` takes as long as."""

T = TypeVar("T")


class Codec:
    """A network at work: encode makes one picture of images, decode brings the images back.

    Images are PIL images, NumPy arrays (uint8, H x W x 3) or torch tensors (uint8, 3 x H x W),
    mixed at will; results are of the kind of the first one. Sizes are ``(width, height)``. The
    network is loaded when it is first needed, once for all images and files.

    Args:
        task: What it is for: a task or its name, such as ``"hiding-1"``; or several, of which the
            network says which, or the file that is decoded.
        model: A preset with weights in the package, the folder of weights, or a network; by
            default the first task's own preset, and for files what they say.
        device: Where a network that is loaded runs; the CPU by default.
        tile: Side of the tiles, in pixels of the large picture, in which an image is run; by
            default as large as 200 megabytes allow. Tiles overlap by what the
            network sees, so that they change nothing but the memory that is needed.
        fast: Run the couplings of a network that is loaded in bfloat16, about twice as fast where
            the machine has it.
        progress: Called after every tile with the number of tiles that are done and of all.
        max_pixels: How many pixels files may have, those that are read and those that come back;
            by default as many as Pillow takes, 179 million.

    Raises:
        WICArgumentError: If there is no such task. Whatever needs the network raises it if it is
            unknown or of another task, and :class:`~wic_layers.errors.WICFileError` if its weights
            cannot be read.

    Example:
        >>> from wic_layers.models import WINNaive
        >>> codec = Codec("hiding-1", WINNaive.from_preset("hiding-1-naive-small"))
        >>> cover, secret = torch.zeros(3, 5, 8).byte(), torch.zeros(3, 4, 4).byte()
        >>> stego = codec.encode(cover, secret)
        >>> stego.shape
        torch.Size([3, 6, 8])
        >>> [image.shape for image in codec.decode(stego, sizes=[(4, 4)])]
        [torch.Size([3, 4, 4])]
    """

    def __init__(
        self,
        task: str | Task | Sequence[str | Task],
        model: Model = None,
        *,
        device: str | torch.device | None = None,
        tile: int | None = None,
        fast: bool = False,
        progress: Progress | None = None,
        max_pixels: int | None = None,
    ) -> None:
        several = [task] if isinstance(task, (str, Task)) else task
        self.tasks = tuple(find_task(each) for each in several)
        self.model = model
        self.device = device
        self.tile = tile
        self.fast = fast
        self.progress = progress
        self.max_pixels = max_pixels
        self._loaded: dict[tuple[object, ...], tuple[Task, Network]] = {}

    @property
    def task(self) -> Task:
        """What the network is for."""
        return self._load(self.tasks, self.model)[0]

    @property
    def network(self) -> Network:
        """The network, in the mode in which it was passed."""
        return self._load(self.tasks, self.model)[1]

    def _load(self, tasks: Sequence[Task], model: Model) -> tuple[Task, Network]:
        key = (*(task.name for task in tasks), model)
        if key not in self._loaded:
            self._loaded[key] = load_network(tasks, model, self.device, fast=self.fast)
        return self._loaded[key]

    # ---------------------------------------------------------------------------------- in memory

    def encode(self, *images: T, refine: int = 0, fit: bool = False) -> T:
        """Makes one picture of images, from which they come back.

        Args:
            *images: As many as the task takes, in its order: the cover first, then the secrets.
            refine: A number of steps, such as 20, that improve the result for these images: more
                comes back, and it looks as before. Each takes the time of about three runs; the
                way back needs none.
            fit: Reduce secrets that are larger than their cover, keeping their proportions.

        Returns:
            The picture, of the first image's kind: mode RGB, or L for grey. Its odd sides are one
            pixel longer, or those of the image over the task's scale, rounded up. All of its
            pixels are needed.

        Raises:
            WICArgumentError: If there are too few or too many images, or ``refine`` is negative.
            WICShapeError: If an image has no shape of an image, or is too large.
            TypeError: If an image is of no kind that is taken.
        """
        refuse_paths(images, self.tasks[0].commands[0])
        task = self.task
        read = as_layer if task.has_opacity else as_pixels
        pixels = [read(image, task.title_of(index)) for index, image in enumerate(images)]
        size = pixels[0][0].numel() if pixels else 0
        with in_notebook(task.commands[0], size, enabled=self.progress is None):
            picture, *_ = self._forward(task, self.network, pixels, refine, fit=fit)
        return as_kind(picture, images[0])

    def decode(self, picture: T, sizes: Sizes | None = None, *, grey: bool = False) -> list[T]:
        """Brings back the images that a picture was made of.

        A ``WICWarning`` says where what comes back looks as if nothing had been there to bring
        back. Files that are marked say for certain.

        Args:
            picture: What :meth:`encode` gave, every pixel as it was made.
            sizes: The (width, height) of each image that comes back; by default as large as they
                can have been.
            grey: The images were grey, so that they come back with one channel. Files say it.

        Returns:
            The images, of the picture's kind.

        Raises:
            WICShapeError: If the picture cannot have come from images of these sizes, or is not
                grey where the task's is.
            TypeError: If the picture is of no kind that is taken.
        """
        refuse_paths([picture], self.tasks[0].commands[1])
        task, network = self._load(self.tasks, self.model)
        title = task.picture_title
        pixels = as_pixels(picture, title, carrier=True, channels=task.out_channels)
        if sizes is None:
            width, height = size_of(pixels)
            sizes = [(width * task.scale, height * task.scale)] * task.restored_count
        check_size(task, pixels, sizes, title)
        size = pixels[0].numel() * task.scale**2
        with in_notebook(task.commands[1], size, enabled=self.progress is None):
            images = backward_pixels(
                task, network, pixels, sizes, tile=self.tile, progress=self.progress
            )
        doubt = doubted(task, pixels, images, may_be_lossy=trained_through(network))
        if doubt is not None:
            warn(doubt)
        return [as_kind(as_grey(image) if grey else image, picture) for image in images]

    # ----------------------------------------------------------------------------------- in files

    def encode_files(
        self,
        images: Sequence[PathLike | Tensor],
        out: PathLike,
        *,
        refine: int = 0,
        fit: bool = False,
        marked: bool = True,
        force: bool = False,
        check: Check = "some",
        keep_metadata: bool = False,
        reduce_depth: bool = False,
        quality: int | None = None,
    ) -> Written:
        """Makes one image file of several, as :meth:`encode` does.

        Grey images come back with one channel. Where the task makes one picture of a single
        photograph (``down``, ``gray``), its transparency comes back too, exactly: the file carries
        it beside its pixels, and shows it; and a grey photograph is its own grey picture.

        Args:
            images: The image files, or pixels that were read of them, uint8 (3, H, W); where
                transparency counts, (4, H, W) with opacity last.
            out: The PNG to write; or the JPEG, ending in .jpg, with weights that were trained for
                it: without a model, those of the package.
            refine: See :meth:`encode`.
            fit: See :meth:`encode`.
            marked: Say in a chunk of the file what made it. Without it the file holds pixels only,
                and :meth:`decode_file` needs the model and the sizes.
            force: Replace an output that exists.
            check: How much of it is run backwards, to say what comes back: ``"all"``; ``"some"``,
                all up to two megapixels and eight tiles of what is larger; or ``"none"``.
            keep_metadata: Carry what the photograph's file says of it, its EXIF (date, place,
                camera) and density, beside the pixels; of ``down`` and ``gray``. By default it
                does not leave your hands.
            reduce_depth: Take the upper 8 bits of images that have 16.
            quality: Of a JPEG, 90 by default.

        Returns:
            What was written, with the PSNR of the file and of the images that come back from it.

        Raises:
            WICFileError: If a file cannot be read or written, a JPEG with other weights too.
            WICArgumentError: As :meth:`encode`; if ``check`` is another word; or if something
                should travel beside the pixels of a file that is not marked, or of another task.
            WICShapeError: As :meth:`encode`.
        """
        if check not in get_args(Check):
            raise WICArgumentError(f"Expected check 'all', 'some' or 'none'; got {check!r}.")
        paths = [image for image in images if not isinstance(image, Tensor)]
        target = Target.of(out, paths, quality, force=force)
        task, network = self._load(self.tasks, target.model_for(self.tasks, self.model))
        beside, pixels = read_photos(
            task, images, keep_metadata=keep_metadata, reduce_depth=reduce_depth,
            max_pixels=self.max_pixels,
        )  # fmt: skip
        parts = beside.parts()
        if parts and not marked:
            raise WICArgumentError(
                "Expected an opaque photo, and no metadata to keep, for a file that is not marked."
            )
        forward = 1 + _RUNS_OF_A_STEP * refine
        judging = runs_to_judge(check, pixels[0][0].numel())
        share = (1 - _WRITING) / (forward + judging)
        is_stored = marked and task.keeps_grey and len(pixels) == 1 and is_grey(pixels[0])
        if is_stored:
            originals, sizes = pixels, tuple(map(size_of, pixels))
            picture = pad_to(pixels[0][:1], task.padded(sizes[0]))
        else:
            with part(share * forward):
                picture, x, originals, sizes = self._forward(
                    task, network, pixels, refine, fit=fit, carrier=target.carrier
                )
        written = Written(
            target.path, size_of(picture), size_of(pixels[0]), network.weights_id, returns=sizes,
            is_stored=is_stored, carries=tuple(part.name for part in parts),
        )  # fmt: skip
        if task.restored_count < task.images:  # secrets beside a cover
            pairs = zip(originals, pixels[1:], strict=True)
            reduced = [None if new is old else size_of(old) for new, old in pairs]
            written = replace(written, reduced_from=tuple(reduced))

        def chunk_of(stored: Tensor) -> bytes:
            mark = Mark(
                task.name, network.preset, written.weights or "", written.returns, written.size,
                digest(stored), tuple(map(is_grey, originals)),
            )  # fmt: skip
            return join([Part.of("mark", mark.dumps().encode()), *parts])

        with part(_WRITING):
            target.write(picture, task.scale, beside, chunk_of if marked else None)
        if check == "none":
            return written
        # judged as whoever gets the file will see it
        arrived = target.read(task.out_channels, self.max_pixels)
        if is_stored:
            same = psnr(arrived, picture)
            return replace(written, psnr=same, psnr_back=(same,))
        originals = [image[:1] if is_grey(image) else image for image in originals]
        with part(share * judging):
            return judge(
                written, task, network, x, originals, arrived,
                check=check, tile=self.tile, progress=self.progress,
            )  # fmt: skip

    def decode_file(
        self,
        path: PathLike,
        out: PathLike,
        *,
        sizes: Sizes | None = None,
        force: bool = False,
        keep_metadata: bool = False,
    ) -> list[Written]:
        """Brings back the images that an image file was made of.

        The file says its task and its network; those that this codec has must agree with it.

        Args:
            path: The PNG, every pixel as it was written; or a JPEG or WebP, where the network was
                trained for such files.
            out: The PNG to write; where several images come back, -1, -2, ... is added to its
                name.
            sizes: The (width, height) of each image that comes back. A marked file says them; if
                both do, they must agree.
            force: Replace outputs that exist.
            keep_metadata: Write the EXIF and density that the file carries; see
                :meth:`encode_files`.

        Returns:
            What was written.

        Raises:
            WICFileError: If a file cannot be read or written, or nothing can come back from it.
            WICArgumentError: If the model or ``sizes`` do not agree with the file.
        """
        check_output(out, inputs=(path,), force=True)
        source = read_source(path, self.tasks, sizes, model=self.model, max_pixels=self.max_pixels)
        network: Network | None = None
        if source.mark is not None and source.task is not None:
            mark, task = source.mark, source.task
            sizes, grey = mark.sizes, mark.grey
            if not (task.keeps_grey and all(grey)):  # else the picture is the photograph
                model = self.model or mark.model_for(path)
                task, network = self._load((task,), model)
                said = type(model).__name__ if isinstance(model, nn.Module) else model
                mark.check_weights(network.weights_id or "", said, path)
        else:
            task, network = self._load(self.tasks, self.model)
            sizes = sizes or ()
            grey = (False,) * len(sizes)
        picture = as_channels(source.pixels, task.out_channels, str(path))
        check_size(task, picture, sizes, str(path))
        beside = Beside.of(source.parts if task.has_companions else {}, sizes[0], path)
        targets = numbered(Path(out), len(sizes))
        for target in targets:
            check_output(target, inputs=(path,), force=force)
        if network is None:
            images = [picture[:, :height, :width] for width, height in sizes]
        else:
            with part(1 - _WRITING):
                images = backward_pixels(
                    task, network, picture, sizes, tile=self.tile, progress=self.progress
                )
        doubt = None
        if source.mark is None:
            may_be_lossy = network is not None and trained_through(network)
            doubt = doubted(task, picture, images, may_be_lossy=may_be_lossy)
        elif source.is_changed:
            doubt = f"{path} was saved again since it was made, so that less comes back."
        known = Written(Path(out), (0, 0), size_of(picture), getattr(network, "weights_id", None))
        return write_images(
            images, targets, grey, beside, replace(known, doubt=doubt),
            share=_WRITING, keep_metadata=keep_metadata, force=force,
        )  # fmt: skip

    def _forward(
        self,
        task: Task,
        network: Network,
        pixels: Sequence[Tensor],
        refine: int,
        *,
        fit: bool,
        carrier: Carrier = CARRIER,
    ) -> tuple[Tensor, Tensor, list[Tensor], tuple[tuple[int, int], ...]]:
        """The picture, what went into the network, and the images that come back, with sizes."""
        images = task.prepare(*pixels, fit=fit)
        x = task.packed(*images)
        originals = images[-task.restored_count :]
        if task.fewer_will_do:
            originals = originals[: len(pixels)]
        sizes = tuple(map(size_of, originals))
        picture = forward_pixels(
            task, network, x, sizes, tile=self.tile, progress=self.progress, refine=refine,
            carrier=carrier,
        )  # fmt: skip
        return picture, x, originals, sizes
