"""What a network does to channels and sizes, how far it sees and what it costs, as it is run."""

from fractions import Fraction

import pytest
import torch
from cases import BLOCKS, NETWORKS, shaken
from torch import nn

from wic_layers import WIC
from wic_layers.blocks import (
    AffineCoupling,
    Chain,
    Haar,
    LongTermMemory,
    Squeeze,
    Unsqueeze,
)
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.models import PRESETS, WIN, HCFlow, WINNaive, inspect
from wic_layers.models.inspection import flow, flow_table, receptive_field

CLASSES = {"WIN": WIN, "WINNaive": WINNaive}
CHAINS = {name: case for name, case in BLOCKS.items() if isinstance(case[0](), Chain)}
ONE = {"couplings": 1, "growth": 4}


def small(inputs, outputs):
    return DenseBlock(inputs, outputs, growth=4)


def coupling(channels):
    return AffineCoupling(channels, subnet=small)


def span(gradient):
    """First and last row, and first and last column, of what is not zero."""
    seen = gradient[0].abs().sum(0) > 0
    return [
        bound
        for dim in (1, 0)
        for bound in (int(seen.any(dim).nonzero().min()), int(seen.any(dim).nonzero().max()))
    ]


def measured(model, channels, scale, side):
    """How far autograd sees beyond a square of pixels in the middle, forward and back.

    Both in pixels of the input; the square is the smallest one that no squeeze cuts.
    """
    multiple = max(scale, 2)
    first = side // 2 // multiple * multiple
    found = []
    x = torch.rand(1, channels, side, side, dtype=torch.float64)
    for function, of_input, of_output in ((model, 1, scale), (model.inverse, scale, 1)):
        x = x.detach().requires_grad_()
        y = function(x)
        chosen = slice(first // of_output, (first + multiple) // of_output)
        y[..., chosen, chosen].sum().backward()
        top, bottom, left, right = span(x.grad)
        assert min(top, left) > 0, "the picture is too small"
        assert max(bottom, right) < x.shape[-1] - 1, "the picture is too small"
        before = first - of_input * min(top, left)
        after = of_input * (max(bottom, right) + 1) - first - multiple
        found.append(max(before, after))
        x = y
    return found


# a coupling sees 5 pixels through F, and 5 more through G or H
SEEN = {
    "naive, zero": (lambda: WINNaive(2, 1, scale=2, **ONE), 2, 20, 0),
    "naive, same size": (lambda: WINNaive(2, 1, **ONE), 2, 20, 0),
    "naive, shift": (lambda: WINNaive(2, 1, scale=2, completion="shift", **ONE), 2, 20, 2),
    "naive, same size, shift": (lambda: WINNaive(3, 1, completion="shift", **ONE), 3, 20, 1),
    "naive, learned": (lambda: WINNaive(2, 1, scale=2, completion="learned", **ONE), 2, 20, 6),
    "naive, published": (lambda: WINNaive(3, 1, scale=2, layout="published", **ONE), 3, 20, 4),
    "naive, two couplings": (
        lambda: WINNaive(2, 1, couplings=2, growth=2, completion="zero"),
        2,
        40,
        0,
    ),
    "naive, x4": (lambda: WINNaive(1, 1, scale=4, **ONE), 1, 40, 0),
    "naive, x4, copies": (
        lambda: WINNaive(1, 1, scale=4, copies=4, completion="shift", **ONE),
        1,
        40,
        4,
    ),
    "win": (lambda: WIN(1, 1, scale=2, width=8, modules=1, completion="zero", **ONE), 1, 40, 0),
    "win, two modules": (lambda: WIN(1, 1, scale=2, width=8, completion="zero", **ONE), 1, 60, 0),
    "chains in a chain": (
        lambda: Chain(
            Chain(Haar(), WIC(4, 5)),
            LongTermMemory(1, coupling(4)),
            Chain(WIC(5, 1, completion="shift")),
        ),
        1,
        20,
        2,
    ),
}


@pytest.mark.parametrize("name", SEEN)
def test_receptive_field_is_what_autograd_sees(name):
    make, channels, couplings, completion = SEEN[name]
    model = shaken(make()).double()
    scale = int(1 / flow(model, channels)[-1].sizes[1])
    found = receptive_field(model, channels)
    assert found == couplings + completion
    # what stands in for dropped channels is looked at on the way back only
    side = 2 * found + 12 + -(2 * found + 12) % 4
    assert measured(model, channels, scale, side) == [couplings, found]


@pytest.mark.parametrize(("completion", "seen"), [("shift", 1), ("learned", 3)])
def test_receptive_field_has_what_completes_the_z_of_a_conditional_flow(completion, seen):
    small = {"scale": 2, "steps": 1, "growth": 2, "conditional_steps": 1, "width": 4, "depth": 1}
    without, with_it = (HCFlow(completion=name, **small) for name in ("zero", completion))
    # z is completed at half the size
    assert receptive_field(with_it, 3) - receptive_field(without, 3) == 2 * seen


@pytest.mark.parametrize(
    ("model", "channels", "seen"),
    [
        (Chain(), 3, 0),
        (Chain(Squeeze(2), WIC(12, 16)), 3, 0),
        (Chain(Squeeze(4), Unsqueeze(2), coupling(12)), 3, 20),
        (Chain(LongTermMemory(2, LongTermMemory(2, coupling(4)))), 8, 10),
        (Chain(Unsqueeze(4), coupling(3)), 48, 3),  # 10 pixels of a fourth of the size
    ],
)
def test_receptive_field_of_other_chains(model, channels, seen):
    assert receptive_field(model, channels) == seen


@pytest.mark.parametrize("name", [*NETWORKS, *CHAINS])
def test_steps_are_the_blocks_as_they_run(name):
    make, shape = {**NETWORKS, **CHAINS}[name]
    model, seen = make(), []
    steps = flow(model, shape[1])
    for step in steps:
        assert model.get_submodule(step.name) is step.block
        step.block.register_forward_hook(
            lambda block, args, out: seen.append((block, args[0].shape, out.shape))
        )
    model(torch.rand(shape))
    # a memory has run when all inside it has
    assert {id(block) for block, *_ in seen} == {id(step.block) for step in steps}
    for block, before, after in seen:
        (step,) = (step for step in steps if step.block is block)
        assert step.channels == (before[1], after[1])
        assert step.sizes == (Fraction(before[2], shape[2]), Fraction(after[2], shape[2]))
    leaves = [step for step in steps if not isinstance(step.block, LongTermMemory)]
    order = [block for block, *_ in seen if not isinstance(block, LongTermMemory)]
    assert [step.block for step in leaves] == order
    held = {id(p) for step in leaves for p in step.block.parameters()}
    assert held == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("preset", [name for name in PRESETS.names() if name.endswith("-tiny")])
def test_repr_says_channels_and_sizes(preset):
    model = CLASSES[PRESETS[preset].network].from_preset(preset)
    title, *rows = repr(model).splitlines()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert title == f"{type(model).__name__}({preset}), {parameters:,} parameters"
    config = model.config
    groups = config["in_channels"] if config["scale"] == 1 else ""
    first = f"Haar({groups})" if config.get("haar") else "Squeeze(2)"
    assert rows[0].split(maxsplit=2)[:2] == ["0", first]
    assert (
        f" {config['in_channels']} x H x W -> {4 * config['in_channels']} x H/2 x W/2" in rows[0]
    )
    assert rows[-1].startswith(f"{len(model) - 1} ")
    size = {1: "H x W", 2: "H/2 x W/2", 4: "H/4 x W/4"}[config["scale"]]
    assert f"-> {config['out_channels']} x {size}" in rows[-1]
    # as many parameters in the rows as in the title
    total = 0
    for row in rows:
        words = row.removesuffix(" each").split("  ")
        count = words[-1].replace(",", "").strip()
        times = row.split("(x")[1].split(")")[0] if row.endswith("each") else 1
        total += int(count) * int(times) if count.isdigit() else 0
    assert total == parameters


def test_equal_blocks_in_a_row_are_one_row():
    model = WIN(6, 3, modules=2, couplings=3, growth=4)
    rows = [row.split("  ")[0] for row in repr(model).splitlines()[1:]]
    assert rows == [
        "0", "1", "2", "3", "3.inner.0 - 2", "3.inner.3", "3.inner.4", "3.inner.4.inner.0 - 2",
        "4", "5", "6",
    ]  # fmt: skip
    assert repr(model).count("AffineCoupling(12 + 12) (x3)") == 2
    assert "WIN()," in repr(model)


def test_table_shows_conditions_where_they_are_given():
    model = WINNaive(2, 1, couplings=2, growth=4)
    found = inspect(model).conditions
    table = flow_table(flow(model, 2), found)
    assert [row for row in table.splitlines() if "condition" in row] == table.splitlines()[-1:]
    assert table.endswith("condition 1")
    assert flow_table([]) == ""


# squeezed to a quarter of the pixels, three dense blocks of 4 channels to 4 of 9 numbers each and
# growth 4, then 8 channels to 1
CONVOLUTIONS = 3 * 9 * 4 * (4 + 8 + 12 + 16 + 20)


@pytest.mark.parametrize(("completion", "back"), [("zero", 8), ("repeat", 8), ("shift", 64)])
def test_cost_is_that_of_a_count_by_hand(completion, back):
    model = WINNaive(2, 1, scale=2, couplings=1, growth=4, completion=completion)
    found = inspect(model)
    assert found.flops == (2 * (CONVOLUTIONS + 8) / 4, 2 * (CONVOLUTIONS + back) / 4)
    assert found.parameters == CONVOLUTIONS + 3 * 20 + 64


@pytest.mark.parametrize("name", NETWORKS)
def test_cost_does_not_depend_on_size(name):
    model = NETWORKS[name][0]()
    assert inspect(model, side=12).flops == pytest.approx(inspect(model, side=24).flops)


def test_conditions_are_those_of_every_kernel():
    model = WIN(2, 1, width=16, couplings=1, growth=4)
    names = {name for name, module in model.named_modules() if isinstance(module, WIC)}
    with torch.no_grad():
        model[1].weight[:, 0] *= 5
    found = inspect(model).conditions
    assert found.keys() == names == {"1", "2", "3.inner.1", "6"}
    assert found.pop("1") == pytest.approx(5)
    assert list(found.values()) == pytest.approx([1] * 3)


@pytest.mark.parametrize(
    "preset", ["rescaling-x2-naive-tiny", "rescaling-x4-tiny", "hiding-1-tiny"]
)
def test_side_of_the_square_that_is_seen(preset):
    """Of both sides and the pixels between, which are squeezed together."""
    model = CLASSES[PRESETS[preset].network].from_preset(preset)
    seen = receptive_field(model, model.config["in_channels"])
    between = {1: 2, 2: 2, 4: 4}[model.config["scale"]]
    assert inspect(model).receptive_field == 2 * seen + between


def test_inspecting_leaves_all_as_it_was():
    model = shaken(WINNaive(2, 1, **ONE)).double()
    model.train()
    model[1].F.eval()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    before = torch.random.get_rng_state()
    inspect(model)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    with torch.no_grad():
        y = torch.rand(1, 1, 8, 8, dtype=torch.float64)
        cached = model.inverse(y)
        inspect(model)
        assert not any(module.training for module in model.modules())
        assert torch.equal(model.inverse(y), cached)


def test_a_failed_inspection_keeps_the_mode():
    model = WINNaive(2, 1, **ONE).eval()
    with torch.no_grad():
        model[-1].weight.zero_()
    with pytest.raises(ArithmeticError):
        inspect(model)
    assert not model.training


class Blur(nn.Module):
    """A block of a user's own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, (3, 5), padding=(2, 4), dilation=2)

    def forward(self, x):
        return x

    def inverse(self, y):
        return y


def test_blocks_of_a_users_own_count_by_their_convolutions():
    model = Chain(Squeeze(1), Blur(), WIC(3, 3))
    assert receptive_field(model, 3) == 4
    assert flow(model, 3)[1].channels == (3, 3)
