"""Checkpoints through loading functions like the authors', and every row of the table of them."""

import copy
import re
from functools import partial

import authors
import checkpoint_rows
import pytest
import torch
from cases import shaken

from wic_layers import tasks
from wic_layers.blocks import AffineCoupling, Chain, ChannelMean, Latent, save_memory
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.deploy import fuse
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.evaluation.protocol import evaluate
from wic_layers.models import (
    DLVIRN,
    IRN,
    DLVHiNet,
    DualLatent,
    HCFlow,
    HiNet,
    IICNet,
    Network,
    WINNaive,
    load_official,
    save_official,
    with_wic,
)
from wic_layers.models.base import affine_couplings
from wic_layers.models.official import _FORMATS
from wic_layers.tasks import TASKS
from wic_layers.training.objective import Objective

IICNETS = {"couplings": 2, "growth": 4, "features": 2, "channel_squeeze": True}
FLOWS = {"steps": 3, "growth": 4, "conditional_steps": 2, "width": 8, "z": "drawn"}
# ours, their network as its code names it, their loading function
PUBLISHED = {
    "IRN x2": (
        lambda: IRN(couplings=2, growth=4, random_z=True),
        lambda: authors.irn([2], 4),
        authors.load_network,
    ),
    "IRN x4": (
        lambda: IRN(scale=4, couplings=1, growth=4, random_z=True),
        lambda: authors.irn([1, 1], 4),
        authors.load_network,
    ),
    "HiNet": (
        lambda: HiNet(couplings=3, growth=4, random_z=True),
        lambda: authors.HiNetModel(3, 4),
        authors.load_hinet,
    ),
    "IICNet": (
        lambda: IICNet(9, 3, **IICNETS),
        lambda: authors.iicnet(3, 2, 4, 2, scale=1),
        authors.load_network,
    ),
    "IICNet x2": (
        lambda: IICNet(9, 3, scale=2, **IICNETS),
        lambda: authors.iicnet(3, 2, 4, 2, scale=2),
        authors.load_network,
    ),
    "HCFlow": (
        lambda: HCFlow(depth=3, **FLOWS),
        lambda: authors.hcflow(3, 4, 2, 8, trunks=(2, 1)),
        authors.load_network,
    ),
    "HCFlow at a heat of 0": (
        lambda: HCFlow(depth=3, **{**FLOWS, "z": "zero"}),
        lambda: authors.hcflow(3, 4, 2, 8, trunks=(2, 1)),
        authors.load_network,
    ),
    "WIN-Naive": (
        lambda: WINNaive(6, 3, couplings=2, growth=4, layout="published"),
        lambda: authors.win_naive(6, 2, 4),
        authors.load_win,
    ),
}
CLOSED = {
    "IRN x2": lambda: authors.closed(authors.irn([2], 4), 12, 3),
    "IRN x4": lambda: authors.closed(authors.irn([1, 1], 4), 48, 3),
    "HiNet": lambda: authors.closed(authors.HiNetModel(3, 4), 24, 12),
    "IICNet": lambda: authors.closed_iicnet(authors.iicnet(3, 2, 4, 2, scale=1), 9),
    "IICNet x2": lambda: authors.closed_iicnet(authors.iicnet(3, 2, 4, 2, scale=2), 36),
}


def moved(module):
    """With other numbers in every tensor that is trained."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return module


def assert_same(one, other):
    assert one.config == other.config
    assert one.state_dict().keys() == other.state_dict().keys()
    for key, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def assert_same_tensors(one, other):
    for key, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


@pytest.mark.parametrize("name", PUBLISHED)
def test_their_code_takes_what_is_written(name, tmp_path):
    ours, theirs, load = PUBLISHED[name]
    model, path = moved(ours()), tmp_path / "theirs.pth"
    model.colours = "BGR" if "IICNet" in name else "RGB"
    save_official(model, path)
    net = theirs()
    load(path, net)
    numbers = sorted(float(p.detach().sum()) for p in net.parameters() if p.requires_grad)
    assert numbers == sorted(float(p.detach().sum()) for p in model.parameters())
    # and what their code writes of it is the same network here
    torch.save({f"module.{key}": value for key, value in net.state_dict().items()}, path)
    loaded = load_official(path)
    assert loaded.config | {"z": None} == model.config | {"z": None}
    assert_same_tensors(model, loaded)


@pytest.mark.parametrize("name", CLOSED)
def test_what_was_closed_in_their_code_comes_back_and_goes_there_again(name, tmp_path):
    ours, _, load = PUBLISHED[name]
    net, path = moved(CLOSED[name]()), tmp_path / "theirs.pth"
    written = {f"module.{key}": value for key, value in net.state_dict().items()}
    torch.save({"opt": {}, "net": written} if name == "HiNet" else written, path)
    model = load_official(path)
    assert model.config == with_wic(ours()).config
    kernel = net.wic.weight if hasattr(net, "wic") else net.get_parameter("3.weight")
    assert any(
        parameter.shape == kernel.shape and torch.equal(parameter, kernel)
        for parameter in model.parameters()
    )
    again = CLOSED[name]()
    save_official(model, path)
    load(path, again)
    assert_same_tensors(net, again)
    assert_same(model, load_official(path))


@pytest.mark.parametrize("depths", [[2], [1, 1]])
def test_a_latent_in_irns_own_code(depths, tmp_path):
    """Two channels of w: the lines of ``integrations/dlv``."""
    channels = 5 * 4 ** len(depths)

    def lines():
        inner = authors.closed(authors.irn(depths, 4, 5, 3), channels, 3)
        return DualLatent(Latent(2), inner)

    net, path = moved(lines()), tmp_path / "dlv.pth"
    torch.save({f"module.{key}": value for key, value in net.state_dict().items()}, path)
    model = load_official(path)
    assert model.config == DLVIRN(scale=2 * len(depths), couplings=depths[0], growth=4).config
    assert torch.equal(model[-1].weight, net[1].wic.weight)
    again = lines()
    save_official(model, path)
    authors.load_network(path, again)
    assert_same_tensors(net, again)
    with pytest.raises(WICArgumentError, match=r"DLVIRN with a WIC .*; got one with z='zero'"):
        save_official(DLVIRN(couplings=1, growth=4, z="zero"), path)


@pytest.mark.parametrize("kind", checkpoint_rows.NETWORKS)
@pytest.mark.parametrize("row", checkpoint_rows.ROWS)
def test_every_row(row, kind, tmp_path):
    expected = {
        "nested, of another network": r"encoder\.weight, encoder\.bias in \['state_dict'\] \(2 te",
        "no tensors": "holds no tensors, but epoch",
        "NaN": r"NaN, or infinite in float32, in 1 of \d+ tensors \(.*checkpoint from before",
        "inf": r"NaN, or infinite in float32, in 1 of \d+ tensors",
        "float64, too large": r"NaN, or infinite in float32, in 1 of \d+ tensors",
        "a name missing": r"1 names are missing \(.*conv3\.bias\)",
        "another width": r"has other shapes than its network, .*conv2\.weight has .* \(2, .*, not",
        "truncated": "is damaged, no checkpoint of torch",
    }
    if kind == "HCFlow":  # has a second conv2.weight, whose channels decide nothing else
        expected["another width"] = r"has other shapes than its network, .*conv2\.weight has the"
    if row == "trained after the change" and kind in ("HCFlow", "WIN-Naive"):
        with pytest.raises(WICArgumentError):
            checkpoint_rows.write(kind, row, tmp_path)
        return
    model, path = checkpoint_rows.write(kind, row, tmp_path)
    if row in expected:
        with pytest.raises(WICFileError, match=expected[row]):
            load_official(path)
        return
    loaded = load_official(path)
    assert loaded.colours == model.colours
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    # eleven bits of the weights in half precision, eight in bfloat16
    most = {"half": 2e-2, "bfloat16": 2e-1}.get(row, 0.0)
    assert checkpoint_rows.largest_difference(model, loaded) <= most


def test_the_table_says_what_comes_of_each(tmp_path):
    assert checkpoint_rows.result("IRN", "float64", tmp_path) == "the network, off by at most 0"
    said = checkpoint_rows.result("IRN", "NaN", tmp_path)
    assert said.startswith("WICFileError: IRN.pth holds weights that are NaN")


def test_the_completion_of_a_closed_network(tmp_path):
    net = moved(authors.closed(authors.irn([1], 4), 12, 3))
    assert load_official(net.state_dict()).config["completion"] is None
    assert load_official(net.state_dict(), completion="shift").config["completion"] == "shift"
    learned = moved(with_wic(IRN(couplings=1, growth=4, random_z=True), "learned"))
    save_official(learned, tmp_path / "theirs.pth")
    loaded = load_official(tmp_path / "theirs.pth")
    assert_same(learned, loaded)
    with pytest.raises(WICFileError, match="the completion in it is \"learned\", not 'zero'"):
        load_official(tmp_path / "theirs.pth", completion="zero")
    with pytest.raises(WICArgumentError, match=r"no completion, as .* has no WIC; got 'zero'"):
        load_official(authors.irn([1], 4).state_dict(), completion="zero")


def test_a_kernel_of_another_number_of_channels():
    state = authors.closed(authors.irn([1], 4), 12, 3).state_dict()
    with pytest.raises(
        WICFileError, match=r"wic\.weight has the shape \(11, 11\), not \(12, 12\)"
    ):
        load_official({**state, "wic.weight": torch.eye(11)})


def test_one_network_at_a_time():
    state = authors.irn([1], 4).state_dict()
    both = {**state, **{f"net.{key}": value for key, value in state.items()}}
    with pytest.raises(WICFileError, match=rf"holds {len(state)} tensors twice"):
        load_official(both)


def test_hinets_optimizer_starts_as_its_training_does(tmp_path):
    save_official(HiNet(couplings=1, growth=4, random_z=True), tmp_path / "h.pth")
    net = authors.HiNetModel(1, 4)
    optim, scheduler = authors.load_hinet(tmp_path / "h.pth", net)
    (group,) = optim.param_groups
    assert group["lr"] == pytest.approx(10**-4.5)
    sum(parameter.sum() for parameter in net.parameters()).backward()
    optim.step()
    scheduler.step()
    assert len(optim.state) == len(list(net.parameters()))
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.5, 0.999), 1e-6, 1e-5)


def test_iicnet_without_its_1x1_convolution():
    state = authors.iicnet(3, 1, 4, 2, scale=2).state_dict()
    del state["1.operations.1.weight"]
    with pytest.raises(WICFileError, match=r"without a 1x1 .*\(use_conv1x1: false\), .* not know"):
        load_official(state)
    del state["1.operations.0.haar_weights"]  # which a shuffle of pixels does not have
    with pytest.raises(WICFileError, match=r"without a 1x1 .*\(use_conv1x1: false\), .* not know"):
        load_official(state)


HCFLOWS = {
    "super-resolution": (
        lambda state: {**state, "flow.level0_condFlow.f.weight": torch.ones(12, 16, 3, 3)},
        "it is one for super-resolution",
    ),
    "checkerboard": (
        lambda state: {key: value for key, value in state.items() if "haar" not in key},
        r"has 0 Haar transforms \(squeeze: haar\)",
    ),
    "permuted": (
        lambda state: {**state, "flow.layers.1.permute.weight": torch.eye(12)},
        r"mix channels \(flow_permutation: invconv\)",
    ),
    "uneven": (
        lambda state: {k: v for k, v in state.items() if "level1_condFlow.additional" not in k},
        r"have \[2, 0\] conditional steps",
    ),
}


@pytest.mark.parametrize("name", HCFLOWS)
def test_hcflows_that_are_not_known(name):
    change, message = HCFLOWS[name]
    with pytest.raises(WICFileError, match=message):
        load_official(change(authors.hcflow(3, 4, 2, 8, trunks=(2, 1)).state_dict()))


@pytest.mark.parametrize("trunks", [(2, 1), (1, 2), (0, 3), (3, 0)])
def test_hcflows_trunks_are_one_here(trunks):
    """Which block stands where is kept; only where one trunk ends is not."""
    net = moved(authors.hcflow(1, 4, 1, 8, trunks=trunks))
    model = load_official(net.state_dict())
    assert model.config["depth"] == 3
    theirs = [
        net.get_parameter(f"flow.level0_condFlow.RRDB_trunk{t}.{n}.RDB1.conv1.weight")
        for t in (0, 1)
        for n in range(trunks[t])
    ]
    for n, expected in enumerate(theirs):
        assert torch.equal(
            model[-1].flow.features.trunk[n].block1.get_parameter("conv1.weight"), expected
        )


class Keeping(Network):
    """Keeps all channels, so that it could be undone."""

    def __init__(self, in_channels=6, out_channels=6):
        super().__init__(*affine_couplings(2, in_channels, 4))


class TestColours:
    """Red and blue exchanged inside a network's ends."""

    @pytest.mark.parametrize("row", ["IICNet", "IICNet grey", "HiNet", "HiNet grey", "RGBA"])
    def test_only_colour_pictures_are_turned(self, row):
        make, order, result = {
            "IICNet": (lambda: IICNet(6, 3, couplings=1, growth=4, features=2), [2, 1, 0, 5, 4, 3],
                       [2, 1, 0]),
            "IICNet grey": (lambda: IICNet(3, 1, couplings=1, growth=4, features=2), [2, 1, 0],
                            [0]),
            "HiNet": (lambda: HiNet(9, couplings=1, growth=4), [2, 1, 0, 5, 4, 3, 8, 7, 6],
                      [2, 1, 0]),
            "HiNet grey": (lambda: HiNet(3, 1, couplings=1, growth=4), [0, 1, 2], [0]),
            "RGBA": (lambda: IRN(4, 4, couplings=1, growth=4), [2, 1, 0, 3], [2, 1, 0, 3]),
        }[row]  # fmt: skip
        model = shaken(make()).eval()
        x = torch.rand(2, model.config["in_channels"], 8, 8)
        with torch.no_grad():
            y = model(x[:, order])
            back = model.inverse(y)
            model.colours = "BGR"
            assert torch.equal(model(x), y[:, result])
            assert torch.equal(model.inverse(y[:, result]), back[:, order])
            assert torch.equal(model(y[:, result], rev=True), back[:, order])

    def test_load_official_says_and_owners_may_say(self, tmp_path):
        net = moved(authors.iicnet(2, 1, 4, 2, scale=1))
        orders = {c: load_official(net.state_dict(), colours=c) for c in (None, "RGB", "BGR")}
        assert [model.colours for model in orders.values()] == ["BGR", "RGB", "BGR"]
        x = torch.rand(1, 6, 8, 8)
        exchanged = x[:, [2, 1, 0, 5, 4, 3]]
        with torch.no_grad():
            assert torch.equal(orders[None](x), orders["RGB"](exchanged).flip(1))
            assert not torch.equal(orders[None](x), orders["RGB"](x))
        with pytest.raises(WICArgumentError, match='"RGB" or "BGR"; got \'GBR\''):
            load_official(net.state_dict(), colours="GBR")
        for kind in ("IRN", "HiNet", "HCFlow", "WIN-Naive"):
            _, path = checkpoint_rows.write(kind, "as written", tmp_path)
            assert load_official(path).colours == "RGB"
            assert load_official(path, colours="BGR").colours == "BGR"

    def test_the_folder_keeps_them_and_their_code_gets_its_own(self, tmp_path):
        pytest.importorskip("safetensors")
        net = moved(authors.iicnet(2, 1, 4, 2, scale=1))
        upgraded = with_wic(load_official(net.state_dict()))
        assert upgraded.colours == "BGR"
        upgraded.save_pretrained(tmp_path / "folder", precision="float32")
        stored = IICNet.from_pretrained(tmp_path / "folder")
        assert stored.colours == "BGR"
        save_official(stored, tmp_path / "theirs.pth")
        again = authors.closed_iicnet(authors.iicnet(2, 1, 4, 2, scale=1), 6)
        authors.load_network(tmp_path / "theirs.pth", again)
        for key, value in net.state_dict().items():
            assert torch.equal(again.state_dict()[key], value)
        config = (tmp_path / "folder/config.json").read_text()
        (tmp_path / "folder/config.json").write_text(config.replace('"BGR"', '"GBR"'))
        with pytest.raises(WICFileError, match="colours"):
            IICNet.from_pretrained(tmp_path / "folder")

    def test_a_network_of_another_order_is_not_written(self, tmp_path):
        model = IICNet(6, 3, couplings=1, growth=4, features=2)
        with pytest.raises(WICArgumentError, match="one that sees RGB"):
            save_official(model, tmp_path / "a.pth")
        assert not (tmp_path / "a.pth").exists()
        save_official(model, tmp_path / "a.pth", colours="RGB")  # for a copy that turns them
        assert load_official(tmp_path / "a.pth", colours="RGB").colours == "RGB"

    def test_losses_are_those_of_their_order(self):
        """The shift loss compares channels inside the network with the turned reference."""
        task = TASKS["stereo"]
        model = shaken(IICNet(6, 3, couplings=1, growth=4, features=2, completion="repeat"))
        x = torch.rand(2, 6, 8, 8)
        exchanged = x[:, [2, 1, 0, 5, 4, 3]]
        objective = Objective(task)
        inside = objective(model, exchanged, task.reference(exchanged))
        model.colours = "BGR"
        outside = objective(model, x, task.reference(x))
        for name, value in inside.items():
            torch.testing.assert_close(outside[name], value)
        assert inside["shift"] > 0

    def test_a_latent_takes_no_part(self):
        for make in (DLVIRN, DLVHiNet):
            model = shaken(make(couplings=1, growth=4)).eval()
            x = torch.rand(1, model.config["in_channels"], 8, 8)
            w = model.draw(x)
            turned = x.unflatten(1, (-1, 3)).flip(2).flatten(1, 2)
            with torch.no_grad():
                y = model(turned, w=w)
                model.colours = "BGR"
                assert torch.equal(model(x, w=w), y.flip(1))

    def test_saving_memory_gives_the_same_gradients(self):
        """A network inside a chain is not undone block by block, which would lose the order."""
        inner = shaken(Keeping()).double()
        inner.colours = "BGR"
        outer = Chain(AffineCoupling(6, subnet=partial(DenseBlock, growth=4)), inner).double()
        x, aim = torch.rand(2, 1, 6, 8, 8, dtype=torch.float64)
        gradients = []
        for prepare in (lambda _: None, save_memory):
            prepare(outer)
            outer.zero_grad()
            (outer(x) - aim).square().sum().backward()
            gradients.append([parameter.grad.clone() for parameter in outer.parameters()])
        for one, two in zip(*gradients, strict=True):
            torch.testing.assert_close(one, two)


def test_the_docstrings_say_where_colours_are_read():
    for form in _FORMATS:
        first = {"RGB": "red", "BGR": "blue"}[form.colours]
        text = re.sub(r"\s+", " ", type(form).__doc__)
        assert f"see {first} first" in text, type(form)


def test_channel_mean_is_what_iicnet_starts_with():
    """The stand-in of the closed IICNet is the README's line."""
    layer = authors.closed_iicnet(authors.Named({"a": (1,)}), 6).get_submodule("3")
    assert torch.equal(layer.weight, ChannelMean(2).as_wic(3).weight)


class TestAtWork:
    """A network that sees blue first, in what runs networks."""

    @pytest.fixture
    def networks(self):
        model = shaken(IICNet(6, 3, couplings=1, growth=4, features=2)).eval()
        turning = copy.deepcopy(model)
        turning.colours = "BGR"
        return model, turning

    def test_packed_pictures_are_rgb(self, networks):
        model, turning = networks
        views = [torch.randint(0, 256, (3, 12, 16), dtype=torch.uint8) for _ in range(2)]
        expected = tasks.pack("stereo", [view.flip(0) for view in views], model=model)
        packed = tasks.pack("stereo", views, model=turning)
        assert torch.equal(packed, expected.flip(0))
        back = tasks.unpack(packed, "stereo", model=turning)
        for one, two in zip(back, tasks.unpack(expected, "stereo", model=model), strict=True):
            assert torch.equal(one, two.flip(0))

    def test_luma_is_that_of_the_colours(self, networks):
        """What is judged is RGB, whatever the network sees: red weighs as red in the luma."""
        model, turning = networks
        photographs = [torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8) for _ in range(2)]
        rows = []
        for network, images in ((turning, photographs), (model, [p.flip(0) for p in photographs])):
            torch.manual_seed(0)  # of the views that are made of them
            rows.append(next(iter(evaluate(TASKS["stereo"], network, images))))
        for one, two in zip(*rows, strict=True):
            assert one.psnr_rgb == pytest.approx(two.psnr_rgb)
            assert one.psnr_y != pytest.approx(two.psnr_y, abs=1e-6)

    @pytest.mark.parametrize("direction", ["forward", "reverse"])
    def test_fused(self, networks, direction):
        _, turning = networks
        x = torch.rand(1, 6, 8, 8)
        with torch.no_grad():
            y = turning(x)
            if direction == "forward":
                torch.testing.assert_close(fuse(turning, "forward")(x), y)
            else:
                torch.testing.assert_close(fuse(turning, "reverse")(y), turning.inverse(y))
            given, function = (x, turning) if direction == "forward" else (y, turning.inverse)
            fused = fuse(turning, direction)
            program = torch.export.export(fused, (given,))
            torch.testing.assert_close(program.module()(given), function(given))
