"""What stands in for dropped channels, and the rules that make it work at every size."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wic_layers import WIC
from wic_layers.errors import WICArgumentError, WICShapeError
from wic_layers.layer.completion import Gaussian, Learned, Repeat, Shift, Zero, resolve


def moved(y, offset):
    """``y`` moved by an offset: rolled, the wrapped border cut off, and reflected in its place."""
    for axis, step in enumerate(offset):
        dim = axis + 2
        y = y.roll(step, dim)
        size = y.shape[dim] - abs(step)
        y = y.narrow(dim, max(step, 0), size)
    pad = [(max(step, 0), max(-step, 0)) for step in offset]
    return F.pad(y, tuple(itertools.chain(*reversed(pad))), mode="reflect")


def published_offsets(count):
    """Row by row over a square without its centre, as the authors' code goes through them."""
    reach = max(math.ceil(math.sqrt(count + 1) / 2), 1)
    square = itertools.product(range(-reach, reach + 1), repeat=2)
    return [offset for offset in square if offset != (0, 0)][:count]


@pytest.mark.parametrize("order", ["nearest", "published"])
@pytest.mark.parametrize("groups", [1, 2, 3, 8, 11, 15, 16, 24])
def test_shift_is_roll_cut_and_reflect_on_large_images(groups, order):
    y = torch.rand(2, 3, 11, 12)
    if order == "published":
        offsets = published_offsets(groups)
    else:
        square = itertools.product(range(-5, 6), repeat=2)
        offsets = sorted(square, key=lambda o: (o[0] ** 2 + o[1] ** 2, o))[1 : groups + 1]
    expected = torch.cat([moved(y, offset) for offset in offsets], dim=1)
    assert torch.equal(Shift(3, 3 * groups, order)(y), expected)


def require_nearest(rank, groups):
    """A picture that holds its own coordinates shows where each group was read."""
    size = 23
    axes = torch.meshgrid(*[torch.arange(float(size))] * rank, indexing="ij")
    place = sum(axis * 100**power for power, axis in enumerate(reversed(axes)))
    middle = (0, slice(None), *[size // 2] * rank)
    offsets = []
    for value in Shift(1, groups)(place[None, None])[middle].long().tolist():
        read = [value // 100**power % 100 for power in reversed(range(rank))]
        offsets.append(tuple(size // 2 - position for position in read))
    grid = [offset for offset in itertools.product(range(-10, 11), repeat=rank) if any(offset)]
    by_distance = sorted(grid, key=lambda offset: (sum(step * step for step in offset), offset))
    assert offsets == by_distance[:groups]


@pytest.mark.parametrize("rank", [1, 2, 3])
@given(st.integers(1, 20))
def test_shift_takes_the_nearest_offsets_first(rank, groups):
    require_nearest(rank, groups)


def test_the_next_point_on_an_axis_comes_before_a_corner():
    require_nearest(rank=2, groups=195)


@given(st.lists(st.integers(1, 6), min_size=0, max_size=3), st.integers(1, 4), st.integers(0, 30))
def test_shift_works_at_every_size(sizes, channels, missing):
    y = torch.rand(2, channels, *sizes)
    out = Shift(channels, missing)(y)
    assert out.shape == (2, missing, *sizes)
    # every number of missing channel k is one of the channel that it repeats
    for k in range(missing):
        numbers, source = (part.reshape(2, -1) for part in (out[:, k], y[:, k % channels]))
        assert (numbers[..., None] == source[:, None]).any(-1).all()
    if all(size == 1 for size in sizes):
        assert torch.equal(out, Repeat(channels, missing)(y))


def test_reflection_has_the_period_of_its_size():
    y = torch.arange(3.0).view(1, 1, 3)
    groups = Shift(1, 10)(y)[0].int().tolist()
    # moved by -1, 1, -2, 2, ...; 0 1 2 | 1 0 1 2 goes on without a break
    assert groups[:4] == [[1, 2, 1], [1, 0, 1], [2, 1, 0], [2, 1, 0]]
    assert groups[6:8] == [[0, 1, 2], [0, 1, 2]]


def test_repeat_takes_the_channels_in_turn():
    y = torch.rand(2, 3, 4, 5)
    assert torch.equal(Repeat(3, 7)(y), torch.cat((y, y, y[:, :1]), dim=1))


def test_zero():
    out = Zero(3, 7)(torch.rand(2, 3, 4, dtype=torch.float64))
    assert out.shape == (2, 7, 4)
    assert out.dtype == torch.float64
    assert not out.any()


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_learned_starts_as_zero_and_learns(rank):
    learned = Learned(3, 9, rank=rank)
    y = torch.rand(2, 3, *[4] * rank)
    assert torch.equal(learned(y), Zero(3, 9)(y))
    # its last layer learns at the first step, the others from the second one on
    optimizer = torch.optim.SGD(learned.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (learned(y) - 1).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in learned.parameters())
    assert learned(y.double()).dtype == torch.float64


def test_gaussian_draws_anew_unless_it_has_a_generator():
    y = torch.zeros(4, 3, 32, 32)
    gaussian = Gaussian(3, 9)
    first, second = gaussian(y), gaussian(y)
    assert first.shape == (4, 9, 32, 32)
    assert not torch.equal(first, second)
    assert abs(float(first.mean())) < 0.02
    assert abs(float(first.std()) - 1) < 0.02
    draws = []
    for _ in range(2):
        seeded = Gaussian(3, 9, generator=torch.Generator().manual_seed(5))
        draws.append((seeded(y), seeded(y)))
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(*draws[0])


@pytest.mark.parametrize("name", ["zero", "repeat", "shift", "learned", "gaussian"])
def test_names_and_classes_give_the_same_layer(name):
    classes = {"zero": Zero, "repeat": Repeat, "shift": Shift}
    classes |= {"learned": Learned, "gaussian": Gaussian}
    layer = WIC(12, 3, completion=name)
    assert type(layer.completion) is classes[name]
    y = torch.rand(2, 3, 5, 5)
    other = WIC(12, 3, completion=classes[name](3, 9))
    other.weight = layer.weight
    with torch.random.fork_rng():
        expected = layer.inverse(y)
    assert torch.equal(other.inverse(y), expected)


@pytest.mark.parametrize("completion", ["zero", "repeat"])
def test_a_linear_completion_equals_its_callable(completion):
    """The layer folds these two into one matrix; a callable is concatenated."""
    layer = WIC(11, 3, completion=completion, dtype=torch.float64)
    y = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    folded = layer.inverse(y)
    layer.completion = nn.Sequential(layer.completion)
    torch.testing.assert_close(layer.inverse(y), folded)


def test_any_callable():
    layer = WIC(6, 3, completion=lambda y: y.flip(-1) * 2)
    y = torch.rand(2, 3, 4, 5)
    x = layer.inverse(y)
    channels = F.conv2d(x, layer.weight[..., None, None])
    torch.testing.assert_close(channels[:, 3:], y.flip(-1) * 2)
    module = nn.Conv2d(3, 3, 3, padding=1)
    layer = WIC(6, 3, completion=module)
    assert {name for name, _ in layer.named_parameters()} >= {"completion.weight"}
    layer.inverse(y).sum().backward()
    assert module.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "completion",
    [
        lambda y: y[:, :2],
        lambda y: y[..., :-1],
        lambda y: y[:1],
        lambda y: [y],
        lambda y: None,
        nn.Conv2d(3, 3, 3),
    ],
)
def test_a_callable_of_another_shape_is_an_error(completion):
    layer = WIC(6, 3, completion=completion)
    with pytest.raises(WICShapeError, match=r"WIC.*completion.*\(2, 3, 4, 5\).*got "):
        layer.inverse(torch.rand(2, 3, 4, 5))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: resolve("shft", 3, 9), WICArgumentError, r"'zero'.*'shift'.*'shft'"),
        (lambda: resolve(3, 3, 9), WICArgumentError, "name or a callable; got 3"),
        (
            lambda: WIC(12, 3, completion=Zero(3, 8)),
            WICArgumentError,
            r"from 3 to 9 channels; got Zero\(3, 8\)",
        ),
        (
            lambda: WIC(12, 3, completion=Learned(4, 9)),
            WICArgumentError,
            r"from 3 to 9 channels; got Learned\(\s+4, 9",
        ),
        (lambda: Shift(3, 9, "random"), WICArgumentError, '"nearest" or "published".*random'),
        (lambda: Learned(3, 9, rank=4), WICArgumentError, r"rank in 0\.\.3; got 4"),
        (lambda: Learned(3, 9, kernel_size=2), WICArgumentError, "odd kernel_size.*got 2"),
        (lambda: Learned(3, 9)(torch.ones(1, 3, 5)), WICShapeError, r"2 spatial.*rank=1"),
        (
            lambda: Shift(3, 9, "published")(torch.ones(1, 3, 5)),
            WICShapeError,
            r"images.*\(1, 3, 5\)",
        ),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("order", ["nearest", "published"])
def test_shift_exports_once_for_all_sizes(order):
    shift = Shift(3, 33, order)
    dims = {0: torch.export.Dim("b"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    program = torch.export.export(shift, (torch.rand(2, 3, 8, 9),), dynamic_shapes=(dims,))
    for sizes in ((2, 2), (3, 7), (16, 5)):
        y = torch.rand(4, 3, *sizes)
        assert torch.equal(program.module()(y), shift(y))


def test_completions_describe_themselves():
    assert repr(Shift(3, 9)) == "Shift(3, 9, order='nearest')"
    assert repr(Zero(3, 9)) == "Zero(3, 9)"
