"""The frames of a clip: from a video file, by PyAV, or from a folder of images.

PyAV, as it is FFmpeg itself with wheels for every platform, reads what users have, and hands out
one frame after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wic_layers.errors import WICDependencyError, WICFileError
from wic_layers.pictures.names import find_images, is_image
from wic_layers.pictures.opening import check_pixels
from wic_layers.pictures.reading import read_image

__all__ = ["has_more_frames", "is_clip", "read_frames"]

# what holds its pictures in itself: playlists and lists of names read other files into them
_CONTAINERS = (
    "mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "av1", "ivf",
    "flv", "asf", "ogg", "rm", "wtv", "mxf", "dv", "nut", "mjpeg", "yuv4mpegpipe", "gif", "apng",
    "wav", "mp3", "flac", "aac",
)  # fmt: skip
_OPTIONS = {"format_whitelist": ",".join(_CONTAINERS), "protocol_whitelist": "none"}


def is_clip(path: str | Path) -> bool:
    """Whether a path is a folder, or a file whose name is not that of an image."""
    return Path(path).is_dir() or not is_image(path)


def read_frames(
    path: str | Path, *, reduce_depth: bool = False, max_pixels: int | None = None
) -> Iterator[Tensor]:
    """Yields the frames of a video file or of a folder of images, in their order.

    Images are taken in the order of their names, numbers in them by their value. Those with a
    name that a video may have are read as one.

    Args:
        path: The video file or the folder. Of a file only what it holds itself is read: playlists
            are refused.
        reduce_depth: See :func:`~wic_layers.pictures.read_image`; of images.
        max_pixels: How many pixels a frame may have; by default as many as an image.

    Yields:
        Pixels (3, H, W), uint8, the way up in which the clip is seen.

    Raises:
        WICFileError: If it cannot be read, holds no frame, or one of too many pixels.
        WICDependencyError: If it is a video and PyAV is not installed.
    """
    if Path(path).is_dir():
        for image in sorted(find_images(path), key=_by_numbers):
            yield read_image(image, reduce_depth=reduce_depth, max_pixels=max_pixels)
    else:
        yield from _read_video(Path(path), max_pixels)


def has_more_frames(path: str | Path, count: int) -> bool:
    """Whether a video file or a folder of images holds more than so many frames; decodes none.

    Raises:
        WICFileError: If it cannot be read.
        WICDependencyError: If it is a video and PyAV is not installed.
    """
    if Path(path).is_dir():
        return len(find_images(path)) > count
    with _opened(Path(path)) as (container, stream):
        packets = (packet for packet in container.demux(stream) if packet.size)
        return sum(1 for _ in islice(packets, count + 1)) > count


def _by_numbers(path: Path) -> list[int | str]:
    # parts alternate between text and digits, so that only equals are compared
    return [
        int(part) if index % 2 else part
        for index, part in enumerate(re.split(r"([0-9]+)", str(path)))
    ]


def _read_video(path: Path, max_pixels: int | None) -> Iterator[Tensor]:
    with _opened(path) as (container, stream):
        check_pixels((stream.width, stream.height), str(path), max_pixels)
        stream.codec_context.thread_count = 1  # every thread would hold frames
        count = 0
        for frame in container.decode(stream):
            check_pixels((frame.width, frame.height), str(path), max_pixels)
            pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
            turns = getattr(frame, "rotation", 0) // 90  # degrees, against the clock
            yield pixels.rot90(turns, (1, 2)).contiguous()
            count += 1
    if not count:
        raise WICFileError(f"{path} cannot be read as a video: it holds no pictures.")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """PyAV's container of a video file, and its first stream of pictures."""
    try:
        import av
    except ImportError as error:
        raise WICDependencyError(
            f"{path} is no image; videos need PyAV, which is not installed. Run: pip install "
            f"'wic-layers[video]'"
        ) from error
    if not path.is_file():
        raise WICFileError(f"{path} does not exist.")
    try:
        with (
            path.open("rb") as file,
            av.open(file, options=_OPTIONS, metadata_errors="replace") as container,
        ):
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise WICFileError(f"{path} cannot be read as a video: its codec is not known.")
            yield container, stream
    except (av.FFmpegError, IndexError) as error:  # IndexError: it has sound alone
        reason = getattr(error, "strerror", None) or "it holds no pictures"
        raise WICFileError(f"{path} cannot be read as a video: {reason}.") from error
