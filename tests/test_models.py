"""WIN and WIN-Naive: their sizes, that they run both ways, and what their constructors refuse."""

import copy

import pytest
import torch
from cases import NETWORKS, shaken

from wic_layers import WIC, det_loss, record_wic, shift_loss
from wic_layers.blocks import AffineCoupling
from wic_layers.errors import IllConditionedError, WICArgumentError, WICError, WICShapeError
from wic_layers.models import PRESETS, WIN, WINNaive
from wic_layers.testing import check

CLASSES = {"WIN": WIN, "WINNaive": WINNaive}


def network(name, dtype=torch.float32):
    make, shape = NETWORKS[name]
    return shaken(make()).to(dtype), torch.rand(shape, dtype=dtype)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("preset", "paper"),
    [
        ("hiding-1", 2_342_704),
        ("hiding-1-naive", 2.025e6),
        ("rescaling-x2", 2.344e6),
        ("rescaling-x2-naive", 1.670e6),
    ],
)
def test_sizes_of_the_paper(preset, paper):
    with torch.device("meta"):
        model = CLASSES[PRESETS[preset].network].from_preset(preset)
    found = parameters(model)
    assert found == paper if isinstance(paper, int) else round(found / 1e6, 3) == paper / 1e6


@pytest.mark.parametrize(
    ("arguments", "millions"),
    [
        ({"in_channels": 9, "width": 48}, 2.799),
        ({"in_channels": 12, "width": 80}, 3.777),
        ({"in_channels": 3, "out_channels": 1, "width": 32}, 2.342),
    ],
)
def test_other_sizes_of_the_paper(arguments, millions):
    with torch.device("meta"):
        model = WIN(**{"out_channels": 3, **arguments})
    assert round(parameters(model) / 1e6, 3) == millions


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.endswith("-small")])
def test_small_presets_are_small(preset):
    model = CLASSES[PRESETS[preset].network].from_preset(preset)
    assert parameters(model) <= 400_000


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_run_both_ways(preset):
    entry = PRESETS[preset]
    model = CLASSES[entry.network].from_preset(preset)
    assert model.preset == preset
    channels, scale = entry.arguments["in_channels"], entry.arguments["scale"]
    x = torch.rand(1, channels, 8, 12)
    with torch.no_grad():
        y = model(x)
        assert y.shape == (1, 3, 8 // scale, 12 // scale)
        assert model.inverse(y).shape == x.shape


@pytest.mark.parametrize("name", NETWORKS)
def test_every_contract(name):
    model, x = network(name)
    check(model, x)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_the_completion_says_comes_back(name):
    """All but the last layer widen or are bijective: only the dropped channels are lost."""
    model, x = network(name, torch.float64)
    *rest, last = model
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


@pytest.mark.parametrize("name", ["hiding, naive", "rescaling, naive"])
def test_naive_networks_are_idempotent(name):
    """With only square layers before the narrowing one, a second trip changes nothing."""
    model, _ = network(name, torch.float64)
    y = torch.rand_like(model(torch.rand(NETWORKS[name][1], dtype=torch.float64)))
    with torch.no_grad():
        torch.testing.assert_close(model(model.inverse(y)), y)


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
        (lambda: WIN(6, 3, scale=3), WICArgumentError, "scale 1.*or 2.*got 3"),
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
        (lambda: WIN(6, 3)(torch.ones(1, 3, 4, 4)), WICShapeError, r"^1: WIC\(24, 24\)"),
        (lambda: WIN(6, 3).inverse(torch.ones(1, 6, 4, 4)), WICShapeError, r"^6: WIC\(10, 3"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, WICError)
