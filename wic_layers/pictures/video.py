"""The frames of a clip: from a video file, by PyAV, or from a folder of images.

PyAV, as it is FFmpeg itself with wheels for every platform, reads what users have, and hands out
one frame after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from wic_layers.errors import WICDependencyError, WICFileError
from wic_layers.pictures.names import find_images, is_image
from wic_layers.pictures.reading import read_image

__all__ = ["is_clip", "read_frames"]


def is_clip(path: str | Path) -> bool:
    """Whether a path is a folder, or a file whose name is not that of an image."""
    return Path(path).is_dir() or not is_image(path)


def read_frames(path: str | Path, *, reduce_depth: bool = False) -> Iterator[Tensor]:
    """Yields the frames of a video file or of a folder of images, in their order.

    Images are taken in the order of their names, numbers in them by their value. Those with a
    name that a video may have are read as one.

    Args:
        path: The video file or the folder.
        reduce_depth: See :func:`~wic_layers.pictures.read_image`; of images.

    Yields:
        Pixels (3, H, W), uint8, the way up in which the clip is seen.

    Raises:
        WICFileError: If it cannot be read or holds no frame.
        WICDependencyError: If it is a video and PyAV is not installed.
    """
    if Path(path).is_dir():
        for image in sorted(find_images(path), key=_by_numbers):
            yield read_image(image, reduce_depth=reduce_depth)
    else:
        yield from _read_video(Path(path))


def _by_numbers(path: Path) -> list[int | str]:
    # parts alternate between text and digits, so that only equals are compared
    return [
        int(part) if index % 2 else part
        for index, part in enumerate(re.split(r"([0-9]+)", str(path)))
    ]


def _read_video(path: Path) -> Iterator[Tensor]:
    try:
        import av
    except ImportError as error:
        raise WICDependencyError(
            f"{path} is no image; videos need PyAV, which is not installed. Run: pip install "
            f"'wic-layers[video]'"
        ) from error
    if not path.is_file():
        raise WICFileError(f"{path} does not exist.")
    count = 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
                turns = getattr(frame, "rotation", 0) // 90  # degrees, against the clock
                yield pixels.rot90(turns, (1, 2)).contiguous()
                count += 1
    except (av.FFmpegError, IndexError) as error:  # IndexError: it has sound alone
        reason = getattr(error, "strerror", None) or "it holds no pictures"
        raise WICFileError(f"{path} cannot be read as a video: {reason}.") from error
    if not count:
        raise WICFileError(f"{path} cannot be read as a video: it holds no pictures.")
