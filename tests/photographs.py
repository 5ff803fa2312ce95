"""scikit-image's photographs as files, and small networks to train on them."""

import io

import numpy as np
from PIL import Image
from skimage import data

from wic_layers.models import WIN, WINNaive
from wic_layers.pictures import as_pixels
from wic_layers.training import Settings


def write(root):
    """Three photographs, one of them a JPEG, one in a folder below."""
    (root / "more").mkdir(parents=True)
    Image.fromarray(data.astronaut()).save(root / "astronaut.png")
    Image.fromarray(data.coffee()).save(root / "coffee.jpg", quality=95)
    Image.fromarray(data.chelsea()).save(root / "more" / "chelsea.png")
    return root


def network(task="rescaling-x2", size="tiny", **changes):
    if task == "rescaling-x4":  # with copies; WIN itself is large there
        return WINNaive.from_preset(f"{task}-naive-{size}", growth=4, **changes)
    return WIN.from_preset(f"{task}-{size}", growth=4, **changes)


def settings(**changes):
    given = {
        "steps": 8, "batch": 2, "crop": 32, "warmup": 2, "learning_rate": 1e-3, "every": 2,
        "accelerator": "cpu",
    }  # fmt: skip
    return Settings(**{**given, **changes})


def saved(pixels, **options):
    """What Pillow makes of pixels, and the bytes of its file."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy())
    image.save(buffer, **options)
    back = np.asarray(Image.open(buffer).convert(image.mode))
    return as_pixels(back, channels=len(pixels)), len(buffer.getvalue())
