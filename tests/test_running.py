"""Networks at work on pixels: tiles to the bit, images on any device, threads that share one."""

import copy
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from elsewhere import Elsewhere
from PIL import Image
from skimage import data
from torch import nn
from torch.nn.utils import prune

from wic_layers import WIC, tasks
from wic_layers.blocks import AffineCoupling, Chain, Squeeze, Unsqueeze
from wic_layers.codec.mark import digest
from wic_layers.codec.running import backward_pixels, forward_pixels, reference_pixels
from wic_layers.evaluation.judging import Judgement
from wic_layers.evaluation.metrics import compare
from wic_layers.models import WINNaive, inspect
from wic_layers.models.inspection import in_evaluation_mode, receptive_field
from wic_layers.pictures import as_pixels
from wic_layers.tasks import TASKS

pytestmark = pytest.mark.filterwarnings("ignore:What came back:wic_layers.errors.WICWarning")


def random_pixels(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, size[1], size[0])
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


# ---------------------------------------------------------------------------------------- tiles


def convolution(in_channels, out_channels):
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class Small(Chain):
    """Couplings of single convolutions: what stands at the rim of what they see counts."""

    preset = None

    def __init__(self, task, completion="zero"):
        channels, out_channels, scale = task.channels
        wide = channels * max(scale, 2) ** 2
        couplings = (AffineCoupling(wide, subnet=convolution) for _ in range(2))
        last = [Unsqueeze(2)] if scale == 1 else []
        inside = channels if scale == 1 else wide
        super().__init__(
            Squeeze(max(scale, 2)), *couplings, *last,
            WIC(inside, out_channels, completion=completion),
        )  # fmt: skip
        self.config = {"in_channels": channels, "out_channels": out_channels, "scale": scale}


@pytest.mark.parametrize(
    ("name", "completion", "reach"),
    [
        ("hiding-1", "zero", 8),
        ("hiding-1", "shift", 9),
        ("decolorization", "shift", 9),
        ("rescaling-x2", "zero", 8),
        ("rescaling-x4", "zero", 16),
        ("clip-3-x2", "shift", 12),
    ],
)
def test_tiles_are_the_whole_to_the_bit(name, completion, reach):
    """In float64; the pixels that a tile sees around it are as many as it needs, and no more."""
    task = TASKS[name]
    network = Small(task, completion).double().eval()
    assert receptive_field(network, task.channels[0]) == reach
    images = [random_pixels((70, 54), seed) for seed in range(task.images)]
    whole = forward_pixels(task, network, task.packed(*images), tile=1000, rounded=False)
    tiled = forward_pixels(task, network, task.packed(*images), tile=32, rounded=False)
    assert torch.equal(tiled, whole)
    picture = torch.rand(whole.shape)
    sizes = [(70, 54)] * task.restored_count
    backs = [backward_pixels(task, network, picture, sizes, tile=side) for side in (1000, 32)]
    assert all(torch.equal(a, b) for a, b in zip(*backs, strict=True))
    assert all(0.05 < a.std() for a in backs[0])


@pytest.mark.parametrize("name", ["rescaling-x2", "rescaling-x3", "rescaling-x4", "clip-3-x2"])
def test_the_reference_is_pillows_bicubic(name):
    task = TASKS[name]
    photo = as_pixels(data.astronaut())[:, :192, 130:274].contiguous()
    small = reference_pixels(task, task.packed(*[photo] * task.images))
    size = (144 // task.scale, 192 // task.scale)
    picture = Image.fromarray(photo.permute(1, 2, 0).numpy())
    bicubic = picture.resize(size, Image.Resampling.BICUBIC)
    difference = small.int() - torch.from_numpy(np.array(bicubic)).permute(2, 0, 1).int()
    assert difference.abs().max() <= 3  # Pillow rounds twice, after each axis
    assert difference.float().abs().mean() < 0.3


@pytest.mark.parametrize("name", ["rescaling-x2", "rescaling-x4", "decolorization"])
def test_the_reference_of_a_long_picture_is_in_one_piece(name):
    task, photo = TASKS[name], random_pixels((2060, 16))
    whole = task.reference(photo[None].float() / 255)[0]
    tiled = reference_pixels(task, task.packed(photo))
    assert torch.equal(tiled, (whole * 255).round().to(torch.uint8))


@pytest.mark.parametrize("row", [0, 5, -1])
@pytest.mark.parametrize("column", [0, 7, -1])
def test_the_digest_is_of_every_pixel(row, column):
    picture = random_pixels((12, 10))
    edited = picture.clone()
    for channel in range(3):
        edited[channel, row, column] ^= 1
        assert digest(edited) != digest(picture)
        edited[channel, row, column] ^= 1
    assert digest(edited) == digest(picture)


# -------------------------------------------------------------------------------------- devices


class Stub(Chain):
    """As cheap as a network can be, on any device."""

    preset = None

    def __init__(self, task, device):
        super().__init__()
        channels, out_channels, scale = task.channels
        self.config = {"in_channels": channels, "out_channels": out_channels, "scale": scale}
        self.factor = nn.Parameter(torch.ones((), device=device))

    def forward(self, x):
        scale = self.config["scale"]
        return x[:, : self.config["out_channels"], ::scale, ::scale] * self.factor

    def inverse(self, y):
        scale, times = (self.config[key] for key in ("scale", "in_channels"))
        large = y.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        return large[:, :1].expand(-1, times, -1, -1) * self.factor


@pytest.mark.parametrize("name", list(TASKS))
def test_images_may_be_anywhere(name):
    task = TASKS[name]
    there, here = torch.zeros(3, 16, 16, dtype=torch.uint8, device="meta"), random_pixels((16, 16))
    images = [here if index % 2 else there for index in range(len(task.image_names))]
    if name == "layers":
        images = [there, torch.cat((there, there[:1]))]
    with Elsewhere():
        for device in ("cpu", "meta"):
            network = Stub(task, device).eval()
            for given in (images, [here, *images[1:]]):
                keywords = {"model": network, "refine": 2}
                if task.is_composed:
                    picture = tasks.pack(name, given, **keywords)
                    back = tasks.unpack(picture, name, model=network)
                elif task.images > 1:
                    picture = tasks.hide(given[0], given[1:], **keywords)
                    back = tasks.reveal(picture, model=network)
                else:
                    to, fro = (getattr(tasks, each.split()[1]) for each in task.commands)
                    picture = to(given[0], **keywords)
                    back = [fro(picture, model=network)]
                assert {x.device for x in (picture, *back)} == {given[0].device}


def test_pixels_may_be_anywhere():
    task, size = TASKS["hiding-1"], (16, 16)
    there, here = torch.zeros(3, 16, 16, dtype=torch.uint8, device="meta"), random_pixels(size)
    with Elsewhere():
        for images in ((there, here), (here, there)):
            for device in ("cpu", "meta"):
                network = Stub(task, device).eval()
                picture = forward_pixels(task, network, task.packed(*images), refine=2)
                back = backward_pixels(task, network, picture.to(images[0].device), [size])
                results = (picture, *back, reference_pixels(task, task.packed(*images)))
                assert {x.device.type for x in results} == {"cpu"}
        assert digest(there) == digest(torch.zeros(3, 16, 16, dtype=torch.uint8))
        assert compare("", there, here) == compare("", torch.zeros_like(here), here)


# -------------------------------------------------------------------------------------- threads


class Patient(WINNaive):
    """Says in which mode it runs, and does not finish before it may."""

    def __init__(self, **arguments):
        super().__init__(3, 3, scale=2, couplings=1, growth=4, **arguments)
        self.started, self.may_finish = threading.Event(), threading.Event()
        self.modes = []

    def __deepcopy__(self, memo):
        memo.update({id(x): x for x in (self.started, self.may_finish, self.modes)})
        twin = self.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(vars(self), memo))
        return twin

    def forward(self, x):
        self.modes.append({module.training for module in self.modules()})
        self.started.set()
        assert self.may_finish.wait(60)
        return super().forward(x)


RUNS = {
    "down": lambda network: tasks.down(random_pixels((16, 12)), model=network),
    "judge": lambda network: Judgement(network, TASKS["rescaling-x2"], torch.rand(1, 3, 8, 8)),
    "inspect": lambda network: inspect(network, 8),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=list(RUNS))
@pytest.mark.parametrize("training", [True, False])
def test_nobody_sees_the_mode_of_another_thread(run, training):
    network = Patient().train(training)
    frozen = network[1].eval()  # one of the modules is not trained
    modes = {name: module.training for name, module in network.named_modules()}
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, network) for _ in range(2)]
        assert network.started.wait(60)
        seen = {name: module.training for name, module in network.named_modules()}
        network.may_finish.set()
        for each in runs:
            each.result()
    assert seen == modes
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert not frozen.training
    assert network.modes
    assert all(mode == {False} for mode in network.modes)  # each ran in evaluation mode


def test_a_training_goes_on_while_others_look():
    """Whoever runs a network that is trained sees its weights of that moment, and no gradients."""
    network = WINNaive(3, 3, scale=2, couplings=1, growth=4)
    network[1].F = nn.Sequential(network[1].F, nn.Dropout(0.5))  # which tells the mode
    photo = random_pixels((16, 12))
    calm = copy.deepcopy(network).eval()
    expected = tasks.down(photo, model=calm)
    is_over = threading.Event()
    trained = []

    def train():
        while not is_over.is_set():
            trained.append(all(m.training for m in network.modules()))
            network(torch.rand(1, 3, 8, 8)).mean().backward()

    with ThreadPoolExecutor(3) as pool:
        training = pool.submit(train)
        found = list(pool.map(lambda _: tasks.down(photo, model=network), range(20)))
        is_over.set()
        training.result()
    assert all(torch.equal(each, expected) for each in found)
    assert trained
    assert all(trained)


def test_a_copy_in_evaluation_mode_shares_what_it_holds():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), WIC(3, 4, parametrization="lu"))
    prune.random_unstructured(network[0], "weight", amount=2)
    lines = queue.SimpleQueue()  # which cannot be copied

    def note(lines, module, inputs, output):
        lines.put(module.training)

    network.register_forward_hook(partial(note, lines))
    twin = in_evaluation_mode(network)
    assert twin is not network
    assert all(not module.training for module in twin.modules())
    assert all(module.training for module in network.modules())
    for mine, own in ((twin.parameters, network.parameters), (twin.buffers, network.buffers)):
        assert all(a is b for a, b in zip(mine(), own(), strict=True))
    x = torch.rand(2, 3, 4, 4)
    with torch.no_grad():
        network[0].weight_orig += 1  # as a step of an optimizer does
        found = twin(x)
        assert torch.equal(found, network.eval()(x))
    assert [lines.get_nowait() for _ in range(2)] == [False, False]
    assert in_evaluation_mode(network) is network


def test_what_cannot_be_copied_says_so():
    network = WINNaive(3, 3, scale=2, couplings=1, growth=4)
    network.lock = threading.Lock()
    with pytest.raises(TypeError, match=r"WINNaive in evaluation mode.*Call its eval\(\) first"):
        tasks.down(random_pixels((8, 8)), model=network)
    assert tasks.down(random_pixels((8, 8)), model=network.eval()).shape == (3, 4, 4)


def test_a_network_that_evaluates_keeps_its_inverses():
    network = WINNaive(3, 3, scale=2, couplings=1, growth=4).eval()
    small = random_pixels((8, 8))
    with pytest.MonkeyPatch.context() as patch:
        tasks.up(small, model=network)
        patch.setattr(WIC, "clear_cache", None)  # not called
        tasks.up(small, model=network)
