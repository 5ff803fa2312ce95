"""Photographs: decoded once, mapped, cut into crops that depend on seed and number alone."""

import pickle
import shutil

import numpy as np
import photographs
import pytest
import torch
from PIL import Image
from skimage import data

from wic_layers.errors import WICArgumentError, WICFileError, WICWarning
from wic_layers.pictures import as_kind, as_pixels, find_images, has_halved_chroma
from wic_layers.tasks import TASKS
from wic_layers.training import Crops, Photographs, arrange
from wic_layers.training.data import Batches, cache_folder, margin, pack_crops, read_batches


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photographs.write(tmp_path_factory.mktemp("photographs") / "all")


@pytest.fixture(scope="module")
def images(folder):
    return Photographs(find_images(folder), smallest=48)


def test_halved_chroma_is_seen(tmp_path):
    photo = Image.fromarray(data.chelsea())
    for name, options, halved in [
        ("a.jpg", {"subsampling": "4:2:0"}, True),
        ("b.jpg", {"subsampling": "4:2:2"}, True),
        ("c.jpg", {"subsampling": "4:4:4"}, False),
        ("d.webp", {}, True),
        ("e.webp", {"lossless": True}, False),
        ("f.webp", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}, True),
        ("g.png", {}, False),
        ("h.tif", {}, False),
        ("i.tif", {"compression": "jpeg"}, False),
    ]:
        photo.save(tmp_path / name, **options)
        assert has_halved_chroma(tmp_path / name) is halved, name
    photo.convert("L").save(tmp_path / "grey.jpg")
    assert not has_halved_chroma(tmp_path / "grey.jpg")
    with pytest.raises(WICFileError, match=r"none\.jpg does not exist"):
        has_halved_chroma(tmp_path / "none.jpg")


def test_images_with_halved_chroma_are_reduced_unless_told_otherwise(folder):
    paths = find_images(folder)
    assert [image.shape for image in Photographs(paths)] == [
        (512, 512, 3), (200, 300, 3), (300, 451, 3),
    ]  # fmt: skip
    assert Photographs(paths, reduce=1)[1].shape == (400, 600, 3)
    assert Photographs(paths, reduce=2)[0].shape == (256, 256, 3)
    with Image.open(folder / "coffee.jpg") as image:
        expected = image.resize((300, 200), Image.Resampling.BICUBIC)
    assert np.array_equal(Photographs(paths)[1], np.asarray(expected))


def test_levels_are_halved_sizes_with_equal_chances(folder):
    images = Photographs(find_images(folder), reduce=2, levels=3, smallest=48)
    assert images[0].shape == (256, 256, 3)
    assert images[1].shape == (128, 128, 3)
    assert images[2].shape == (64, 64, 3)
    chances = np.diff(images._upto, prepend=0)
    at_level = np.array([max(image.shape) for image in images])
    sizes = {256: 0, 300: 0, 225: 0, 128: 1, 150: 1, 112: 1, 64: 2, 75: 2, 56: 2}
    totals = np.zeros(3)
    for chance, side in zip(chances, at_level, strict=True):
        totals[sizes[side]] += chance
    assert totals == pytest.approx([1 / 3] * 3)


def test_a_second_run_decodes_nothing(folder, tmp_path, monkeypatch):
    paths = find_images(folder)
    first = Photographs(paths, cache=tmp_path)
    (there,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("wic_layers.training.data.read_image", None)
        again = Photographs(paths, cache=tmp_path)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert list(tmp_path.iterdir()) == [there]
    # a file that changed is decoded again
    Image.fromarray(data.rocket()).save(tmp_path / "rocket.png")
    old = Photographs([tmp_path / "rocket.png"], cache=tmp_path / "c")
    Image.fromarray(data.rocket()[:300]).save(tmp_path / "rocket.png")
    new = Photographs([tmp_path / "rocket.png"], cache=tmp_path / "c")
    assert (old[0].shape, new[0].shape) == ((427, 640, 3), (300, 640, 3))


def test_the_cache_is_where_users_have_theirs(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "wic-layers"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "wic-layers"


def test_a_damaged_image_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG not really")
    with pytest.raises(WICFileError, match=r"broken\.png is not an image that can be read"):
        Photographs(find_images(tmp_path), cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(WICFileError, match=r"cannot be kept in .*Choose another folder with"):
        Photographs(find_images(tmp_path), cache=tmp_path / "file")


def test_bad_settings(folder):
    paths = find_images(folder)
    with pytest.raises(WICArgumentError, match='reduce "auto" or at least 1; got 0'):
        Photographs(paths, reduce=0)
    with pytest.raises(WICArgumentError, match="levels of at least 1; got 0"):
        Photographs(paths, levels=0)
    with pytest.raises(WICFileError, match="at least 1000 pixels a side after reducing them by 2"):
        Photographs(paths, reduce=2, smallest=1000)


def test_crops_depend_on_seed_and_number_alone(images):
    given = {"size": 4, "crop": 32}
    first = images.crops(3, seed=7, **given)
    images.crops(4, seed=7, **given)
    for copy in (images, pickle.loads(pickle.dumps(images))):
        again = copy.crops(3, seed=7, **given)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.pixels, images.crops(4, seed=7, **given).pixels)
    assert not torch.equal(first.pixels, images.crops(3, seed=8, **given).pixels)
    assert first.pixels.shape == (4, 32, 32, 3)
    # processes that share a batch
    shares = [images.crops(3, seed=7, rows=rows, **given) for rows in ((0, 2), (1, 3))]
    for a, b in zip(first, zip(*shares, strict=True), strict=True):
        axis = 1 if a.is_floating_point() else 0
        together = torch.stack(b, axis + 1).flatten(axis, axis + 1)
        assert torch.equal(a, together)


def test_every_pixel_of_every_image_can_be_drawn():
    """Corners too: of an image just as large as the crop there is one."""
    images = Photographs.__new__(Photographs)
    images._places, images._upto = [(0, 8, 8), (192, 9, 10)], np.array([0.5, 1.0])
    images._mapped = np.arange(192 + 270).astype(np.uint8)
    seen = set()
    for step in range(200):
        for crop in images.crops(step, size=2, crop=8, seed=0).pixels:
            seen.add(int(crop[0, 0, 0]))
    corners = {192 + (10 * down + across) * 3 for down in (0, 1) for across in (0, 1, 2)}
    assert seen == {0} | {corner % 256 for corner in corners}


def test_the_eight_flips_and_turns():
    pixels = torch.arange(12, dtype=torch.uint8).reshape(2, 2, 3).expand(8, 2, 2, 3)
    x = arrange(Crops(pixels, torch.arange(8), torch.zeros(4, 8))) * 255
    seen = {tuple(image[0].flatten().int().tolist()) for image in x}
    square = np.arange(12).reshape(2, 2, 3)[..., 0]
    turned = [np.rot90(flip, times) for flip in (square, square.T) for times in range(4)]
    assert seen == {tuple(each.flatten().tolist()) for each in turned}
    assert torch.equal(x[0], pixels[0].permute(2, 0, 1).float())


def test_all_eight_are_drawn(images):
    turns = images.crops(0, size=200, crop=8, seed=0).turn
    assert turns.bincount(minlength=8).min() > 10
    assert turns.max() == 7


def test_candidates_are_the_most_detailed_of_random_crops(images):
    def roughness(crops):
        x = arrange(crops)
        return float(x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean())

    plain, best = (
        sum(roughness(images.crops(k, size=4, crop=32, seed=0, candidates=n)) for k in range(8))
        for n in (1, 4)
    )
    assert best > plain


def test_saturated_crops_hold_black_and_white(folder):
    images = Photographs([folder / "more" / "chelsea.png"])  # it has none by itself
    crops = images.crops(0, size=16, crop=32, seed=0)
    plain, some = (arrange(crops, saturate=chance) for chance in (0, 0.5))
    changed = [not torch.equal(a, b) for a, b in zip(plain, some, strict=True)]
    assert 3 <= sum(changed) <= 13
    crops = images.crops(0, size=64, crop=32, seed=0)
    black, white = ((arrange(crops, saturate=1) == end).float().mean() for end in (0, 1))
    assert black > 0.01
    assert white > 0.01
    assert some.min() >= 0
    assert some.max() <= 1


def test_some_crops_are_grey_and_the_others_as_they_were(images):
    crops = images.crops(0, size=32, crop=16, seed=0)
    plain, some = (arrange(crops, saturate=0.3, grey=chance) for chance in (0, 0.4))
    is_grey = [torch.equal(x[0], x[1]) and torch.equal(x[0], x[2]) for x in some]
    assert 7 <= sum(is_grey) <= 19
    for was_made_grey, before, after in zip(is_grey, plain, some, strict=True):
        assert was_made_grey or torch.equal(before, after)
    (one,) = arrange(Crops(crops.pixels[:1], crops.turn[:1], crops.tone[:, :1] * 0), grey=1)
    straight = arrange(Crops(crops.pixels[:1], crops.turn[:1], crops.tone[:, :1]))[0]
    luma = as_kind((straight * 255).byte(), Image.new("RGB", (1, 1))).convert("L")
    assert (as_pixels(luma).int() - (one * 255).int()).abs().max() <= 1


def batches(images, task="rescaling-x2", process=0, processes=1, **changes):
    chosen = photographs.settings(**changes)
    return Batches(images, TASKS[task], chosen, process, processes), chosen


@pytest.mark.parametrize("task", TASKS)
def test_steps_are_what_the_network_takes(images, folder, task):
    channels, out_channels, scale = TASKS[task].channels
    around = TASKS[task].source_side(48)
    if around > 200:  # than the smallest photograph
        images = Photographs(find_images(folder), smallest=around)
    x, reference = pack_crops(batches(images, task)[0][0], TASKS[task])
    assert x.shape == (2, channels, 32, 32)
    assert reference.shape == (2, out_channels, 32 // scale, 32 // scale)


@pytest.mark.parametrize("changes", [{"seed": 7}, {"candidates": 3}, {"seed": 3, "crop": 16}])
def test_crops_are_those_that_the_settings_ask_for(images, changes):
    given, chosen = batches(images, "hiding-1", **changes)
    around = chosen.crop + 2 * margin(TASKS["hiding-1"])
    drawn = {"seed": chosen.seed, "candidates": chosen.candidates}
    expected = images.crops(5, size=4, crop=around, **drawn)
    assert all(torch.equal(a, b) for a, b in zip(given[5], expected, strict=True))
    others = batches(images, "hiding-1")[0][5]
    assert others.pixels.shape != expected.pixels.shape or not torch.equal(
        others.pixels, expected.pixels
    )


def test_packed_crops_are_saturated_as_arranged_ones(images):
    task, crops = TASKS["hiding-1"], batches(images, "hiding-1")[0][0]
    x, reference = pack_crops(crops, task, saturate=1.0)
    inner = slice(margin(task), -margin(task))
    expected = arrange(crops, saturate=1.0)[..., inner, inner]
    assert torch.equal(x, torch.cat(expected.chunk(2), dim=1))
    assert torch.equal(reference, x[:, :3])
    assert not torch.equal(x, pack_crops(crops, task)[0])
    grey, _ = pack_crops(crops, task, grey=1.0)
    assert torch.equal(grey[:, :1], grey[:, 2:3])


@pytest.mark.parametrize("task", ["rescaling-x2", "hiding-1"])
def test_processes_share_a_batch(images, task):
    whole, _ = pack_crops(batches(images, task, batch=4)[0][5], TASKS[task])
    parts = [
        pack_crops(batches(images, task, process, 2, batch=4)[0][5], TASKS[task])[0]
        for process in (0, 1)
    ]
    assert torch.equal(whole, torch.stack(parts, 1).flatten(0, 1))


def test_readers_change_nothing(images):
    for readers in (0, 2):
        given, chosen = batches(images, readers=readers)
        state = torch.get_rng_state()
        read = list(read_batches(given, chosen, 3, torch.device("cpu")))
        assert torch.equal(state, torch.get_rng_state())
        assert len(read) == 5
        for step, crops in enumerate(read, start=3):
            assert all(torch.equal(a, b) for a, b in zip(crops, given[step], strict=True))


@pytest.mark.parametrize("name", ["rescaling-x2", "rescaling-x4", "decolorization"])
def test_reference_of_a_crop_is_that_of_the_whole_photograph(images, name):
    """The crop's border must not show in its reference."""
    task = TASKS[name]
    whole = torch.tensor(images[0][:128, :128]).permute(2, 0, 1)[None] / 255
    around = margin(task)
    edge, side = around // task.scale, 32 // task.scale
    top = 24
    outer = slice(top - around, top + 32 + around)
    inner = task.reference(whole[..., outer, outer])[..., edge:-edge, edge:-edge]
    place = slice(top // task.scale, top // task.scale + side)
    expected = task.reference(whole)[..., place, place]
    assert inner.shape == (1, task.out_channels, side, side)
    torch.testing.assert_close(inner, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [2, 4])
def test_reference_is_pillows_bicubic(scale):
    """In floating point: with 8-bit pixels Pillow rounds and clips between its two passes."""
    photo = torch.tensor(data.astronaut()).permute(2, 0, 1)
    found = TASKS[f"rescaling-x{scale}"].reference(photo[None] / 255)[0] * 255
    for channel, plane in zip(photo, found, strict=True):
        image = Image.fromarray(channel.float().numpy())
        reduced = image.resize((512 // scale, 512 // scale), Image.Resampling.BICUBIC)
        expected = torch.frombuffer(bytearray(reduced.tobytes()), dtype=torch.float32)
        torch.testing.assert_close(
            plane.flatten(), expected.clamp(0, 255), atol=1e-3, rtol=0, check_dtype=False
        )


def test_files_that_cannot_be_read_are_left_out_with_a_warning(folder, tmp_path):
    paths = find_images(folder)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "other.png").write_bytes(b"")
    several = [*paths, tmp_path / "broken.png", tmp_path / "other.png"]
    with pytest.warns(WICWarning, match=r"2 of 5 files are left out: .*broken\.png is not"):
        found = Photographs(several, cache=tmp_path / "cache")
    assert len(found) == len(Photographs(paths, cache=tmp_path / "cache"))


def test_the_digest_is_of_the_files_wherever_they_are(folder, tmp_path):
    paths = find_images(folder)
    moved = shutil.copytree(folder, tmp_path / "moved")
    cache = tmp_path / "cache"
    first = Photographs(paths, cache=cache).digest
    assert Photographs(find_images(moved), cache=cache).digest == first
    assert Photographs(paths[1:], cache=cache).digest != first
    assert Photographs(paths, levels=2, cache=cache).digest != first


def test_lettering_is_on_its_share_of_the_crops_and_repeats(images):
    plain = images.crops(0, size=40, crop=32, seed=0)
    some, again = (images.crops(0, size=40, crop=32, seed=0, lettering=0.3) for _ in range(2))
    changed = (some.pixels != plain.pixels).flatten(1).any(1)
    assert 5 <= changed.sum() <= 20
    assert torch.equal(some.pixels, again.pixels)
    assert torch.equal(some.turn, plain.turn)
    one = images.crops(0, size=40, crop=32, seed=0, lettering=0.3, rows=[7, 21])
    assert torch.equal(one.pixels, some.pixels[[7, 21]])
    lettered = some.pixels[changed].float()
    plain = plain.pixels[changed].float()
    assert lettered.diff(dim=2).abs().mean() > 1.5 * plain.diff(dim=2).abs().mean()


def test_photographs_are_seen_equally_often_whatever_their_size(tmp_path):
    for value, side in ((0, 64), (255, 512)):
        Image.new("RGB", (side, side), (value,) * 3).save(tmp_path / f"{side}.png")
    both = Photographs(find_images(tmp_path), cache=tmp_path / "cache")
    crops = both.crops(0, size=200, crop=32, seed=0)
    assert 70 < (crops.pixels[:, 0, 0, 0] == 255).sum() < 130
