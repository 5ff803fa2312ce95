"""Networks, weights, images and files as a user writes them; see ``layers.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor
from typing_extensions import assert_type

from wic_layers import tasks
from wic_layers.codec import Codec, Written
from wic_layers.models import (
    IRN,
    PRESETS,
    WIN,
    Network,
    WINNaive,
    from_pretrained,
    inspect,
    load_official,
    packaged_weights,
    save_official,
    with_wic,
)


def networks(x: Tensor) -> Tensor:
    assert_type(WIN.from_preset("rescaling-x2", couplings=2), WIN)
    assert_type(WIN.from_preset("rescaling-x2")(x), Tensor)
    assert_type(from_pretrained("rescaling-x2"), WIN)
    assert_type(from_pretrained("hiding-1-naive-small"), WINNaive)
    assert_type(from_pretrained("hub:owner/name"), Network)
    assert_type(from_pretrained(Path("runs/x2/weights"), revision="v1"), Network)
    assert_type(IRN.from_pretrained("runs/irn"), IRN)
    assert_type(packaged_weights()["rescaling-x2"], Path)
    assert_type(PRESETS["hiding-1"].task, str)
    model = from_pretrained("rescaling-x2-naive-small").optimize()
    assert_type(model, WINNaive)
    assert_type(model.weights_id, "str | None")
    assert_type(model.save_pretrained("folder", {"licence": "MIT"}), Path)
    assert_type(inspect(model).parameters, int)
    return model.inverse(model(x))


def checkpoints(path: Path, x: Tensor) -> Tensor:
    published = load_official(path, completion="zero")
    assert_type(published, Network)
    assert_type(published(x), Tensor)
    closed = with_wic(published, "shift")
    assert_type(closed, Network)
    save_official(closed, path)
    return closed(x, rev=True)


def images(cover: Image.Image, pixels: npt.NDArray[np.uint8], tensor: Tensor) -> None:
    codec = Codec("hiding-1", device="cpu")
    assert_type(codec.network, Network)
    assert_type(codec.encode(cover, cover), Image.Image)
    assert_type(codec.encode(tensor, tensor), Tensor)
    assert_type(codec.decode(cover), list[Image.Image])
    assert_type(codec.encode_files(["a.png", "b.png"], Path("c.png")), Written)
    assert_type(tasks.down(cover), Image.Image)
    assert_type(tasks.up(pixels), npt.NDArray[np.uint8])
    assert_type(tasks.down_file("a.png", "b.png", force=True), Written)


def mistakes(x: Tensor) -> None:
    from_pretrained(1)  # type: ignore[call-overload]
    WIN.from_preset("rescaling-x2")(x, w=x)  # type: ignore[call-arg]
    load_official("a.pth", copies="4")  # type: ignore[arg-type]
    Codec("hiding-1", tile="large")  # type: ignore[arg-type]
    tasks.down_file("a.png", "b.png", sharp=True)  # type: ignore[call-arg]
