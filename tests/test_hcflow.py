"""HCFlow and DLV-HCFlow: their sizes, the numbers of the authors' code, and both directions."""

import copy
import math
from pathlib import Path

import pytest
import torch

from wic_layers import WIC, det_loss, quantize, record_wic, shift_loss
from wic_layers.blocks import Chain
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.blocks.reversible import save_memory
from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.models import PRESETS, DLVHCFlow, HCFlow, from_pretrained, inspect, with_wic
from wic_layers.models.conditional import ActNorm, ConditionalSplit, HalfCoupling
from wic_layers.tasks import TASKS, down, up
from wic_layers.testing import check, log_volume_numerical
from wic_layers.training import Objective

SMALL = {"steps": 2, "growth": 4, "conditional_steps": 2, "width": 4, "depth": 1}
GOLDEN = Path(__file__).parent / "data/reference/hcflow_x4.safetensors"


def small(inputs, outputs):
    return DenseBlock(inputs, outputs, growth=4)


def shaken(model):
    """Random numbers in all that starts at zero or one, but in the kernels of WIC."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4 and len(parameter) > 1:
            torch.nn.init.normal_(parameter, std=0.4 / math.sqrt(parameter[0].numel()))
        elif name.endswith(("norm1.bias", "norm2.bias")):  # before a ReLU, which few units survive
            torch.nn.init.constant_(parameter, 0.5)
        elif not name.endswith(("wic.weight", "mix.weight")):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


class Given(torch.nn.Module):
    """A completion that knows what was dropped."""

    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    def forward(self, y):
        return self.extra


NETWORKS = {
    "hcflow": lambda **given: HCFlow(**{**SMALL, **given}),
    "hcflow x2": lambda **given: HCFlow(**{**SMALL, **given}, scale=2),
    "dlv": lambda **given: DLVHCFlow(**{**SMALL, **given}),
}
Z = ["drawn", "zero", None]


def network(name, dtype=torch.float32, **given):
    model = shaken(NETWORKS[name](**given)).to(dtype)
    return model, torch.rand(1, 3, 16, 24, dtype=dtype)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("model", "count"),
    [
        # HCFlow: 4.40 million in the papers, and this number in the authors' code
        (lambda: HCFlow(z="drawn"), 4_396_206),
        # DLV-HCFlow: 4.87 million, which are met if w's two channels go wherever an image's go:
        # 20 channels after Haar, of which 10 are kept, then 40; dropping w's at the first split,
        # 4.56 million, does not
        (lambda: DLVHCFlow(z="zero"), 4_871_870),
        # with a WIC, a square kernel before each split comes on top
        (lambda: HCFlow(), 4_396_206 + 12**2 + 24**2),
        (lambda: DLVHCFlow(), 4_871_870 + 20**2 + 40**2),
    ],
)
def test_sizes_of_the_paper(model, count):
    assert parameters(model()) == count


def test_numbers_of_the_authors_code():
    """Their code's results for weights that stand here under our names; z too."""
    tensors = pytest.importorskip("safetensors.torch").load_file(GOLDEN)
    model = HCFlow(**{**SMALL, "conditional_steps": 1, "depth": 3}, z="zero").eval()
    state = {key[6:]: value for key, value in tensors.items() if key.startswith("state/")}
    fixed = {key: value for key, value in model.state_dict().items() if key not in state}
    assert all(".mix." in key or ".drop." in key for key in fixed)
    model.load_state_dict({**state, **fixed})
    with torch.no_grad(), record_wic(model) as records:
        y = model(tensors["x"])
        back = model.inverse(tensors["y_in"])
    torch.testing.assert_close(y, tensors["y"], rtol=0, atol=1e-5)
    torch.testing.assert_close(records[0].extra, tensors["z2"], rtol=0, atol=1e-5)
    torch.testing.assert_close(records[1].extra, tensors["z1"], rtol=0, atol=1e-5)
    torch.testing.assert_close(back.clamp(0, 1), tensors["x_out"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("z", Z)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_contract(name, z):
    model, x = network(name, z=z)
    check(model, x)


BLOCKS = {
    "actnorm": (lambda: ActNorm(3), (2, 3, 4, 5)),
    "second half": (lambda: HalfCoupling(5, 2, subnet=small), (2, 5, 3, 4)),
    "first half": (lambda: HalfCoupling(5, 2, changes_first=True, subnet=small), (2, 5, 3, 4)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_run_back(name):
    make, shape = BLOCKS[name]
    block, x = shaken(make()).double(), torch.rand(shape, dtype=torch.float64)
    with torch.no_grad():
        y = block(x)
        assert not torch.allclose(y, x)
        torch.testing.assert_close(block.inverse(y), x)
        torch.testing.assert_close(block(y, rev=True), x)
        changed = (y - x).abs().amax((0, 2, 3)) > 0
    if "half" in name:
        assert changed.tolist() == [name == "first half"] * 2 + [name == "second half"] * 3


def test_halves_keep_their_volume_or_say_what_scales():
    """Shifting keeps it; scaling by at most e^(1/2) a channel changes it within that."""
    x = torch.rand(1, 5, 2, 2, dtype=torch.float64)
    for name, most in (("first half", 1e-12), ("second half", 3 * 4 * 0.5)):
        block = shaken(BLOCKS[name][0]()).double()
        assert log_volume_numerical(block, x).abs() <= most


@pytest.mark.parametrize("z", ["zero", None])
@pytest.mark.parametrize("name", ["hcflow", "hcflow x2"])
def test_every_picture_is_one_that_it_makes(name, z):
    """forward(inverse(y)) == y for any y: z only decides what comes with it."""
    model, x = network(name, torch.float64, z=z)
    with torch.no_grad():
        y = torch.rand_like(model(x))
        torch.testing.assert_close(model(model.inverse(y)), y)


@pytest.mark.parametrize("name", NETWORKS)
def test_with_its_own_z_everything_comes_back(name):
    model, x = network(name, torch.float64)
    with torch.no_grad():
        with record_wic(model) as records:
            y = model(x)
        splits = [module for module in model.modules() if isinstance(module, ConditionalSplit)]
        held = {id(record.layer): record.extra for record in records}
        assert len(held) == len(splits) == (1 if "x2" in name else 2)
        for split in splits:
            split.drop.completion = Given(held[id(split.drop)])
        back = model.inverse(y)  # with w, which is zeros, cut off
        torch.testing.assert_close(back, x)


def test_z_is_not_worked_out_unless_it_is_recorded():
    model, x = network("hcflow")
    seen = []
    for module in model.modules():
        if isinstance(module, ConditionalSplit):
            module.flow.prior.register_forward_hook(lambda *given: seen.append(given))
    y = model(x)
    assert not seen
    with record_wic(model) as records:
        assert torch.equal(model(x), y)
    assert len(seen) == len(records) == 2


@pytest.mark.parametrize("name", NETWORKS)
def test_saving_memory_gives_the_same_gradients(name):
    model, x = network(name, torch.float64)
    other = copy.deepcopy(model)
    save_memory(other)
    for each in (model, other):
        with record_wic(each) as records:
            y = each(x)
        (shift_loss(records) + (each.inverse(y) - x).square().sum()).backward()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad)


@pytest.mark.parametrize("name", ["hcflow", "dlv"])
def test_z_is_zero_drawn_or_behind_a_layer(name):
    zero, x = network(name, z="zero")
    drawn = NETWORKS[name](z="drawn")
    drawn.load_state_dict(zero.state_dict())
    y = zero(x)
    assert torch.equal(drawn(x), y)
    assert torch.equal(zero.inverse(y), zero.inverse(y))
    assert not torch.equal(drawn.inverse(y), drawn.inverse(y))
    upgraded = with_wic(drawn)
    assert upgraded.config == {**zero.config, "z": None}
    torch.testing.assert_close(upgraded(x), y)
    torch.testing.assert_close(upgraded.inverse(y), zero.inverse(y))
    kernels = {k for k, _ in upgraded.named_parameters()} - {k for k, _ in zero.named_parameters()}
    assert all(key.endswith("mix.weight") for key in kernels)
    assert len(kernels) == 2
    other = NETWORKS[name](completion="shift")
    assert other.inverse(y).shape == x.shape


def test_the_objective_and_who_learns():
    """L_shift is the square of both z; every parameter learns."""
    model, x = network("hcflow", z="zero")
    task = TASKS["rescaling-x4"]
    reference = task.reference(x)
    weights = PRESETS["hcflow"].recipe["weights"]
    objective = Objective(task, weights)
    losses = objective(model, x, reference)
    with record_wic(model) as records:
        y = model(x)
    torch.testing.assert_close(losses["shift"], sum(r.extra.square().sum() for r in records))
    torch.testing.assert_close(losses["forward"], (y - reference).square().sum())
    back = model.inverse(quantize(y))
    distance = ((back - x).square() + 1e-6).sqrt().sum()
    torch.testing.assert_close(losses["reverse"], distance)

    for name in NETWORKS:
        model, x = network(name)
        task = TASKS["rescaling-x2" if "x2" in name else "rescaling-x4"]
        objective = Objective(task, weights)
        losses = objective(model, x, task.reference(x))
        sum(objective.weighted(losses).values()).backward()
        for key, parameter in model.named_parameters():
            assert torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().sum() > 0, key


def test_drawn_z_is_penalised_by_half_its_square():
    model, x = network("hcflow", z="drawn")
    with record_wic(model) as records:
        model(x)
    torch.testing.assert_close(
        shift_loss(records), sum(r.extra.square().sum() / 2 for r in records)
    )
    assert det_loss(model) < 1e-3  # the kernels start orthogonal


def without_w(model, base):
    """Gives DLV-HCFlow the weights of HCFlow; what w's channels give to others is zero."""
    assert [type(block) for block in list(model)[1:]] == [type(block) for block in base]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        _put_level(list(model)[1:], list(base), [0, 1, 2], 5)


def _put_level(mine, theirs, places, channels):
    """The weights of a level, where ``places`` are those of the base's channels, of ``channels``.

    The first channels of the base need not be the first ones here: the square kernel, which comes
    before the split, puts them there.
    """
    places = [band * channels + place for band in range(4) for place in places]
    channels *= 4
    for into, given in zip(mine[1:-1], theirs[1:-1], strict=True):
        if isinstance(into, ActNorm):
            into.bias[:, places], into.logs[:, places] = given.bias, given.logs
        else:
            seen, changed = places[:3], [place - 3 for place in places[3:]]
            if into.changes_first:
                put_dense(into.f, given.f, changed, [0, 1, 2])
            else:
                rows = [2 * place + k for place in changed for k in range(2)]
                put_dense(into.f, given.f, seen, rows)
    into, given = mine[-1], theirs[-1]
    rest = [place for place in range(channels) if place not in places]
    kept = given.split
    extra = into.split - kept  # of w, behind the kept ones of the image
    order = [*places[:kept], *rest[:extra], *places[kept:], *rest[extra:]]
    into.mix.weight.copy_(torch.eye(channels)[order])


def put_dense(into, given, inputs, rows):
    for index in range(1, 6):
        mine, theirs = getattr(into, f"conv{index}"), getattr(given, f"conv{index}")
        hidden = theirs.in_channels - len(inputs)
        seen = [*inputs, *range(mine.in_channels - hidden, mine.in_channels)]
        chosen = rows if index == 5 else range(theirs.out_channels)
        for row, source in zip(chosen, range(theirs.out_channels), strict=True):
            mine.weight[row, seen] = theirs.weight[source]
            mine.bias[row] = theirs.bias[source]


def test_without_w_the_picture_is_that_of_hcflow():
    """One level; the conditional flow, which the picture does not depend on, is left at zero."""
    base, x = network("hcflow x2", torch.float64)
    model = DLVHCFlow(**SMALL, scale=2).double()
    with torch.no_grad():
        base[-1].mix.weight.copy_(torch.eye(12))
    without_w(model, base)
    with torch.no_grad():
        y = base(x)
        torch.testing.assert_close(model(x), y)
        torch.testing.assert_close(model(x, w=model.draw(x)), y)
        # on the way back what is dropped comes from a flow that says zero, in both
        for network_ in (base, model):
            for name, parameter in network_.named_parameters():
                if ".flow." in name:
                    parameter.zero_()
                if name.endswith("wic.weight"):
                    parameter.copy_(torch.eye(len(parameter)))
        torch.testing.assert_close(model.inverse(y), base.inverse(y))


@pytest.mark.parametrize("name", [name for name in PRESETS.names() if "hcflow" in name])
def test_presets(name):
    entry = PRESETS[name]
    published = "zero" if "dlv" in name else "drawn"
    assert entry.arguments.get("z") == (published if "-z" in name else None)
    assert entry.task == "rescaling-x4"
    forward, reverse, det, shift = entry.recipe["weights"]
    assert (forward, reverse) == (0.8, 1)
    assert (det > 0) == ("-z" not in name)
    assert shift == (2e-5 if entry.arguments.get("z") == "drawn" else 1e-5)
    if name.endswith("-small"):
        model = (DLVHCFlow if "dlv" in name else HCFlow).from_preset(name)
        assert model.preset == name
        assert parameters(model) < 800_000


def test_folders_files_and_inspection(tmp_path):
    model, _ = network("dlv")
    model.save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    assert type(again) is DLVHCFlow
    found = inspect(model)
    assert found.parameters == parameters(model)
    assert found.conditions["6.mix"] == 1
    assert found.flops[1] > found.flops[0]  # the way back needs the conditional flows
    text = repr(model)
    for part in (
        "5 x H x W -> 20 x H/2 x W/2",
        "40 x H/4 x W/4 -> 3 x H/4 x W/4",
        "HalfCoupling(3 + 37*)",
    ):
        assert part in text
    photo = torch.randint(0, 256, (3, 21, 34), dtype=torch.uint8)
    little = down(photo, scale=4, model=again)
    assert little.shape == (3, 6, 9)
    assert up(little, model=tmp_path, size=(34, 21)).shape == photo.shape


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_farther_than_the_receptive_field_is_seen(name):
    model = shaken(NETWORKS[name](steps=1, conditional_steps=1)).double()
    scale = model.config["scale"]
    reach = (inspect(model).receptive_field - scale) // 2
    side = 2 * reach + 4 * scale
    side -= side % (2 * scale)
    middle = side // 2 // scale * scale
    x = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    for function, given, block in (
        (model, x, slice(middle // scale, middle // scale + 1)),
        (model.inverse, model(x).detach().requires_grad_(), slice(middle, middle + scale)),
    ):
        out = function(given)
        (gradient,) = torch.autograd.grad(out[..., block, block].sum(), given)
        rows = (gradient[0].abs().sum((0, 2)) > 0).nonzero().flatten()
        factor = 1 if given is x else scale
        assert middle - int(rows.min()) * factor <= reach
        assert (int(rows.max()) + 1) * factor - middle - scale <= reach


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: HCFlow(scale=8), WICArgumentError, "scale 2 or 4; got 8"),
        (lambda: HCFlow(z="no"), WICArgumentError, 'z "zero", "drawn" or None'),
        (lambda: HCFlow(z="drawn", completion="shift"), WICArgumentError, "no completion with z="),
        (lambda: DLVHCFlow(w_channels=0), WICArgumentError, "latent.*got 0"),
        (lambda: HalfCoupling(4, 4), WICArgumentError, "both sides of 4; got 4"),
        (
            lambda: HalfCoupling(4, 1, subnet=small)(torch.ones(1, 3, 2, 2)),
            WICShapeError,
            r"HalfCoupling\(1 \+ 3\*\): expected 4 channels",
        ),
        (lambda: HCFlow(**SMALL)(torch.ones(1, 3, 8, 6)), WICShapeError, r"^5\.inner\.0: Haar"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, WICError)


def test_parts_stand_in_one_list():
    model, _ = network("hcflow")
    assert isinstance(model[-1].inner, Chain)
    assert sum(isinstance(module, WIC) for module in model.modules()) == 2 * (2 + 2)
