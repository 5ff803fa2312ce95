"""What another number of channels at one layer asks of the modules behind it."""

import copy
import re
from pathlib import Path

import pytest
import torch
from standins.flows import CASES
from torch import nn

from wic_layers import WIC, WellPosed, swap_1x1
from wic_layers.blocks import AffineCoupling, Chain, Haar, LongTermMemory, Squeeze, Unsqueeze
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.errors import WICArgumentError
from wic_layers.hosts import plan_resize
from wic_layers.models import IRN


def small(inputs, outputs):
    return DenseBlock(inputs, outputs, growth=4)


def coupling(channels, **arguments):
    return AffineCoupling(channels, subnet=small, **arguments)


def convs(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, outputs, 3, padding=1)
    )


def sizes_of(before, after):
    """Shapes of what two modules with the same keys have and that differ."""
    shapes = {key: tuple(value.shape) for key, value in after.state_dict().items()}
    return {
        (key, tuple(value.shape), shapes[key])
        for key, value in before.state_dict().items()
        if tuple(value.shape) != shapes[key]
    }


def planned(part):
    return {(size.name, size.before, size.after) for size in part.sizes if size.is_tensor}


OWN = {
    "coupling": coupling,
    "uneven coupling": lambda n: coupling(n, split=3),
    "square WIC": lambda n: WIC(n, n),
    "WIC that narrows": lambda n: WIC(n, 3),
    "WIC that narrows, least rows": lambda n: WIC(n, 3, rows="m"),
    "WIC that widens": lambda n: WIC(n, 24),
    "WIC that predicts": lambda n: WIC(n, 3, completion="learned"),
    "published layout": lambda n: WIC(n, 3, layout="published", completion="shift"),
    "memory": lambda n: LongTermMemory(3, coupling(n - 3)),
}


@pytest.mark.parametrize("channels", [6, 7, 18])
@pytest.mark.parametrize("build", OWN.values(), ids=OWN)
def test_sizes_are_those_of_the_constructor(build, channels):
    module = build(12)
    net = nn.Sequential(Squeeze(2), WIC(12, 12), module)
    plan = plan_resize(net, "1", torch.rand(2, 3, 8, 8), channels)
    expected = sizes_of(module, build(channels))
    (part,) = plan[1:]
    inner = part.name.removeprefix("2").removeprefix(".")
    prefix = f"{inner}." if inner else ""
    assert {(prefix + name, a, b) for name, a, b in planned(part)} == expected
    assert part.verdict == "rebuild"
    assert plan.before == ("0",)


def normflows_cases():
    nf = pytest.importorskip("normflows")
    return nf, {
        "Glow": lambda n: nf.flows.GlowBlock(n, 16),
        "Glow without LU, other half": lambda n: nf.flows.GlowBlock(
            n, 16, use_lu=False, split_mode="channel_inv"
        ),
        "Glow, checkerboard": lambda n: nf.flows.GlowBlock(n, 16, split_mode="checkerboard"),
        "additive": lambda n: nf.flows.GlowBlock(n, 16, scale=False),
        "permutation": nf.flows.Permute,
        "1x1": nf.flows.Invertible1x1Conv,
        "LU": lambda n: nf.flows.Invertible1x1Conv(n, use_lu=True),
        "ActNorm": lambda n: nf.flows.ActNorm((n, 1, 1)),
    }


@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
@pytest.mark.parametrize("channels", [6, 7, 20])
def test_sizes_are_those_of_normflows_constructors(channels):
    nf, cases = normflows_cases()
    bases = {
        "diagonal": nf.distributions.DiagGaussian,
        "per channel": nf.distributions.GlowBase,
    }
    for (name, build), base in zip(cases.items(), 4 * list(bases.values()), strict=True):
        module, q0 = build(12), base((12, 4, 4))
        model = nf.NormalizingFlow(q0, [module, nf.flows.ActNorm((12, 1, 1))])
        plan = plan_resize(model, "flows.1", torch.randn(2, 12, 4, 4), channels)
        assert plan.names("rebuild") == ["flows.0", "q0"], name
        assert planned(plan.part("flows.0")) == sizes_of(module, build(channels)), name
        assert planned(plan.part("q0")) == sizes_of(q0, base((channels, 4, 4))), name
        assert not module.state_dict().get("flows.2.data_dep_init_done", torch.zeros(())), name


@pytest.mark.parametrize("channels", [6, 7, 16])
def test_sizes_are_those_of_freias_constructors(channels):
    ff, fm = pytest.importorskip("FrEIA.framework"), pytest.importorskip("FrEIA.modules")
    arguments = {
        fm.GLOWCouplingBlock: {"subnet_constructor": convs},
        fm.RNVPCouplingBlock: {"subnet_constructor": convs},
        fm.NICECouplingBlock: {"subnet_constructor": convs},
        fm.AllInOneBlock: {"subnet_constructor": convs},
        fm.ActNorm: {},
        fm.PermuteRandom: {},
        fm.Fixed1x1Conv: None,
        fm.IRevNetDownsampling: {},
        fm.HaarDownsampling: {},
    }
    for kind, given in arguments.items():

        def built(n, kind=kind, given=given):
            own = {"M": torch.eye(n)} if given is None else given
            inn = ff.SequenceINN(n, 8, 8)
            inn.append(fm.ActNorm)
            inn.append(kind, **own)
            return inn

        inn = built(12)
        plan = plan_resize(inn, "module_list.0", torch.randn(2, 12, 8, 8), channels)
        part = plan.part("module_list.1")
        expected = sizes_of(inn.module_list[1], built(channels).module_list[1])
        halves = {(name, after[1:]) for name, _, after in expected}
        if channels % 2:  # which half is the larger one is the constructor's choice
            assert {(name, after[1:]) for name, _, after in planned(part)} >= set() or halves
            assert {name for name, _, _ in planned(part)} >= {name for name, _, _ in expected}
        else:
            assert planned(part) == expected, kind
        dims = {size.name: size.after for size in part.sizes if not size.is_tensor}
        assert list(dims["dims_in"]) in ([(channels, 8, 8)], [channels, 8, 8]), kind


def test_what_has_no_sizes_is_kept_and_what_narrows_ends_the_change():
    class Turned(nn.Module):
        def forward(self, x):
            return x.flip(1)

    layers = [Squeeze(2), WIC(12, 12), nn.LeakyReLU(), Turned(), Unsqueeze(2), Haar()]
    net = nn.Sequential(*layers, coupling(12), WIC(12, 3), nn.Tanh(), nn.Conv2d(3, 5, 1))
    plan = plan_resize(net, "1", torch.rand(1, 3, 8, 8), 8)
    assert plan.before == ("0",)
    assert plan.names("replace") == ["1"]
    assert plan.names("keep") == ["2", "3", "4", "5"]
    assert plan.names("rebuild") == ["6", "7"]
    assert plan.names("untouched") == ["8", "9"]
    assert plan.part("4").gives == ((3,), (2,))
    assert plan.part("7").takes == ((12,), (8,))
    assert plan.part("7").gives == ((3,), (3,))
    assert all(part.module is net.get_submodule(part.name) for part in plan)
    assert plan.shapes == (((1, 5, 4, 4),), ((1, 5, 4, 4),))


def test_convolutions_follow_too():
    net = nn.Sequential(
        WIC(12, 12), nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12),
        nn.Conv2d(12, 12, 1), nn.ConvTranspose2d(12, 20, 2), nn.GroupNorm(2, 20),
    )  # fmt: skip
    plan = plan_resize(net, "0", torch.rand(2, 12, 6, 6), 8)
    assert planned(plan.part("1")) == {
        ("weight", (12, 1, 3, 3), (8, 1, 3, 3)),
        ("bias", (12,), (8,)),
    }
    assert {size[0] for size in planned(plan.part("2"))} == {
        "weight", "bias", "running_mean", "running_var",
    }  # fmt: skip
    assert ("weight", (12, 12, 1, 1), (8, 8, 1, 1)) in planned(plan.part("3"))
    assert planned(plan.part("4")) == {("weight", (12, 20, 2, 2), (8, 20, 2, 2))}
    assert plan.part("5").verdict == "untouched"


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", ["weight_norm", "parametrizations.weight_norm"])
def test_normalised_weights_follow(norm):
    normalised = nn.utils.parametrizations.weight_norm
    if norm == "weight_norm":
        normalised = nn.utils.weight_norm

    def subnet(inputs, outputs):
        first, last = nn.Conv2d(inputs, 9, 1), nn.Conv2d(9, outputs, 1)
        return nn.Sequential(normalised(first), nn.ReLU(), normalised(last))

    net = nn.Sequential(WIC(12, 12), AffineCoupling(12, subnet=subnet))
    plan = plan_resize(net, "0", torch.rand(2, 12, 6, 6), 8)
    assert planned(plan.part("1")) == sizes_of(net[1], AffineCoupling(8, subnet=subnet))


def test_a_network_in_the_style_of_irn():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            blocks = IRN(3, 3, scale=2, couplings=3, growth=4, random_z=True)
            self.operations = nn.ModuleList(list(blocks)[:-1])

        def forward(self, x, rev=False):
            for operation in reversed(self.operations) if rev else self.operations:
                x = operation(x, rev)
            return x

    net = WellPosed(Network(), 12, 3)
    plan = plan_resize(net, "net.operations.1", torch.rand(1, 3, 8, 8), 9)
    assert plan.names("rebuild") == ["net.operations.2", "net.operations.3", "wic"]
    sizes = {size.name: size.after for size in plan.part("net.operations.2").sizes}
    assert sizes["sizes"] == (3, 6)  # the picture stays in the first three
    assert sizes["F.conv1.weight"] == (4, 6, 3, 3)
    assert plan.shapes[0] == plan.shapes[1]
    back = plan_resize(
        net, "net.operations.3", torch.rand(1, 3, 4, 4), 9, run=lambda net, y: net(y, rev=True)
    )
    assert [part.name for part in back] == [f"net.operations.{i}" for i in (3, 2, 1, 0)]
    assert back.before == ("wic",)
    # the squeeze cannot make images of 9 channels
    assert back.part("net.operations.0").verdict == "unclear"


@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
def test_swapped_layers_follow_as_their_owners_do():
    nf = pytest.importorskip("normflows")
    block = nf.flows.GlowBlock(12, 8)
    model = nf.NormalizingFlow(
        nf.distributions.DiagGaussian((12, 4, 4)), [block, nf.flows.ActNorm((12, 1, 1))]
    )
    expected = sizes_of(block, nf.flows.GlowBlock(6, 8))
    swap_1x1(model)
    plan = plan_resize(model, "flows.1", torch.randn(2, 12, 4, 4), 6)
    assert planned(plan.part("flows.0")) == expected


@pytest.mark.parametrize("side", [6, 12])
def test_sides_of_images_are_no_channels(side):
    nf = pytest.importorskip("normflows")
    sides = (side, side)
    model = nf.NormalizingFlow(
        nf.distributions.DiagGaussian((12, *sides)), [nf.flows.ActNorm((12, 1, 1))]
    )
    part = plan_resize(model, "flows.0", torch.randn(2, 12, *sides), 8).part("q0")
    assert planned(part) == {
        (name, (1, 12, *sides), (1, 8, *sides)) for name in ("loc", "log_scale")
    }
    assert [size.after for size in part.sizes if size.name == "shape"] == [(8, *sides)]


def test_what_would_drop_channels_is_unclear():
    class First(nn.Module):
        def forward(self, x):
            return x[:, :12]

    layers = [WIC(12, 12), First(), nn.ReLU()]
    plan = plan_resize(layers, "0", torch.rand(1, 12, 4, 4), 20)
    assert plan.names("unclear") == ["1"]
    assert plan.part("1").gives == ((12,), (20,))  # what it would have to give
    assert plan.names("keep") == ["2"]
    assert plan_resize(layers, "0", torch.rand(1, 12, 4, 4), 8).names("keep") == ["1", "2"]


def test_one_entry_may_be_for_all_channels():
    layers = [WIC(1, 1), nn.PReLU(), WIC(1, 1)]
    plan = plan_resize(layers, "0", torch.rand(1, 1, 4, 4), 5)
    assert plan.part("1").verdict == "keep"
    assert "which may mean its channels" in plan.part("1").note
    assert planned(plan.part("2")) == {("weight", (1, 1), (5, 5))}
    part = plan_resize([WIC(6, 6), nn.PReLU(6)], "0", torch.rand(1, 6, 4, 4), 5).part("1")
    assert planned(part) == {("weight", (6,), (5,))}


def test_chance_is_said_and_not_acted_on():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = 12

        def forward(self, x):
            for _ in range(self.steps):
                x = x + 1
            return x

    plan = plan_resize(nn.Sequential(WIC(12, 12), Steps()), "0", torch.rand(1, 12, 4, 4), 6)
    (part,) = plan[1:]
    assert part.verdict == "keep"
    assert "steps = 12, which may mean its channels" in str(part)


def test_a_permutation_that_knows_its_channels_is_rebuilt():
    nf = pytest.importorskip("normflows")
    # it would run, and permute nothing
    model = nf.NormalizingFlow(
        nf.distributions.DiagGaussian((12, 4, 4)),
        [nf.flows.Permute(12, mode="swap"), nf.flows.ActNorm((12, 1, 1))],
    )
    part = plan_resize(model, "flows.1", torch.randn(2, 12, 4, 4), 6).part("flows.0")
    assert part.verdict == "rebuild"
    assert "it has no weights that change" in str(part)
    assert "num_channels 12 -> 6" in str(part)


def test_code_of_the_model_that_joins_says_where_it_stops():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = WIC(12, 12), nn.Conv2d(12, 12, 1), WIC(12, 3)

        def forward(self, x):
            return self.last(x + self.second(self.first(x)))

    plan = plan_resize(Skip(), "first", torch.rand(1, 12, 4, 4), 6)
    assert plan.part("second").verdict == "rebuild"
    assert plan.part("last").verdict == "unclear"
    assert "Behind second the model's own code does not run with the new channels" in plan.stop
    assert plan.stop in str(plan)
    assert plan.shapes[1] is None


def test_a_shared_module_says_that_it_needs_a_copy():
    shared, act = coupling(12), nn.ReLU()
    plan = plan_resize([shared, act, WIC(12, 12), act, shared], "2", torch.rand(1, 12, 4, 4), 6)
    assert "it also runs before the layer" in plan.part("0").note
    assert not plan.part("1").note
    net = nn.Sequential(WIC(12, 12), act, shared, WIC(12, 3), nn.ReLU())
    assert not any(
        "copy" in part.note for part in plan_resize(net, "0", torch.rand(1, 12, 4, 4), 6)
    )


def test_a_layer_in_two_places_goes_by_either_name():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = WIC(12, 12)
            self.steps = nn.Sequential(nn.ReLU(), self.mix)

        def forward(self, x):
            return self.steps(x)

    plans = [plan_resize(Twice(), name, torch.rand(1, 12, 4, 4), 6) for name in ("mix", "steps.1")]
    assert [plan[0].name for plan in plans] == ["mix", "mix"]
    assert [plan.before for plan in plans] == [("steps.0",), ("steps.0",)]


def test_multiscale_models_are_followed_into_every_scale():
    nf = pytest.importorskip("normflows")
    from wic_layers.normflows import WIC as Flow

    flows = [
        [nf.flows.ActNorm((24, 1, 1)), nf.flows.Squeeze()],
        [nf.flows.ActNorm((12, 1, 1)), Flow(in_channels=12, out_channels=12), nf.flows.Squeeze()],
    ]
    bases = [nf.distributions.DiagGaussian(shape) for shape in ((24, 2, 2), (6, 4, 4))]
    model = nf.MultiscaleFlow(bases, flows, [nf.flows.Merge()], class_cond=False)
    plan = plan_resize(model, "flows.1.1", torch.randn(2, 3, 8, 8), 8)
    assert [part.name for part in plan] == [
        "flows.1.1", "flows.1.0", "merges.0", "q0.1", "flows.0.1", "flows.0.0", "q0.0",
    ]  # fmt: skip
    assert plan.part("merges.0").gives == ((6, 6), (4, 4))
    assert plan.names("keep") == ["merges.0", "flows.0.1"]
    assert plan.names("rebuild") == ["flows.1.0", "q0.1", "flows.0.0", "q0.0"]
    assert ("loc", (1, 6, 4, 4), (1, 4, 4, 4)) in planned(plan.part("q0.1"))
    assert ("loc", (1, 24, 2, 2), (1, 16, 2, 2)) in planned(plan.part("q0.0"))


@pytest.fixture
def graph():
    ff, fm = pytest.importorskip("FrEIA.framework"), pytest.importorskip("FrEIA.modules")
    from wic_layers.freia import WIC as Node

    image, condition = ff.InputNode(12, 8, 8), ff.ConditionNode(4, 8, 8)
    mixed = ff.Node(image, fm.Fixed1x1Conv, {"M": torch.eye(12)}, name="mix")
    coupled = ff.Node(
        mixed, fm.GLOWCouplingBlock, {"subnet_constructor": convs}, conditions=condition
    )
    split = ff.Node(coupled, fm.Split, {})
    scaled = ff.Node(split.out0, fm.ActNorm, {}, name="scale")
    joined = ff.Node([scaled.out0, split.out1], fm.Concat, {})
    narrow = ff.Node(joined, Node, {"out_channels": 3})
    nodes = [image, condition, mixed, coupled, split, scaled, joined, narrow]
    return ff.GraphINN([*nodes, ff.OutputNode(narrow)])


def conditioned(graph, x):
    return graph(x, c=[torch.zeros(len(x), 4, 8, 8)])


def test_graphs_with_conditions_and_branches(graph):
    plan = plan_resize(graph, "mix", torch.randn(2, 12, 8, 8), 6, run=conditioned)
    assert plan[0].name == "module_list.0"
    assert plan.names("rebuild") == [f"module_list.{index}" for index in range(1, 6)]
    coupled = planned(plan.part("module_list.1"))
    assert ("subnet1.0.weight", (16, 10, 3, 3), (16, 7, 3, 3)) in coupled  # with the condition
    assert plan.part("module_list.2").gives == ((6, 6), (3, 3))
    assert plan.shapes[0] == plan.shapes[1]


def test_one_branch_of_a_graph(graph):
    plan = plan_resize(graph, "scale", torch.randn(2, 12, 8, 8), 3, run=conditioned)
    joined = plan.part("module_list.4")
    assert (joined.takes, joined.gives) == (((6, 6), (3, 6)), ((12,), (9,)))
    sizes = {size.name: size.after for size in joined.sizes}
    assert sizes["dims_in"] == [(3, 8, 8), (6, 8, 8)]
    assert list(sizes["split_size_or_sections"]) == [3, 6]
    assert planned(plan.part("module_list.5")) == {("conv.weight", (12, 12), (9, 9))}
    assert plan.before == tuple(f"module_list.{index}" for index in range(3))


@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
def test_nothing_of_the_model_changes():
    nf = pytest.importorskip("normflows")
    model = nf.NormalizingFlow(
        nf.distributions.DiagGaussian((12, 4, 4)),
        [nf.flows.GlowBlock(12, 8), nf.flows.GlowBlock(12, 8)],
    ).train()
    calls = []
    model.flows[0].flows[0].register_forward_hook(lambda *call: calls.append(call))
    before, objects = copy.deepcopy(model.state_dict()), dict(model.named_parameters())
    places = {name: set(vars(module)) for name, module in model.named_modules()}
    state = torch.get_rng_state()
    plan_resize(model, "flows.1", torch.randn(2, 12, 4, 4), 6)
    torch.set_rng_state(state)  # of the images above
    noise = torch.randn(2, 12, 4, 4)
    torch.set_rng_state(state)
    plan_resize(model, "flows.1", noise, 6)
    assert torch.equal(torch.get_rng_state(), state)
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(objects[name] is value for name, value in model.named_parameters())
    assert {name: set(vars(module)) for name, module in model.named_modules()} == places
    assert all(module.training for module in model.modules())
    assert not calls


def test_it_prints_in_words():
    net = nn.Sequential(Squeeze(2), WIC(12, 12), WIC(12, 3), nn.Tanh())
    assert str(plan_resize(net, "1", torch.rand(1, 3, 8, 8), 6)).splitlines() == [
        "1 (WIC) gives 6 channels in place of 12. Put WIC(12, 6) in its place.",
        "Behind it run:",
        "  2: WIC, 12 -> 3, then 6 -> 3: rebuild",
        "    weight (12, 12) -> (6, 6)",
        "    in_channels 12 -> 6",
        "  3: Tanh, 3 -> 3: untouched",
        "The model gives (1, 3, 4, 4), as today.",
        "Before it 1 module stays as it is.",
    ]
    plan = plan_resize(net, "0", torch.rand(1, 3, 8, 8), 6)
    assert "It changes more than channels: put WIC(12, 6) behind it." in str(plan)
    last = plan_resize(net[:2], "1", torch.rand(1, 3, 8, 8), 6)
    assert "Nothing runs behind it." in str(last)
    assert "The model gives (1, 6, 4, 4) in place of (1, 12, 4, 4)." in str(last)


@pytest.mark.parametrize(
    ("name", "x", "channels", "message"),
    [
        ("4", torch.rand(1, 3, 8, 8), 6, "got '4'. There are 0, 1, 2, 2.conv, 3."),
        ("1", torch.rand(1, 3, 7, 7), 6, "runs on x; Sequential raised WICShapeError"),
        ("1", torch.rand(1, 3, 8, 8), 0, "int of at least 1; got 0"),
        ("1", torch.rand(1, 3, 8, 8), 2.0, "int of at least 1; got 2.0"),
        ("1", torch.rand(1, 3, 8, 8), True, "int of at least 1; got True"),
        ("2.conv", torch.rand(1, 3, 8, 8), 6, "'2.conv' did not run as the model ran"),
        ("3", torch.rand(1, 3, 8, 8), 6, "'3' gave no such tensor as the model ran"),
    ],
)
def test_errors_say_what_to_do(name, x, channels, message):
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)

        def forward(self, x):
            return x

    class Sum(nn.Module):
        def forward(self, x):
            return x.sum((1, 2, 3))

    net = nn.Sequential(Squeeze(2), WIC(12, 12), Unused(), Sum())
    with pytest.raises(WICArgumentError) as error:
        plan_resize(net, name, x, channels)
    assert message in str(error.value)


def test_other_errors():
    net = Chain(Squeeze(2), WIC(12, 12))
    plan = plan_resize(net, "1", torch.rand(1, 3, 8, 8), 6)
    with pytest.raises(WICArgumentError, match=r"got '0'\. There are 1\."):
        plan.part("0")
    with pytest.raises(WICArgumentError, match=r"got ''\. There are 0, 1"):
        plan_resize(net, "", torch.rand(1, 3, 8, 8), 6)
    with pytest.raises(WICArgumentError, match="a model or a list of layers; got str"):
        plan_resize("net", "1", torch.rand(1, 3, 8, 8), 6)
    net.state = (x for x in ())
    with pytest.raises(WICArgumentError, match="a model that can be copied; Chain"):
        plan_resize(net, "1", torch.rand(1, 3, 8, 8), 6)


def test_differences_name_what_is_not_as_planned():
    net = nn.Sequential(Squeeze(2), WIC(12, 12), nn.ReLU(), coupling(12), WIC(12, 3), nn.Tanh())
    plan = plan_resize(net, "1", torch.rand(1, 3, 8, 8), 6)
    new = nn.Sequential(net[0], WIC(12, 6), net[2], coupling(6), WIC(6, 3), net[5])
    assert plan.differences(new) == []
    assert plan.differences(list(new)) == []
    new[2], new[4], new[5] = nn.ReLU(), WIC(7, 3), nn.Tanh()
    assert plan.differences(new) == [
        "2 is another module, and could be kept",
        "4.weight is of shape (7, 7); planned (6, 6)",
        "5 is another module, and could be kept",
    ]
    new[4] = nn.Identity()
    assert "4.weight is missing; planned (6, 6)" in plan.differences(new)
    assert "5 is missing" in plan.differences(new[:5])


def test_transfer_moves_what_stays():
    net = nn.Sequential(Squeeze(2), WIC(12, 12), nn.ReLU(), coupling(12), WIC(12, 3), nn.Tanh())
    plan = plan_resize(net, "1", torch.rand(1, 3, 8, 8), 6)
    parts = (WIC(12, 6), nn.ReLU(), coupling(6), WIC(6, 3), nn.Tanh())
    new = nn.Sequential(Squeeze(2), *parts)
    with pytest.raises(WICArgumentError, match="Sequential has no 5"):
        plan.transfer(new[:5])
    assert new[0] is not net[0]
    assert sorted(plan.transfer(new)) == ["0", "2", "5"]
    assert [new[i] is net[i] for i in range(6)] == [True, False, True, False, False, True]
    assert (new[1], new[3]) == (parts[0], parts[2])
    assert plan.differences(new) == []


def test_transfer_into_the_nodes_of_a_graph(graph):
    plan = plan_resize(graph, "scale", torch.randn(2, 12, 8, 8), 3, run=conditioned)
    new = copy.deepcopy(graph)
    plan.transfer(new)
    nodes = {node.name: node.module for node in new.node_list}
    assert nodes["mix"] is graph.module_list[0] is new.module_list[0]
    assert nodes["scale"] is not graph.module_list[3]


def test_a_shared_module_is_not_transferred_where_it_changes():
    shared = coupling(12)
    plan = plan_resize([shared, WIC(12, 12), shared], "1", torch.rand(1, 12, 4, 4), 6)
    assert plan.transfer(nn.ModuleList([coupling(12), WIC(12, 6), coupling(6)])) == []


README = Path(__file__).parents[1] / "integrations/flows/RESIZING.md"


@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
def test_the_recipes_run(capsys):
    pytest.importorskip("FrEIA")
    pytest.importorskip("normflows")
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 6
    for number, block in enumerate(blocks):
        torch.manual_seed(number)
        exec(compile(block, f"RESIZING.md, Python block {number + 1}", "exec"), {})
    (printed,) = re.findall(r"```text\n(.*?)```", text, flags=re.DOTALL)
    assert capsys.readouterr().out == printed


PACKED = {"LULinear", "OneByOneConvolution", "QRLinear"}  # sizes that no tensor shows
GROUPED = {"InvConvNear", "CoquiConvNear"}  # four channels at a time
BESIDE = {"log_abs_det_jacobian", "lambda", "Transform"}  # not called as modules


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("case", [case for case in CASES if case.layers], ids=str)
def test_the_ways_of_public_flows(case):
    model, x = case.build(), case.x()
    with torch.no_grad():
        case.forward(model, x)

    def planned_for(channels):
        return plan_resize(model, case.layers[0], x, channels, run=case.forward)

    if any(word in case.name for word in BESIDE) and not isinstance(model, nn.Sequential):
        with pytest.raises(WICArgumentError, match="Say with run how it is called"):
            planned_for(2)
        return
    plan = planned_for(2)
    unclear = {type(plan.part(name).module).__name__ for name in plan.names("unclear")}
    if plan.stop:  # WaveGlow's couplings are written out in the model itself
        assert "WN" in plan.stop
        return
    assert unclear <= PACKED | GROUPED
    assert all(part.takes[1][0] == 2 for part in plan[1:] if part.verdict == "rebuild")
