"""Networks inside couplings on large images, a piece at a time."""

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from wic_layers.blocks import CouplingNet, DenseBlock, SqueezedBlock
from wic_layers.blocks import pieces as module
from wic_layers.codec.running import backward_pixels, forward_pixels
from wic_layers.codec.tiles import Tiling
from wic_layers.codec.work import counted, told_to
from wic_layers.models import WINNaive
from wic_layers.tasks import TASKS


class Largest(TorchFunctionMode):
    """The most numbers that went into one convolution."""

    numbers = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.conv2d:
            self.numbers = max(self.numbers, args[0].numel())
        return func(*args, **(kwargs or {}))


def started(block):
    torch.manual_seed(0)
    nn.init.normal_(block.convolutions()[-1].weight, std=0.1)
    return block.eval()


BLOCKS = {
    "dense": lambda: DenseBlock(3, 4, growth=4),
    "squeezed": lambda: SqueezedBlock(3, 4, 8),
    "squeezed by 3": lambda: SqueezedBlock(3, 4, 8, depth=3, factor=3),
}


@pytest.fixture(params=BLOCKS)
def block(request):
    return started(BLOCKS[request.param]())


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setitem(module._BYTES, "cpu", 1)  # of 64 x 64


@pytest.mark.parametrize("shape", [(1, 3, 150, 131), (2, 3, 97, 200), (1, 3, 20, 900)])
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_pieces_are_those_of_the_whole(block, small_pieces, shape, precision, monkeypatch):
    x = torch.rand(shape)
    block.optimize(precision)
    with torch.no_grad(), Largest() as pieces:
        y = block(x)
    monkeypatch.setitem(module._BYTES, "cpu", 2**30)
    with torch.no_grad(), Largest() as whole:
        expected = block(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6 if precision is None else 0.02)
    assert pieces.numbers < 0.5 * whole.numbers


def test_only_what_runs_as_it_was_built_and_without_gradients_runs_in_pieces(block, small_pieces):
    x = torch.rand(1, 3, 150, 130)
    with Largest() as with_gradients:
        block(x)
    block.conv2.padding_mode = "reflect"  # of the image's border, not of a piece's
    assert not block.is_run_in_pieces
    with torch.no_grad(), Largest() as changed:
        block(x)
    assert with_gradients.numbers == changed.numbers >= 3 * 150 * 130


@pytest.mark.parametrize("name", BLOCKS)
def test_reach_and_grid(name):
    """What a pixel depends on lies within its reach, and reaches it from some pixel."""
    block = started(BLOCKS[name]())
    side = 12 * block.cell
    x = torch.rand(1, 3, side, side, requires_grad=True)
    farthest = 0
    for place in range(5 * block.cell, 6 * block.cell):
        (gradient,) = torch.autograd.grad(block(x)[0, :, place, place].sum(), x)
        seen = gradient.abs().sum((0, 1)).nonzero() - place
        farthest = max(farthest, int(seen.abs().max()))
    assert farthest == block.reach
    with torch.no_grad():
        y, shifted = block(x), block(x[..., block.cell :, :])
    inside = slice(block.reach, -block.reach)
    torch.testing.assert_close(y[..., block.cell :, :][..., inside, :], shifted[..., inside, :])


def test_the_work_on_pieces_adds_up_to_all(small_pieces):
    network = WINNaive.from_preset("rescaling-x2-naive-tiny").eval()
    shares = []
    with torch.no_grad(), told_to(shares.append), counted(network):
        network(torch.rand(1, 3, 300, 280))
    assert len(shares) > 100
    assert shares == sorted(shares)
    assert shares[len(shares) // 2] == pytest.approx(0.5, abs=0.1)
    assert shares[-1] == pytest.approx(1)


@pytest.mark.parametrize("squeezed", [None, 8])
def test_tiles_give_what_the_whole_gives(squeezed):
    torch.manual_seed(1)
    network = WINNaive(3, 3, scale=2, couplings=1, growth=4, squeezed=squeezed, haar=True)
    network.double().eval()
    for each in network.modules():
        if isinstance(each, CouplingNet):
            started(each)
    task, x = TASKS["rescaling-x2"], torch.randint(256, (3, 134, 150), dtype=torch.uint8)
    whole = forward_pixels(task, network, x, rounded=False)
    sizes = [(150, 134)]
    (back,) = backward_pixels(task, network, whole, sizes)
    for tile in (30, 64):
        tiled = forward_pixels(task, network, x, tile=tile, rounded=False)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-6)
        (tiled,) = backward_pixels(task, network, whole, sizes, tile=tile)
        torch.testing.assert_close(tiled, back, rtol=0, atol=1e-6)


def test_tiles_are_as_large_as_pieces_allow():
    network = WINNaive.from_preset("rescaling-x2-naive-small").eval()
    task = TASKS["rescaling-x2"]
    in_pieces = Tiling.of(task, network, None, 10**9).side
    for each in network.modules():
        if isinstance(each, CouplingNet):
            each.conv1.padding_mode = "reflect"
    assert in_pieces > 1.4 * Tiling.of(task, network, None, 10**9).side
