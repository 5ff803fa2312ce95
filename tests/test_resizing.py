"""What another number of channels at one layer asks of the modules behind it."""

import copy

import pytest
import torch
from torch import nn

from wic_layers import WIC, WellPosed
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
