"""as_on_a_gpu: the authors' code on a machine without a GPU, with a torch of today.

Nothing here touches what is tried. It stands in for packages that the code imports to read
pictures and to log (where they are not installed), for ``.cuda()``, and for what torch has
dropped; and it seeds each epoch, so that a resumed training sees what the unbroken one saw.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

Pixels = np.ndarray


class Loader(DataLoader):
    """A data loader without processes of its own, whose every shuffled epoch has a seed."""

    epoch = 0

    def __init__(self, *args: Any, shuffle: bool = False, **options: Any) -> None:
        self.is_training = shuffle
        options.update(num_workers=0, pin_memory=False)
        super().__init__(*args, shuffle=shuffle, **options)

    def __iter__(self) -> Any:
        if self.is_training:
            seed(Loader.epoch)
            Loader.epoch += 1
        return super().__iter__()


def seed(number: int) -> None:
    """Seeds all that the authors' code draws from."""
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 -- as theirs does
    torch.manual_seed(number)


@contextlib.contextmanager
def as_on_a_gpu(code: Path, epoch: int = 0) -> Iterator[None]:
    """Has a folder's modules imported, and undoes all of it.

    Args:
        code: Where the imports of the code start.
        epoch: The first epoch that is trained, whose number is its seed.
    """
    names = {path.stem for path in code.iterdir() if path.suffix == ".py" or path.is_dir()}
    absent = {name: module for name, module in _packages().items() if _replaces(name)}
    aside = {name: m for name, m in sys.modules.items() if name.split(".")[0] in names}
    for name in aside:
        del sys.modules[name]
    aside |= {name: sys.modules[name] for name in absent if name in sys.modules}
    sys.modules.update(absent)
    Loader.epoch = epoch
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    benchmarks = torch.backends.cudnn.benchmark  # which theirs turn on
    folder = Path.cwd()
    with contextlib.ExitStack() as stack:
        for each in (
            mock.patch.dict(os.environ),
            mock.patch.object(sys, "path", [str(code), *sys.path]),
            mock.patch.object(torch.Tensor, "cuda", _stay),
            mock.patch.object(torch.nn.Module, "cuda", _stay),
            mock.patch.object(torch.UntypedStorage, "cuda", _stay),
            mock.patch.object(torch.cuda, "is_available", return_value=False),
            mock.patch.object(torch.cuda, "current_device", return_value=0),
            mock.patch.object(torch, "rfft", _rfft, create=True),
            mock.patch.object(torch.utils.data, "DataLoader", Loader),
            torch.random.fork_rng(devices=[]),
        ):
            stack.enter_context(each)
        os.chdir(code)
        try:
            yield
        finally:
            os.chdir(folder)
            torch.backends.cudnn.benchmark = benchmarks
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            _close_logs()
            own = [name for name in sys.modules if name.split(".")[0] in names]
            for name in (*own, *absent):
                del sys.modules[name]
            sys.modules.update(aside)


def _stay(value: Any, *_: Any, **__: Any) -> Any:
    return value


def _rfft(x: Tensor, **_: Any) -> Tensor:
    return torch.view_as_real(torch.fft.rfft2(x))


def _close_logs() -> None:
    for name in ("base", "val", "train"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            handler.close()
            logger.removeHandler(handler)


def _replaces(name: str) -> bool:
    """Whether a package is stood in for: what writes curves always, others where not installed."""
    first = name.split(".")[0]
    return first == "tensorboardX" or importlib.util.find_spec(first) is None


def _packages() -> dict[str, ModuleType]:
    vision = _module("torchvision")
    vision.utils = _module("torchvision.utils", make_grid=_stay, save_image=save_image)
    vision.transforms = _module(
        "torchvision.transforms",
        Compose=Compose,
        RandomHorizontalFlip=lambda: _flip(Image.Transpose.FLIP_LEFT_RIGHT),
        RandomVerticalFlip=lambda: _flip(Image.Transpose.FLIP_TOP_BOTTOM),
        RandomCrop=_random_crop,
        CenterCrop=_center_crop,
        ToTensor=lambda: _to_tensor,
    )
    reading = {name: value for name, value in vars(OpenCV).items() if name[0] != "_"}
    return {
        "cv2": _module("cv2", **{name: getattr(OpenCV, name) for name in reading}),
        "lmdb": _module("lmdb"),
        "natsort": _module("natsort", natsorted=sorted),
        "tensorboardX": _module("tensorboardX", SummaryWriter=Writer),
        "torchvision": vision,
        "torchvision.utils": vision.utils,
        "torchvision.transforms": vision.transforms,
    }


def _module(name: str, **members: Any) -> ModuleType:
    module: Any = ModuleType(name)
    vars(module).update(members)
    return module


class Writer:
    """Keeps the last of each curve, of all writers."""

    scalars: dict[str, Mapping[str, float]] = {}  # noqa: RUF012 -- of all of them

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def add_scalars(self, name: str, values: Mapping[str, float], *_: Any) -> None:
        Writer.scalars[name] = values

    def close(self) -> None:
        pass


class OpenCV:
    """What is called of cv2: pictures are blue first."""

    IMREAD_COLOR = 1
    INTER_LINEAR = 1
    COLOR_BGR2GRAY = 6
    COLOR_GRAY2BGR = 8
    IMWRITE_JPEG_QUALITY = 1

    @staticmethod
    def imread(path: str, _: int = 1) -> Pixels:
        return np.asarray(Image.open(path).convert("RGB"))[:, :, ::-1].copy()

    @staticmethod
    def imwrite(path: str, picture: Pixels, _: object = None) -> bool:
        Image.fromarray(_rgb(picture)).save(path)
        return True

    @staticmethod
    def imencode(_: str, picture: Pixels, options: list[int]) -> tuple[bool, Pixels]:
        stream = io.BytesIO()
        Image.fromarray(_rgb(picture)).save(stream, "JPEG", quality=options[1])
        return True, np.frombuffer(stream.getvalue(), np.uint8)

    @staticmethod
    def imdecode(content: Pixels, _: int) -> Pixels:
        return np.asarray(Image.open(io.BytesIO(content.tobytes())).convert("RGB"))[:, :, ::-1]

    @staticmethod
    def resize(picture: Pixels, size: tuple[int, int], **_: object) -> Pixels:
        if picture.shape[1::-1] != size:
            raise NotImplementedError("pictures of the size that the training takes are enough")
        return picture

    @staticmethod
    def cvtColor(picture: Pixels, code: int) -> Pixels:
        if code == OpenCV.COLOR_GRAY2BGR:
            return np.stack([picture] * 3, axis=2)
        return picture @ np.array([0.114, 0.587, 0.299], picture.dtype)


def _rgb(picture: Pixels) -> Pixels:
    return np.ascontiguousarray(picture[:, :, ::-1] if picture.ndim == 3 else picture)


class Compose:
    """Steps one behind the other."""

    def __init__(self, steps: list[Any]) -> None:
        self.steps = steps

    def __call__(self, picture: Any) -> Any:
        for step in self.steps:
            picture = step(picture)
        return picture


def _flip(way: Image.Transpose) -> Any:
    return lambda picture: picture.transpose(way) if random.random() < 0.5 else picture


def _random_crop(side: int) -> Any:
    def crop(picture: Image.Image) -> Image.Image:
        x, y = (random.randint(0, length - side) for length in picture.size)
        return picture.crop((x, y, x + side, y + side))

    return crop


def _center_crop(side: int) -> Any:
    def crop(picture: Image.Image) -> Image.Image:
        x, y = ((length - side) // 2 for length in picture.size)
        return picture.crop((x, y, x + side, y + side))

    return crop


def _to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).movedim(2, 0).float() / 255


def save_image(pictures: Tensor, path: str) -> None:
    """Writes the first of a batch, rounded."""
    levels = pictures[0].mul(255).add(0.5).clamp(0, 255).byte()
    Image.fromarray(levels.movedim(0, 2).numpy()).save(path)
