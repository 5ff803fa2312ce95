"""What makes a picture doubtful, one sign at a time, on textures whose correlations are known."""

import pytest
import torch
import torch.nn.functional as F
from skimage import data

from wic_layers.pictures import as_pixels
from wic_layers.tasks import TASKS

SIDE = 192


def noise(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, SIDE, SIDE, generator=generator)


def pixels(texture, contrast=45.0):
    """A texture of that many grey levels around the middle."""
    return (128 + contrast * texture / texture.std()).round().clamp(0, 255).to(torch.uint8)


def mixed(*parts):
    """Textures of unit variance in those proportions of it: of two, correlated by their root."""
    return sum(share**0.5 * texture for share, texture in parts)


def in_places(texture):
    """A texture with its details where others that went through here have theirs."""
    coarse = F.interpolate(noise(9)[None, :1, ::24, ::24], size=(SIDE, SIDE), mode="nearest")[0]
    return texture * (0.1 + 2 * (coarse > 0.4))


PICTURE, SECRET, OTHER = noise(0), noise(1), noise(2)
GREY = SECRET[:1].expand(3, -1, -1)
FOG = F.interpolate(GREY[None, :, ::24, ::24], (SIDE, SIDE), mode="bicubic")[0] + 0.2 * SECRET
EDGES = GREY * torch.tensor([2.0, 1.0, 0.4])[:, None, None]
GHOST, FAINT = 0.22**2, 0.1**2  # shares of a picture in what is correlated with it by so much

HIDING = {
    "another photograph": ([pixels(SECRET)], False),
    "a ghost of the picture": ([pixels(mixed((GHOST, PICTURE), (1 - GHOST, SECRET)))], True),
    "a faint ghost elsewhere": ([pixels(mixed((FAINT, PICTURE), (1 - FAINT, SECRET)))], False),
    "a flat one": ([pixels(SECRET) * 0 + 90], False),
    "two others": ([pixels(SECRET), pixels(OTHER)], False),
    "one ghost of two": (
        [pixels(SECRET), pixels(mixed((GHOST, PICTURE), (1 - GHOST, OTHER)))], True,
    ),
    "two that are alike": ([pixels(SECRET), pixels(mixed((0.5, SECRET), (0.5, OTHER)))], False),
    "two that are alike, with a faint ghost": (
        [pixels(SECRET), pixels(mixed((FAINT, PICTURE), (0.2**2, SECRET), (0.95, OTHER)))], True,
    ),
    "two with a faint ghost": (
        [pixels(SECRET), pixels(mixed((FAINT, PICTURE), (1 - FAINT, OTHER)))], False,
    ),
    "two with a faint ghost each": (
        [
            pixels(mixed((FAINT, PICTURE), (1 - FAINT, SECRET))),
            pixels(mixed((FAINT, PICTURE), (1 - FAINT, OTHER))),
        ],
        True,
    ),
    "too small to tell": ([pixels(PICTURE)[:, :15, :15]], False),
    "the picture itself, small": ([pixels(PICTURE)[:, :16, :16]], True),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(HIDING))
def test_signs_of_a_ghost(kind):
    images, is_doubted = HIDING[kind]
    doubt = TASKS[f"hiding-{len(images)}"].doubt(pixels(PICTURE), images)
    assert (doubt is not None) is is_doubted
    assert doubt is None or "looks like the picture itself" in doubt


COARSE, FIELDS = (
    F.interpolate(noise(seed)[None, :, ::4, ::4], (SIDE, SIDE), mode="bicubic")[0]
    for seed in (7, 8)
)
SCENE = mixed((0.9, COARSE), (0.1, SECRET))
SEVERAL = {
    "others": ([SECRET, OTHER], [45, 45], None),
    "one colour of each of both": (
        [SCENE, mixed((0.9, COARSE.roll(1, 0)), (0.1, OTHER))], [45, 45], "looks mixed",
    ),
    "a trace of the other": (
        [SCENE, mixed((0.1**2, COARSE), (1 - 0.1**2, FIELDS))], [45, 45], None,
    ),
    "the same, darker": ([SECRET, SECRET], [45, 30], None),
    "the same, moved": ([SCENE, SCENE.roll((1, 1), (1, 2))], [45, 45], None),
    "noise alone": ([SECRET, OTHER], [17, 8], "noise on an even grey"),
    "one that is noise": ([SECRET, OTHER], [8, 45], None),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(SEVERAL))
def test_signs_of_a_wrong_number_of_secrets(kind):
    textures, contrasts, words = SEVERAL[kind]
    images = [pixels(*each) for each in zip(textures, contrasts, strict=True)]
    doubt = TASKS["hiding-2"].doubt(pixels(PICTURE), images)
    assert words in doubt if words else doubt is None
    if words == "looks mixed":  # in small ones chance is as much
        small = [image[:, :95, :95] for image in images]
        assert TASKS["hiding-2"].doubt(pixels(PICTURE)[:, :95, :95], small) is None


@pytest.mark.parametrize(
    ("secret", "contrast", "is_doubted"),
    [
        (in_places(SECRET), 45, False),  # in the same places alone: photographs often are
        (in_places(SECRET), 20, True),  # and pale
        (SECRET, 20, False),  # pale alone
        (mixed((FAINT, in_places(PICTURE)), (1 - FAINT, in_places(SECRET))), 45, True),
    ],
)
def test_signs_of_the_same_places(secret, contrast, is_doubted):
    picture = pixels(in_places(PICTURE))
    doubt = TASKS["hiding-1"].doubt(picture, [pixels(secret, contrast)])
    assert (doubt is not None) is is_doubted
    two = TASKS["hiding-2"].doubt(picture, [pixels(secret, contrast), pixels(OTHER)])
    assert two is None  # of several these are none


@pytest.mark.parametrize(
    ("secret", "contrast", "is_doubted"),
    [
        (SECRET, 5, True),
        (SECRET, 20, False),  # pale alone
        (SECRET, 1, False),  # a blank page
        (FOG, 5, False),
        (EDGES, 5, False),  # colours with the same edges, as photographs have
    ],
)
def test_signs_of_nothing_but_noise(secret, contrast, is_doubted):
    doubt = TASKS["hiding-1"].doubt(pixels(PICTURE), [pixels(secret, contrast)])
    assert (doubt is not None) is is_doubted
    assert doubt is None or "noise on an even grey" in doubt
    assert (
        TASKS["hiding-2"].doubt(pixels(PICTURE), [pixels(secret, contrast), pixels(OTHER)]) is None
    )


@pytest.mark.parametrize("name", ["rescaling-x2", "rescaling-x4"])
def test_signs_of_a_picture_that_holds_nothing(name):
    task = TASKS[name]
    photo = as_pixels(data.astronaut())[:, :256, 100:356].contiguous()
    reduced = (task.reference(photo[None].float() / 255)[0] * 255).round()
    generator = torch.Generator().manual_seed(0)
    traces = torch.randn(reduced.shape, generator=generator)
    small = [(reduced + level * traces).round().clamp(0, 255).byte() for level in (0, 8)]
    assert "no traces of the details" in task.doubt(small[0], [photo])
    assert task.doubt(small[1], [photo]) is None
    flat = torch.full_like(photo, 70)
    assert task.doubt(small[0] * 0 + 70, [flat]) is None
    assert (
        task.doubt(small[0][:, :15, :15], [photo[:, : 15 * task.scale, : 15 * task.scale]]) is None
    )
    assert TASKS["rescaling-x3"].doubt(small[0], [photo]) is None
