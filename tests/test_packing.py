"""Several images in one and back, on real pictures; and what single photographs are made into."""

import os

import numpy as np
import pytest
import skimage
import torch
from cases import shaken
from PIL import Image
from skimage import data

from wic_layers import tasks
from wic_layers.codec.mark import Mark
from wic_layers.codec.parts import split
from wic_layers.errors import WICArgumentError, WICFileError, WICShapeError
from wic_layers.models import IICNet, WINNaive, from_pretrained
from wic_layers.pictures import (
    as_layer,
    psnr,
    read_carrier,
    read_image,
    read_layer,
    size_of,
    write_png,
)
from wic_layers.tasks import PACKING, TASKS, Clip, Layers, Stereo, Zoom, composing
from wic_layers.training import Objective

FEW = {"couplings": 1, "growth": 4, "features": 2}
NAMES = [task.name for task in PACKING]


def picture(name):
    if name in ("left", "right"):  # not offered by skimage.data without a download
        path = os.path.join(os.path.dirname(skimage.__file__), f"data/motorcycle_{name}.png")
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    return torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)


def network(task):
    channels, results, scale = task.channels
    torch.manual_seed(0)
    return shaken(IICNet(channels, results, scale=scale, **FEW)).half().float().eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder for every kind of network; its tasks share it."""
    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for task in PACKING:
        name = "-".join(map(str, task.channels))
        if not (folder / name).exists():
            network(task).save_pretrained(folder / name)
        found[task.name] = folder / name
    return found


def images_for(name, side=40):
    """Images as a user has them: pixels of real pictures."""
    if name == "stereo":
        return [
            picture(side_)[:, 200 : 200 + side, 300 : 301 + side] for side_ in ("left", "right")
        ]
    if name.startswith("zoom"):
        factor, photo = int(name[-1]), picture("astronaut")[:, : 8 * side, : 8 * side]
        normal, zoomed = composing.views(photo[None].float() / 255, factor)
        return [(view[0] * 255).round().byte() for view in (normal, zoomed)]
    if name == "layers":
        photo = picture("chelsea")[:, :side, : side + 1]
        alpha = torch.linspace(0, 255, side + 1).round().byte().expand(1, side, -1)
        return [picture("coffee")[:, :side, : side + 1], torch.cat((photo, alpha))]
    photo = picture("rocket")  # a camera pan
    frames = TASKS[name].images
    return [photo[:, 100 : 100 + side, 3 * k : 3 * k + side] for k in range(frames)]


@pytest.mark.parametrize("name", NAMES)
def test_in_files_is_in_memory(name, weights, tmp_path):
    images, task = images_for(name), TASKS[name]
    paths = [tmp_path / f"{index}.png" for index in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path)
    written = tasks.pack_file(name, paths, tmp_path / "packed.png", model=weights[name])
    packed = tasks.pack(name, images, model=weights[name])
    stored, chunk = read_carrier(tmp_path / "packed.png")
    assert torch.equal(stored, packed)
    size = size_of(images[0])
    assert written.source == size
    assert written.size == size_of(packed) == tuple(-(-(s + s % 2) // task.scale) for s in size)
    assert Mark.loads(split(chunk)["mark"]).task == name
    assert len(written.returns) == task.images

    again = tasks.unpack_file(tmp_path / "packed.png", tmp_path / "back.png", model=weights[name])
    found = tasks.unpack(packed, name, size=size, model=weights[name])
    inputs = task.prepare(*images)
    assert len(again) == len(found) == len(inputs) == task.images
    for each, image, original, value in zip(again, found, inputs, written.psnr_back, strict=True):
        assert torch.equal(read_image(each.path), image)
        assert size_of(image) == size
        assert value == pytest.approx(psnr(image, original))


class Courier(torch.nn.Module):
    """Not a network: what is in the first channels is the picture, whose copies come back."""

    preset = None

    def __init__(self, task, take=0):
        super().__init__()
        channels, results, scale = task.channels
        self.config = {"in_channels": channels, "out_channels": results, "scale": scale}
        self.parameter = torch.nn.Parameter(torch.zeros(()))
        self.take = take

    def forward(self, x):
        return x[:, 3 * self.take : 3 * self.take + 3]

    def inverse(self, y):
        order = torch.arange(self.config["in_channels"] // 3)
        return torch.cat([y * (k + 1) / 10 for k in order.tolist()], dim=1)


def test_the_middle_frame_comes_first_and_all_come_back_in_their_order():
    frames = [torch.full((3, 4, 6), 10 * k, dtype=torch.uint8) for k in range(5)]
    task = TASKS["clip-5"]
    model = Courier(task)
    assert torch.equal(tasks.pack("clip-5", frames, model=model), frames[2])
    for take, frame in ((1, 0), (2, 1), (3, 3), (4, 4)):
        other = Courier(task, take)
        assert torch.equal(tasks.pack("clip-5", frames, model=other), frames[frame])
    full = torch.full((3, 4, 6), 250, dtype=torch.uint8)
    back = [int(frame[0, 0, 0]) for frame in tasks.unpack(full, "clip-5", model=model)]
    assert back == [50, 75, 25, 100, 125]
    x = task.pack(*(frame[None] for frame in frames))
    assert all(torch.equal(a[0], b) for a, b in zip(task.unpack(x), frames, strict=True))


def test_a_clip_that_is_short_of_frames(weights, tmp_path):
    frames = images_for("clip-5")[:3]
    whole = tasks.pack("clip-5", [*frames, frames[-1], frames[-1]], model=weights["clip-5"])
    assert torch.equal(tasks.pack("clip-5", frames, model=weights["clip-5"]), whole)
    back = tasks.unpack(whole, "clip-5", frames=3, model=weights["clip-5"])
    assert len(back) == 3
    for index, frame in enumerate(frames):
        write_png(frame, tmp_path / f"{index}.png")
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    written = tasks.pack_file("clip-5", paths, tmp_path / "p.png", model=weights["clip-5"])
    assert len(written.returns) == len(written.psnr_back) == 3
    again = tasks.unpack_file(tmp_path / "p.png", tmp_path / "b.png", model=weights["clip-5"])
    for each, frame in zip(again, back, strict=True):
        assert torch.equal(read_image(each.path), frame)


def test_layers_are_composed():
    background, foreground = images_for("layers")
    composition, behind, shown = Layers().prepare(background, foreground)
    a, b = (Image.fromarray(x.permute(1, 2, 0).numpy()) for x in (background, foreground))
    a.paste(b, mask=b.getchannel("A"))
    expected = torch.from_numpy(np.array(a)).permute(2, 0, 1).int()
    assert (composition.int() - expected).abs().max() <= 1  # rounded twice
    assert torch.equal(behind, background)
    assert not shown[:, :, 0].any()
    assert torch.equal(shown[:, :, -1], foreground[:3, :, -1])


def test_layers_of_every_kind(tmp_path, weights):
    background, foreground = images_for("layers")
    arrays = [x.permute(1, 2, 0).numpy() for x in (background, foreground)]
    pillows = [Image.fromarray(array) for array in arrays]
    expected = tasks.pack("layers", [background, foreground], model=weights["layers"])
    found = tasks.pack("layers", arrays, model=weights["layers"])
    assert np.array_equal(found, expected.permute(1, 2, 0).numpy())
    found = tasks.pack("layers", pillows, model=weights["layers"])
    assert np.array_equal(np.asarray(found), expected.permute(1, 2, 0).numpy())
    # files: palettes and grey with transparency too; an orientation counts for all of it
    grey = pillows[1].convert("LA")
    grey.save(tmp_path / "grey.png")
    assert torch.equal(read_layer(tmp_path / "grey.png"), as_layer(grey.convert("RGBA")))
    exif = Image.Exif()
    exif[0x0112] = 6
    pillows[1].save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(read_layer(tmp_path / "turned.png"), foreground.rot90(-1, (1, 2)))
    pillows[0].save(tmp_path / "opaque.png")
    assert torch.equal(read_layer(tmp_path / "opaque.png"), background)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_of_a_photograph(name):
    """Images of 8 bits and of the size that was asked for, which are nearly alike."""
    task = TASKS[name]
    side = task.source_side(24)
    photo = picture("astronaut")[None, :, :side, :side].float() / 255
    sources = [photo, picture("coffee")[None, :, :side, :side].float() / 255][: task.sources]
    torch.manual_seed(0)
    images = task.compose(*sources)
    assert len(images) == task.images
    for image in images:
        assert image.shape == (1, 3, 24, 24)
        assert ((image * 255) - (image * 255).round()).abs().max() < 1e-4
    torch.manual_seed(1)
    is_same = [torch.equal(*pair) for pair in zip(images, task.compose(*sources), strict=True)]
    assert all(is_same) == name.startswith("zoom")
    packed = task.pack(*images)
    reference = task.reference(packed)
    assert reference.shape == (1, 3, 24 // task.scale, 24 // task.scale)
    if task.scale == 1:
        assert torch.equal(reference, images[len(images) // 2 if "clip" in name else 0])


def test_a_pan_moves_evenly():
    """Of a picture that says where it is."""
    across = torch.linspace(0, 1, 80).expand(1, 3, 80, 80)
    torch.manual_seed(3)
    frames = composing.pan(across, 5, 30)
    middles = torch.stack([frame[0, 0, 25, 25] for frame in frames]) * 79
    steps = middles.diff()
    assert steps.abs().max() <= composing.PAN + 0.5
    assert steps.abs().min() > 0.1
    assert (steps - steps.mean()).abs().max() < 0.5  # up to the rounding of the pixels
    assert middles[2] == pytest.approx(39.5, abs=0.5)


def test_what_is_near_moves_farther_between_two_views():
    across = torch.linspace(0, 1, 100).expand(1, 3, 76, 100)
    found = []
    for flat in (0.0, 1.0):  # all near, or nothing
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(composing, "blob", lambda like, softness, f=flat: like[:, :1] * 0 + f)
            torch.manual_seed(1)
            left, right = composing.stereo(across, across)
        found.append(float((right - left).mean()) * 99)
    assert 0 < found[0] <= composing.MOST_DISPARITY / 2
    assert 2 * found[0] <= found[1] <= composing.MOST_DISPARITY


def test_zoomed_view_is_the_middle_of_the_normal_one():
    photo = picture("astronaut")[None].float() / 255
    normal, zoomed = composing.views(photo, 4)
    assert normal.shape == zoomed.shape == (1, 3, 128, 128)
    assert torch.equal(zoomed, photo[:, :, 192:320, 192:320])
    reduced, _ = composing.views(zoomed, 4)
    inner = normal[:, :, 48:80, 48:80]
    assert (reduced - inner)[..., 2:-2, 2:-2].abs().max() < 0.02


def judged(task, network, images):
    """What the objective says of real pictures, through their file's 8 bits."""
    x = task.pack(*(image[None].float() / 255 for image in images))
    objective = Objective(task, (1.0, 1.0, 0.0, 0.0))
    with torch.no_grad():
        return float(sum(objective.weighted(objective(network, x, task.reference(x))).values()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channel_squeeze"),
    [
        ("stereo", False), ("stereo", True), ("zoom-x2", True), ("layers", False),
        ("clip-3-x2", False), ("clip-3-x2", True),
    ],
)  # fmt: skip
def test_a_network_learns_its_task(name, channel_squeeze, tmp_path):
    """Small weights of its own for a real picture; the stereo pair is from a camera."""
    task = TASKS[name]
    channels, results, scale = task.channels
    torch.manual_seed(0)
    given = {"couplings": 2, "growth": 8, "features": 4, "channel_squeeze": channel_squeeze}
    model = IICNet(channels, results, scale=scale, **given)
    images = [image[..., :32, :32] for image in images_for(name, 32)]
    inputs = task.prepare(*images)
    before = judged(task, model, inputs)
    objective = Objective(task, rounding="noise")
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x = task.pack(*(image[None].float() / 255 for image in inputs))
    for _ in range(15):
        loss = sum(objective.weighted(objective(model, x, task.reference(x))).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    model.save_pretrained(tmp_path / "w")
    trained = from_pretrained(tmp_path / "w")
    assert judged(task, trained, inputs) < 0.7 * before
    packed = tasks.pack(name, images, model=trained)
    write_png(packed, tmp_path / "packed.png")
    back = tasks.unpack(read_image(tmp_path / "packed.png"), name, model=trained)
    assert [size_of(image) for image in back] == [(32, 32)] * task.images


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Zoom(3), WICArgumentError, "factor of 2, 4 or 8; got 3"),
        (lambda: Clip(10), WICArgumentError, "2 to 9 frames; got 10"),
        (lambda: Clip(5, scale=4), WICArgumentError, r"scale 1 or 2 .* got 4"),
        (lambda: tasks.pack("pair", []), WICArgumentError, "one of stereo, .* got 'pair'"),
        (lambda: tasks.pack("stereo", []), WICArgumentError, r"2 images .*\(left, right\); got 0"),
        (lambda: tasks.pack("clip-3", []), WICArgumentError, "3 images .* got 0"),
        (
            lambda: Stereo().prepare(torch.ones(3, 4, 4), torch.ones(3, 4, 5)),
            WICShapeError,
            "of one size; got 4x4, 5x4",
        ),
        (
            lambda: tasks.pack("stereo", [torch.ones(4, 2, 2).byte(), torch.ones(3, 2, 2).byte()]),
            WICArgumentError,
            "image 1 for stereo without transparency",
        ),
        (lambda: tasks.unpack(torch.ones(3, 2, 2).byte()), WICArgumentError, "got neither"),
        (
            lambda: tasks.unpack(
                torch.ones(3, 2, 2).byte(), "clip-3", frames=4, model=Courier(TASKS["clip-3"])
            ),
            WICShapeError,
            "Expected 3 or fewer sizes, one for each frame; got 4",
        ),
        (
            lambda: tasks.unpack(
                torch.ones(3, 2, 2).byte(), "stereo", size=(3, 3), model=Courier(TASKS["stereo"])
            ),
            WICShapeError,
            "image of 3x3 cannot come back",
        ),
        (
            lambda: tasks.pack("layers", images_for("layers"), model=Courier(TASKS["stereo"])),
            WICArgumentError,
            r"network for layers \(channels 9 to 3, scale 1\)",
        ),
        (lambda: tasks.pack_file("stereo", ["a.png"], "b.png"), WICFileError, "a.png does not"),
        (
            lambda: list(tasks.pack_clip("stereo", ".", "b.png")),
            WICArgumentError,
            r"2 images for stereo \(left, right\); got the clip",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_networks_say_what_they_were_trained_for(tmp_path):
    model = IICNet.from_preset("iicnet-zoom-x4-small", **FEW)
    images = images_for("zoom-x4", 8)
    assert (model.task, model.preset) == ("zoom-x4", None)
    model.save_pretrained(tmp_path / "w")
    packed = tasks.pack("zoom-x4", images, model=tmp_path / "w")
    for given in (tmp_path / "w", model):
        found = tasks.unpack(packed, model=given)
        expected = tasks.unpack(packed, "zoom-x4", model=given)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    with pytest.raises(WICArgumentError, match=r"network for stereo; .* trained for zoom-x4"):
        tasks.pack("stereo", images, model=tmp_path / "w")
    hiding = WINNaive.from_preset("hiding-1-naive-tiny", growth=4)
    with pytest.raises(WICArgumentError, match="for stereo; WINNaive was trained for hiding-1"):
        tasks.pack("stereo", images, model=hiding)


@pytest.mark.slow
def test_networks_leave_python_with_their_task():
    """Their channels alone would not say it; frames come back in their order."""
    from wic_layers.deploy import export_program

    task = TASKS["clip-3-x2"]
    model = shaken(IICNet(9, 3, scale=2, couplings=1, growth=4, features=2)).eval()
    model.task = task.name
    frames = [image.contiguous() for image in images_for(task.name, 32)]
    packed = tasks.pack(task.name, frames, model=model)
    program = export_program(model, "reverse").module()
    found = program(packed.permute(1, 2, 0).contiguous())
    for a, b in zip(found, tasks.unpack(packed, model=model), strict=True):
        assert (a.permute(2, 0, 1).int() - b.int()).abs().max() <= 1
    assert task.image_names == ("frame_1", "frame_2", "frame_3")
    assert TASKS["layers"].image_names == ("composition", "background", "foreground")


@pytest.mark.parametrize(("name", "tile"), [("stereo", 30), ("clip-3-x2", 20), ("layers", 64)])
def test_tiles_change_nothing(name, tile):
    """But for ties in rounding, which another order of additions may decide otherwise."""
    model, images = network(TASKS[name]), images_for(name, 90)
    whole = tasks.pack(name, images, model=model, tile=1000)
    seen = []
    tiled = tasks.pack(name, images, model=model, tile=tile, progress=lambda *n: seen.append(n))
    assert len(seen) > 1
    pairs = [(whole, tiled)]
    backs = [tasks.unpack(whole, name, model=model, tile=side) for side in (1000, tile)]
    for a, b in (*pairs, *zip(*backs, strict=True)):
        assert (a.int() - b.int()).abs().max() <= 1
        assert (a != b).float().mean() < 1e-3


@pytest.mark.parametrize("name", ["stereo", "clip-3-x2", "zoom-x2"])
def test_judged_by_what_is_made_of_photographs(name):
    pytest.importorskip("torchmetrics")
    from wic_layers.evaluation.protocol import evaluate

    task = TASKS[name]
    photos = [picture("astronaut")[:, :101, :120], picture("coffee")[:, :90, :151]]
    first, again = (list(evaluate(task, network(task), photos)) for _ in range(2))
    assert first == again
    titles = [row.what for row in first[0]]
    assert titles[: 1 + task.images] == [
        task.titles[0],
        *(f"{task.titles[1]} {k}" for k in range(1, task.images + 1)),
    ]
    assert first[0][0].bits > 0
