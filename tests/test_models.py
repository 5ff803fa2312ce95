"""WIN and WIN-Naive: their sizes, that they run both ways, and what their constructors refuse."""

import copy

import pytest
import torch
from cases import NETWORKS, shaken

from wic_layers import WIC, det_loss, record_wic, shift_loss
from wic_layers.blocks import AffineCoupling, Chain
from wic_layers.errors import IllConditionedError, WICArgumentError, WICError, WICShapeError
from wic_layers.models import PRESETS, WIN, WINNaive
from wic_layers.models.inspection import inspect
from wic_layers.tasks import PACKING, TASKS
from wic_layers.testing import check

CLASSES = {"WIN": WIN, "WINNaive": WINNaive}


def network(name, dtype=torch.float32):
    make, shape = NETWORKS[name]
    return shaken(make()).to(dtype), torch.rand(shape, dtype=dtype)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


# millions of parameters, counted in the authors' code and fitted to the paper
PAPER = {
    "hiding-1": 2.343,
    "hiding-2": 2.799,
    "hiding-3": 3.777,
    "hiding-4": 4.299,
    "rescaling-x2": 2.344,
    "rescaling-x4": 7.343,
    "decolorization": 2.342,
    "hiding-1-naive": 2.025,
    "hiding-2-naive": 2.396,
    "hiding-3-naive": 2.782,
    "hiding-4-naive": 3.184,
    "rescaling-x2-naive": 1.670,
    "rescaling-x4-naive": 2.785,
    "decolorization-naive": 1.670,
}
SIZES = ("", "-small", "-tiny")
OURS = [name for name in PRESETS.names() if PRESETS[name].network in CLASSES]
COPYING = [f"rescaling-x4{kind}{size}" for kind in ("", "-naive") for size in SIZES]
VARIANTS = [name for name in OURS if not name.endswith(SIZES[1:])]


def build(preset, **changes):
    return CLASSES[PRESETS[preset].network].from_preset(preset, **changes)


@pytest.mark.parametrize("preset", PAPER)
def test_sizes_of_the_paper(preset):
    # the published layout has as many rows as x4's 7.343 are counted with
    assert round(parameters(build(preset, layout="published")) / 1e6, 3) == PAPER[preset]


def test_every_size_of_the_paper_is_a_preset():
    plain = {name.replace("-x4", "-x4-plain") for name in PAPER if "-x4" in name}
    packing = {f"{task.name}-naive" for task in PACKING}  # for which the paper has no network
    ours = ("hiding-1", "rescaling-x2", "decolorization")
    through_jpeg = {f"{task}-jpeg-naive" for task in ours}  # networks of the same sizes
    assert set(VARIANTS) == PAPER.keys() | plain | packing | through_jpeg
    assert set(OURS) == {variant + size for variant in VARIANTS for size in SIZES}


@pytest.mark.parametrize("variant", VARIANTS)
def test_smaller_presets_are_smaller(variant):
    full, small, tiny = (build(variant + size) for size in SIZES)
    assert parameters(tiny) < parameters(small) < parameters(full)
    costs = [sum(inspect(model).flops) for model in (tiny, small, full)]
    assert costs[0] < costs[1] < costs[2] / 2


@pytest.mark.parametrize("preset", OURS)
def test_presets_are_of_their_task_and_run_both_ways(preset):
    entry = PRESETS[preset]
    assert preset.startswith(entry.task)
    assert ("naive" in preset) == (entry.network == "WINNaive")
    model = build(preset)
    assert model.preset == preset
    assert model.config.items() >= entry.arguments.items()
    assert model.config["copies"] == (4 if preset in COPYING else 1)
    channels, results, scale = TASKS[entry.task].channels
    x = torch.rand(1, channels, 16, 24)
    with torch.no_grad():
        y = model(x)
        assert y.shape == (1, results, 16 // scale, 24 // scale)
        back = model.inverse(y)
    assert back.shape == x.shape
    assert torch.isfinite(back).all()


@pytest.mark.parametrize("name", ["rescaling", "hiding-1-naïve", "rescaling-x3", ""])
def test_unknown_presets_name_close_ones(name):
    with pytest.raises(WICArgumentError, match=r"such as .*; got '") as caught:
        WIN.from_preset(name)
    close, got = str(caught.value).split("such as ")[1].split("; got ")
    assert set(close.split(", ")) <= PRESETS.keys()
    assert got == f"{name!r} (see `wic presets`)."


def test_a_list_of_presets_has_what_comes_with_weights_or_from_a_paper():
    listed = [*PRESETS]
    assert len(listed) == len(PRESETS) < len(PRESETS.names()) == len(set(PRESETS.names()))
    assert {task.preset for task in TASKS.values()} <= set(listed)
    assert {name.removesuffix("-small").removesuffix("-tiny") for name in listed} <= set(listed)
    assert "hiding-1-small" not in listed
    small = PRESETS["hiding-1-small"]
    assert (small.task, small.network, small.has_weights) == ("hiding-1", "WIN", False)
    assert small.arguments.items() >= {"growth": 16, "modules": 2, "couplings": 1}.items()
    assert not PRESETS["rescaling-x2-small"].has_weights


def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        PRESETS["hiding-1"] = PRESETS["hiding-2"]
    WIN.from_preset("hiding-1-tiny").config["growth"] = 1
    assert PRESETS["hiding-1-tiny"].arguments["growth"] == 16


@pytest.mark.parametrize("name", NETWORKS)
def test_every_contract(name):
    model, x = network(name)
    check(model, x)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_the_completion_says_comes_back(name):
    """All before the last WIC widens or is bijective: only the dropped channels are lost."""
    model, x = network(name, torch.float64)
    blocks = list(model)
    narrowing = max(index for index, block in enumerate(blocks) if isinstance(block, WIC))
    rest, last = blocks[:narrowing], Chain(*blocks[narrowing:])
    with torch.no_grad():
        z = x
        for block in rest:
            z = block(z)
        for block in rest[::-1]:
            z = block.inverse(z)
        torch.testing.assert_close(z, x)
        y = model(x)
        z = last.inverse(y)
        for block in rest[::-1]:
            z = block.inverse(z)
        torch.testing.assert_close(model.inverse(y), z)
        assert torch.equal(model(y, rev=True), model.inverse(y))


@pytest.mark.parametrize("name", [name for name in NETWORKS if "naive" in name])
def test_naive_networks_are_idempotent(name):
    """With only square layers before the narrowing one, a second trip changes nothing."""
    model, _ = network(name, torch.float64)
    y = torch.rand_like(model(torch.rand(NETWORKS[name][1], dtype=torch.float64)))
    with torch.no_grad():
        torch.testing.assert_close(model(model.inverse(y)), y)


@pytest.mark.parametrize("name", ["rescaling x4", "rescaling x4, naive"])
def test_copies_are_averaged_and_repeated(name):
    model, x = network(name, torch.float64)
    *rest, last, _ = model
    copies = model.config["copies"]
    with torch.no_grad():
        y = model(x)
        given = Chain(*rest, last)(x)
        assert given.shape[1] == copies * y.shape[1]
        torch.testing.assert_close(y, sum(given.chunk(copies, dim=1)) / copies)
        back = model.inverse(y)
        torch.testing.assert_close(Chain(*rest, last).inverse(torch.cat([y] * copies, 1)), back)
        for same in (model, copy.deepcopy(model), model.eval()):
            assert torch.equal(same.inverse(y), back)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_reaches_every_parameter(name):
    model, x = network(name)
    with record_wic(model) as records:
        y = model(x)
    back = model.inverse(y)
    loss = y.square().sum() + (back - x).square().sum() + shift_loss(records) + det_loss(model)
    loss.backward()
    assert len(records) == 1
    for key, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict(name):
    model, x = network(name)
    other = NETWORKS[name][0]()
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    y = model(x)
    assert torch.equal(other.inverse(y), model.inverse(y))
    assert torch.equal(copy.deepcopy(model)(x), y)


def test_configuration_builds_it_again():
    for name in NETWORKS:
        model, x = network(name)
        other = type(model)(**model.config)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(x), model(x))


def test_changes_of_a_preset():
    model = WIN.from_preset("rescaling-x2-small", completion="repeat", growth=8)
    assert model.preset is None
    assert model[-1].completion.out_channels == model[-1].in_channels - 3
    assert type(model[-1].completion).__name__ == "Repeat"
    assert model.config["growth"] == 8


def test_the_same_result_is_built_from_copies_and_without():
    plain = {"scale": 4, "couplings": 1, "growth": 4, "layout": "published"}
    one, four = WINNaive(3, 3, **plain), WINNaive(3, 3, copies=4, **plain)
    assert parameters(one) == parameters(four)
    assert (one[-1].out_channels, four[-2].out_channels) == (3, 12)


def test_order_of_blocks():
    model = WIN(6, 3, modules=3, couplings=2, growth=4)
    layers = [m for m in model.modules() if isinstance(m, WIC)]
    assert [(m.in_channels, m.out_channels) for m in layers] == [
        (24, 24), (24, 32), (24, 32), (24, 32), (12, 3),
    ]  # fmt: skip
    couplings = [m.channels for m in model.modules() if isinstance(m, AffineCoupling)]
    assert couplings == [24] * 6 + [48]


def test_memory_reaches_the_tail_untouched():
    """The first channels behind each widening layer lie side by side before the tail."""
    model = WIN(2, 1, width=16, couplings=1, growth=4)
    shaken(model)
    seen = {}
    squeezed, first, wide, memory, tail = list(model)[:5]
    tail.register_forward_hook(lambda module, args, out: seen.update(tail=args[0]))
    x = torch.rand(1, 2, 6, 8)
    model(x)
    z = wide(first(squeezed(x)))
    assert torch.equal(seen["tail"][:, :4], z[:, :4])
    coupling, again, _ = list(memory.inner)
    torch.testing.assert_close(seen["tail"][:, 4:8], again(coupling(z[:, 4:]))[:, :4])


def test_a_bad_kernel_is_named():
    model, x = network("hiding")
    y = model(x).detach()
    with torch.no_grad():
        model[3].inner[1].weight.fill_(torch.inf)
    with pytest.raises(IllConditionedError, match=r"^3\.inner\.1: WIC\(12, 16\)"):
        model.inverse(y)
    with pytest.raises(IllConditionedError, match=r"^3\.inner\.1: WIC\(12, 16\)"):
        check(model)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: WIN(6, 3, scale=3), WICArgumentError, "scale 1.*2.*or 4.*got 3"),
        (lambda: WINNaive(6, 3, copies=0), WICArgumentError, "copies of at least 1; got 0"),
        (lambda: WINNaive(6, 3, copies=2), WICArgumentError, "fewer.*than 6.*got 2 x 3"),
        (lambda: WINNaive(3, 3), WICArgumentError, "fewer output channels than 3.*got 3"),
        (lambda: WIN(3, 12, scale=2), WICArgumentError, "fewer.*than 12.*got 12"),
        (lambda: WIN(6, 0), WICArgumentError, "got 0"),
        (lambda: WIN(9, 3, width=32), WICArgumentError, r"at least 36.*width=32, split=0\.75"),
        (lambda: WIN(6, 3, split=1.0), WICArgumentError, r"memory; got width=32, split=1\.0"),
        (lambda: WIN(6, 3, width=33), WICArgumentError, "divisible by 4.*give 42"),
        (lambda: WIN(6, 3, completion="noise"), WICArgumentError, "completion.*'noise'"),
        (lambda: WIN.from_preset("hiding-1-naive"), WICArgumentError, "WIN; .* of WINNaive"),
        (lambda: WINNaive.from_preset("rescaling"), WICArgumentError, "rescaling-x2.*got 'resc"),
        (lambda: WIN(6, 3)(torch.ones(1, 6, 5, 4)), WICShapeError, "^0: Squeeze.*divisible"),
        (
            lambda: WINNaive(3, 3, scale=4, couplings=1)(torch.ones(1, 3, 8, 6)),
            WICShapeError,
            r"^1: Squeeze\(2\).*got \(1, 12, 4, 3\)",
        ),
        (lambda: WIN(6, 3)(torch.ones(1, 3, 4, 4)), WICShapeError, r"^1: WIC\(24, 24\)"),
        (lambda: WIN(6, 3).inverse(torch.ones(1, 6, 4, 4)), WICShapeError, r"^6: WIC\(10, 3"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, WICError)
