"""IRN, HiNet and IICNet: their sizes, as published and with a WIC at their end."""

import pytest
import torch
import torch.nn.functional as F
from cases import shaken

from wic_layers import WIC, det_loss, record_wic, shift_loss
from wic_layers.blocks import AffineCoupling, LearnedSqueeze
from wic_layers.errors import WICArgumentError
from wic_layers.models import (
    IRN,
    NETWORKS,
    PRESETS,
    HiNet,
    IICNet,
    WINNaive,
    from_pretrained,
    with_wic,
)
from wic_layers.tasks import TASKS
from wic_layers.testing import check

OTHERS = [name for name in PRESETS.names() if PRESETS[name].network in ("IRN", "HiNet", "IICNet")]
# millions of parameters, as published
PAPER = {
    "irn-x2-z": 1.668,
    "irn-x3-z": 3.139,
    "irn-x4-z": 4.355,
    "irn-decolorization-z": 1.414,
    "hinet-z": 4.050,
    "iicnet-hiding-1-squeeze": 3.276,
    "iicnet-hiding-2-squeeze": 4.305,
    "iicnet-hiding-3-squeeze": 5.482,
    "iicnet-hiding-4-squeeze": 6.806,
    "iicnet-clip-5-squeeze": 6.806,
    "iicnet-stereo-squeeze": 4.400,
}


def build(name):
    return NETWORKS[PRESETS[name].network].from_preset(name)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PAPER)
def test_sizes_of_the_papers(name):
    assert round(parameters(build(name)) / 1e6, 3) == PAPER[name]
    # a WIC adds its kernel: n x n numbers for n channels
    upgraded = build(name.removesuffix("-z").removesuffix("-squeeze"))
    (kernel,) = [m for m in upgraded.modules() if getattr(m, "completion", None) is not None]
    assert parameters(upgraded) == parameters(build(name)) + kernel.in_channels**2


@pytest.mark.parametrize("name", OTHERS)
def test_presets_are_of_their_task_and_run_both_ways(name):
    entry = PRESETS[name]
    model = build(name).eval()
    assert model.preset == name
    is_published = name.removesuffix("-small").endswith(("-z", "-squeeze"))
    assert is_published == bool(model.config[model.closed_by[0]])
    assert model.task == entry.task
    channels, results, scale = TASKS[entry.task].channels
    x = torch.rand(1, channels, 12, 24)
    with torch.no_grad():
        y = model(x)
        assert y.shape == (1, results, 12 // scale, 24 // scale)
        back, again = model.inverse(y), model.inverse(y)
    assert back.shape == x.shape
    assert torch.equal(back, again) != model.config.get("random_z", False)


def test_presets_of_iicnet_have_the_settings_of_its_authors():
    found = {name: PRESETS[f"iicnet-{name}"] for name in ("clip-3-x2", "clip-5-x2", "stereo")}
    assert found["clip-3-x2"].arguments.items() >= {"scale": 2, "in_channels": 9}.items()
    assert found["clip-5-x2"].arguments.items() >= {"haar": False, "order": "images"}.items()
    weights = [found[name].recipe["weights"][1] for name in found]
    assert weights == pytest.approx([0.4 / 3, 0.4 / 5, 3 / 2])
    assert found["stereo"].recipe["rounding"] == "noise"
    assert found["stereo"].recipe["crop"] == 144
    assert found["stereo"].recipe["frequency"] == pytest.approx(0.001 * 144**2, rel=0.01)
    small = PRESETS["iicnet-stereo-small"].recipe
    assert small["frequency"] == pytest.approx(0.001 * 64**2, rel=0.01)
    assert PRESETS["iicnet-stereo-squeeze"].recipe["weights"] == (1.0, 1.5, 0.0, 0.0)


@pytest.mark.parametrize("make", [IRN, HiNet])
def test_with_wic_keeps_the_picture_and_every_weight(make):
    model = shaken(make(couplings=2, growth=4, random_z=True)).eval()
    x = torch.rand(2, model.config["in_channels"], 8, 12)
    upgraded = with_wic(model)
    check(upgraded, x)
    assert upgraded.config == {**model.config, "random_z": False}
    for key, value in model.state_dict().items():
        assert torch.equal(upgraded.state_dict()[key], value)
    trained = {name for name, _ in upgraded.named_parameters()}
    assert len(trained - {name for name, _ in model.named_parameters()}) == 1
    with torch.no_grad():
        torch.testing.assert_close(upgraded(x), model(x), atol=1e-6, rtol=0)
    with torch.no_grad():  # nothing is shared
        upgraded[1].F.conv1.weight.zero_()
    assert bool(model[1].F.conv1.weight.any())


@pytest.mark.parametrize("arguments", [{}, {"in_channels": 9, "scale": 2}])
def test_with_wic_keeps_both_directions_of_iicnet(arguments):
    given = {"couplings": 2, "growth": 4, "features": 3, **arguments}
    model = shaken(IICNet(channel_squeeze=True, **given)).eval()
    upgraded, x = with_wic(model), torch.rand(2, model.config["in_channels"], 8, 12)
    assert upgraded.config == {**model.config, "channel_squeeze": False}
    trained = {name for name, _ in upgraded.named_parameters()}
    last = f"{len(model) - 1}.weight"
    assert trained - {name for name, _ in model.named_parameters()} == {last}
    with torch.no_grad():
        y = model(x)
        torch.testing.assert_close(upgraded(x), y, atol=1e-6, rtol=0)
        torch.testing.assert_close(upgraded.inverse(y), model.inverse(y), atol=1e-5, rtol=0)


def test_with_wic_names_the_preset_and_takes_a_completion():
    assert with_wic(build("irn-x2-z-small")).preset == "irn-x2-small"
    assert with_wic(build("iicnet-stereo-squeeze-small")).preset == "iicnet-stereo-small"
    assert with_wic(build("hinet-z-small"), "zero").preset == "hinet-small"
    learned = with_wic(build("irn-x2-z-small"), "learned")
    assert learned.preset is None
    assert learned.config["completion"] == "learned"
    assert det_loss(learned) < 1e-10


def test_the_loss_of_a_random_z_is_half_its_square():
    model = shaken(IRN(couplings=1, growth=4, random_z=True))
    x = torch.rand(2, 3, 8, 8)
    with record_wic(model) as records:
        model(x)
    expected = records[0].extra.square().sum() / 2 / len(x)
    torch.testing.assert_close(shift_loss(records), expected)
    assert det_loss(model) == 0


def test_a_learned_squeeze_is_one_kernel_on_every_channel():
    block = LearnedSqueeze(3)
    with torch.no_grad():
        block.wic.weight.add_(0.1 * torch.randn(9, 9))
    x = torch.rand(2, 2, 6, 9)
    kernel = block.wic.weight.detach().view(9, 1, 3, 3)
    for channel in range(2):
        bands = F.conv2d(x[:, channel : channel + 1], kernel, stride=3)
        torch.testing.assert_close(block(x)[:, channel::2], bands)
    small = LearnedSqueeze(3)(x)[:, :2]
    torch.testing.assert_close(small, F.avg_pool2d(x, 3))


def test_hinet_starts_as_its_authors_have_it():
    model = HiNet()
    couplings = [m for m in model if isinstance(m, AffineCoupling)]
    assert {m.clamp for m in couplings} == {2.0}
    assert {m.F.slope for m in couplings} == {0.01}
    for coupling in couplings:
        assert not coupling.G.conv5.weight.any()
        assert coupling.G.conv2.bias.detach().std() == pytest.approx(0.01, rel=0.5)
        assert coupling.G.conv2.weight.detach().std() == pytest.approx(0.01, rel=0.1)


def test_weights_in_and_out(tmp_path):
    model = shaken(build("irn-x3-small")).half().float().eval()
    model.save_pretrained(tmp_path / "w")
    found = from_pretrained(tmp_path / "w")
    assert (type(found), found.preset, found.config) == (IRN, "irn-x3-small", model.config)
    x = torch.rand(1, 3, 9, 12)
    with torch.no_grad():
        assert torch.equal(found(x), model(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: IRN(scale=5), r"scale 1 \(decolorization\), 2, 3 or 4; got 5"),
        (lambda: IRN(3, 3, scale=1), "fewer output channels than 3"),
        (lambda: IRN(random_z=True, completion="zero"), "no completion with random_z=True"),
        (lambda: HiNet(5, 3), "several images of 3 channels.* got 5"),
        (lambda: HiNet(3, 3), "got 3"),
        (lambda: HiNet(random_z=True, completion="shift"), "no completion"),
        (lambda: IICNet(4), "channels of RGB images; got 4"),
        (lambda: IICNet(scale=4), r"scale 1 or 2 \(half the size\); got 4"),
        (lambda: IICNet(order="x"), '"bands" or "images"; got .x'),
        (lambda: IICNet(6, 4), "several make up 6, which come in at scale 1; got 4"),
        (lambda: IICNet(3, 3), "got 3"),
        (lambda: IICNet(channel_squeeze=True, completion="zero"), "no completion with channel_s"),
        (lambda: with_wic(IICNet(couplings=1)), "channel_squeeze=True or .* got IICNet without"),
        (lambda: LearnedSqueeze(1), "factor of at least 2"),
        (lambda: with_wic(IRN(couplings=1, growth=4)), "random_z=True; got IRN without"),
        (lambda: with_wic(WINNaive(6, 3, couplings=1, growth=4)), "got WINNaive without"),
        (lambda: IRN.from_preset("hinet"), "preset of IRN; 'hinet' is one of HiNet"),
        (lambda: WIC(3, 3, parametrization="none"), '"free" or "orthogonal" or "lu" or "fixed"'),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(WICArgumentError, match=message):
        call()
