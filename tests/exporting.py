"""What onnxruntime makes of scikit-image's photographs, beside what the library makes of them."""

import numpy as np
import torch
from skimage import data

from wic_layers.codec.running import backward_pixels, forward_pixels

# (height, width) of the first image and of those that follow: even, odd and smaller, tiny
SIZES = (((64, 96), (64, 96)), ((127, 65), (50, 31)), ((1, 3), (1, 2)))


def session(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def to_tensor(image):
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def to_array(pixels):
    return pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()


def photographs(count, first, others):
    found = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.retina())
    sizes = [first] + [others] * (count - 1)
    return [
        np.ascontiguousarray(found[n % 5][90 + n : 90 + n + height, 150 : 150 + width])
        for n, (height, width) in enumerate(sizes)
    ]


def require_one_step(found, wanted, share):
    difference = np.abs(found.astype(int) - wanted.astype(int))
    assert found.dtype == np.uint8
    assert found.shape == wanted.shape
    assert difference.max() <= 1
    # of a picture of a few pixels, one or two count for much
    assert (difference > 0).sum() <= max(share * difference.size, 3)


def require_agreement(file, network, task, direction, share):
    run = session(file.path)
    for first, others in SIZES:
        images = photographs(task.images, first, others)
        picture = forward_pixels(task, network, task.packed(*map(to_tensor, images)))
        if direction == "forward":
            (found,) = run.run(None, dict(zip(task.image_names, images, strict=True)))
            require_one_step(found, to_array(picture), share)
            continue
        height, width = (side * task.scale for side in picture.shape[1:])
        wanted = backward_pixels(task, network, picture, [(width, height)] * task.restored_count)
        outputs = run.run(None, {task.picture_name: to_array(picture)})
        for found, image in zip(outputs, wanted, strict=True):
            require_one_step(found, to_array(image), share)
