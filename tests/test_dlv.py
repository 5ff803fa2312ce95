"""DLV-IRN and DLV-HiNet: their sizes, what w does, and the networks that they are without it."""

import copy
import math

import photographs
import pytest
import torch
from cases import shaken

from wic_layers import WIC, quantize
from wic_layers.blocks import AffineCoupling, Latent
from wic_layers.blocks.reversible import save_memory
from wic_layers.errors import WICArgumentError, WICShapeError
from wic_layers.models import (
    DLVIRN,
    IRN,
    PRESETS,
    DLVHiNet,
    HiNet,
    from_pretrained,
    inspect,
    with_wic,
)
from wic_layers.tasks import TASKS, down, hide, reveal, up
from wic_layers.testing import check
from wic_layers.training import Objective
from wic_layers.training.terms import TERMS

SMALL = {"couplings": 2, "growth": 4}
NETWORKS = {
    "irn x2": (lambda **given: DLVIRN(**SMALL, **given), (2, 3, 12, 16)),
    "irn x4": (lambda **given: DLVIRN(scale=4, **SMALL, **given), (1, 3, 16, 24)),
    "hinet": (lambda **given: DLVHiNet(**SMALL, **given), (2, 6, 8, 12)),
    "hinet, two secrets": (
        lambda **given: DLVHiNet(9, w_channels=3, **SMALL, **given),
        (1, 9, 8, 8),
    ),
}
Z = ["zero", "drawn", None]
CLASSES = {"DLVIRN": DLVIRN, "DLVHiNet": DLVHiNet}


def network(name, dtype=torch.float32, **given):
    make, shape = NETWORKS[name]
    return shaken(make(**given)).to(dtype), torch.rand(shape, dtype=dtype)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("model", "count", "paper"),
    [
        # in millions; every figure of the paper is met with w of two channels, Haar over all
        # channels (those of w too) in both stages, and as many couplings as the base network has
        (lambda: DLVIRN(z="zero"), 1_894_448, "1.89"),
        (lambda: DLVIRN(scale=4, z="zero"), 5_487_616, "5.49"),
        (lambda: DLVHiNet(z="zero"), 4_541_184, "4.5"),
        (lambda: IRN(random_z=True), 1_667_952, "1.67"),  # the paper cuts off: 1.66
        (lambda: IRN(scale=4, random_z=True), 4_355_136, "4.36"),  # and here: 4.35
        (lambda: HiNet(random_z=True), 4_050_240, "4.1"),
        (lambda: HiNet(couplings=18, random_z=True), 4_556_520, "4.6"),  # and here: 4.5
    ],
)
def test_sizes_of_the_paper(model, count, paper):
    assert parameters(model()) == count
    digits = len(paper.partition(".")[2])
    assert f"{count / 1e6:.{digits}f}" == paper


@pytest.mark.parametrize("z", Z)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_contract(name, z):
    model, x = network(name, z=z)
    check(model, x)


@pytest.mark.parametrize("name", NETWORKS)
def test_w_comes_back_and_nothing_is_lost_before_the_last_layer(name):
    model, x = network(name, torch.float64)
    blocks = list(model)
    last = next(index for index, block in enumerate(blocks) if isinstance(block, WIC))
    w = model.draw(x)
    assert w.shape == (x.shape[0], model.config["w_channels"], *x.shape[2:])
    joined = blocks[0].join(x, w)
    with torch.no_grad():
        z = joined
        for block in blocks[1:last]:
            z = block(z)
        for block in blocks[1:last][::-1]:
            z = block.inverse(z)
    torch.testing.assert_close(z, joined)
    assert torch.equal(blocks[0].inverse(joined), x)


@pytest.mark.parametrize("name", NETWORKS)
def test_w_is_zero_unless_it_is_given(name):
    model, x = network(name)
    w = model.draw(x)
    with torch.no_grad():
        y = model(x)
        assert torch.equal(model(x, w=torch.zeros_like(w)), y)
        assert torch.equal(model(x), model.eval()(x))
        other = model(x, w=w)
    assert other.shape == y.shape
    assert not torch.equal(other, y)
    assert model.inverse(other).shape == x.shape
    with pytest.raises(WICArgumentError, match="no w with rev=True"):
        model(y, rev=True, w=w)
    with pytest.raises(WICShapeError, match="expected w of shape"):
        model(x, w=w[:, :1])


@pytest.mark.parametrize("z", ["zero", None])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_picture_is_one_that_it_makes(name, z):
    """forward(inverse(y)) == y, if the w that the way back finds is put in again."""
    model, x = network(name, torch.float64, z=z)
    with torch.no_grad():
        y = torch.rand_like(model(x))
        blocks = list(model)
        back = y
        for block in blocks[:0:-1]:
            back = block.inverse(back)
        for block in blocks[1:]:
            back = block(back)
        torch.testing.assert_close(back, y)


def irn_places(scale):
    """Where the channels of IRN are among those of DLV-IRN, in each stage: bands of all."""
    places, channels, stages = [0, 1, 2], 5, []
    for _ in range(scale // 2):
        places = [band * channels + place for band in range(4) for place in places]
        channels *= 4
        stages.append((places, channels))
    return stages


def put(into, given, inputs, outputs):
    """A dense block's weights into those of one that sees and makes more channels."""
    for index in range(1, 6):
        mine, theirs = getattr(into, f"conv{index}"), getattr(given, f"conv{index}")
        seen = list(inputs) + [
            mine.in_channels - theirs.in_channels + k
            for k in range(len(inputs), theirs.in_channels)
        ]
        rows = list(outputs) if index == 5 else list(range(theirs.out_channels))
        with torch.no_grad():
            if index == 5:
                mine.weight.zero_()
                mine.bias.zero_()
            mine.weight[:, [k for k in range(mine.in_channels) if k not in seen]] = 0
            for row, source in zip(rows, range(len(rows)), strict=True):
                mine.weight[row, seen] = theirs.weight[source]
                mine.bias[row] = theirs.bias[source]


def adopt(model, base, stages):
    """Gives a DLV network the weights of its base; those of w's channels are zero."""
    mine = [block for block in model if isinstance(block, AffineCoupling)]
    theirs = [block for block in base if isinstance(block, AffineCoupling)]
    each = len(theirs) // len(stages)
    for index, (into, given) in enumerate(zip(mine, theirs, strict=True)):
        places, _ = stages[index // each]
        first, cut = into.sizes[0], given.sizes[0]
        ones = places[:cut]
        twos = [place - first for place in places[cut:]]
        assert all(0 <= place < first for place in ones)
        put(into.F, given.F, twos, ones)
        for net in ("G", "H"):
            put(getattr(into, net), getattr(given, net), ones, twos)


@pytest.mark.parametrize("name", ["irn x2", "irn x4", "hinet"])
def test_without_w_it_is_the_base_network(name):
    """Equal outputs when the weights of w are zero, whatever w is, and equal on the way back."""
    model, x = network(name, torch.float64, z="zero")
    if name == "hinet":
        base = shaken(HiNet(**SMALL)).double()
        # HiNet's halves are bands of three channels, here each channel has its bands together
        half = [4 * channel + band for band in range(4) for channel in range(3)]
        stages = [([*half, *(16 + place for place in half)], 32)]
    else:
        base = shaken(IRN(scale=int(name[-1]), **SMALL)).double()
        stages = irn_places(int(name[-1]))
    last = next(block for block in base if isinstance(block, WIC))
    with torch.no_grad():
        last.weight.copy_(torch.eye(len(last.weight)))
    adopt(model, base, stages)
    with torch.no_grad():
        y = base(x)
        torch.testing.assert_close(model(x), y)
        torch.testing.assert_close(model(x, w=model.draw(x)), y)
        torch.testing.assert_close(model.inverse(quantize(y)), base.inverse(quantize(y)))


@pytest.mark.parametrize("name", NETWORKS)
def test_z_is_zero_drawn_or_a_layer(name):
    zero, x = network(name, z="zero")
    drawn, trained = (NETWORKS[name][0](z=z) for z in ("drawn", None))
    drawn.load_state_dict(zero.state_dict())
    y = zero(x)
    assert torch.equal(drawn(x), y)
    assert torch.equal(zero.inverse(y), zero.inverse(y))
    assert not torch.equal(drawn.inverse(y), drawn.inverse(y))
    names = {key for key, _ in trained.named_parameters()} - {
        key for key, _ in zero.named_parameters()
    }
    (kernel,) = names
    assert trained.get_parameter(kernel).shape[0] == trained.get_parameter(kernel).shape[1]
    upgraded = with_wic(zero)
    assert upgraded.config == {**zero.config, "z": None}
    torch.testing.assert_close(upgraded(x), y)
    torch.testing.assert_close(upgraded.inverse(y), zero.inverse(y))


PRESET_NAMES = [name for name in PRESETS.names() if PRESETS[name].network in CLASSES]


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_presets(name):
    entry = PRESETS[name]
    assert entry.arguments.get("z") == ("zero" if "-z" in name else None)
    model = CLASSES[entry.network].from_preset(name)
    assert model.preset == name
    task = TASKS[entry.task]
    given = model.config
    assert (given["in_channels"], given["out_channels"], given.get("scale", 1)) == task.channels
    assert given["w_channels"] == 2
    forward, reverse, det, shift = entry.recipe["weights"]
    if "irn" in name:
        assert (forward, reverse) == (task.scale**2, 1)
        assert entry.recipe["invariance"] == task.scale**2 / 4
        assert shift == 1
    else:
        assert (forward, reverse) == (1, 5)
        assert "invariance" not in entry.recipe
    assert (det > 0) == ("-z" not in name)


def test_small_ones_are_smaller():
    for name in ("dlv-irn-x2", "dlv-irn-x4", "dlv-irn-x2-z"):
        full, small = (DLVIRN.from_preset(name + size) for size in ("", "-small"))
        assert parameters(small) < parameters(full) / 3


def test_folders_files_and_inspection(tmp_path):
    """Weights go into a folder and out of it; the commands' functions take them."""
    model, _ = network("irn x2")
    model.save_pretrained(tmp_path / "weights")
    again = from_pretrained(tmp_path / "weights")
    assert type(again) is DLVIRN
    assert again.config == model.config
    found = inspect(model)
    assert found.parameters == parameters(model)
    assert "Latent(2)" in repr(model)
    assert "5 x H x W" in repr(model)
    photo = torch.randint(0, 256, (3, 21, 34), dtype=torch.uint8)
    small = down(photo, model=tmp_path / "weights")
    assert small.shape == (3, 11, 17)
    assert torch.equal(small, down(photo, model=again, tile=8))
    assert up(small, model=again, size=(34, 21)).shape == photo.shape
    stego = hide(photo, [photo], model=NETWORKS["hinet"][0]())
    assert reveal(stego, model=NETWORKS["hinet"][0]())[0].shape == (3, 22, 34)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_reaches_every_parameter(name):
    model, x = network(name)
    task = TASKS[{"irn x2": "rescaling-x2", "irn x4": "rescaling-x4"}.get(name, "hiding-1")]
    if "two" in name:
        task = TASKS["hiding-2"]
    objective = Objective(task, invariance=1.0)
    losses = objective(model, x, task.reference(x))
    sum(objective.weighted(losses).values()).backward()
    for key, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().sum() > 0, key


def test_invariance_is_the_deviation_over_three_draws():
    model, x = network("irn x2")
    task = TASKS["rescaling-x2"]
    objective = Objective(task, (4.0, 1.0, 0.0, 1.0), invariance=1.0)
    torch.manual_seed(3)
    losses = objective(model, x, task.reference(x))
    torch.manual_seed(3)
    pictures = [model(x, w=model.draw(x)) for _ in range(3)]
    mean = sum(pictures) / 3
    expected = sum((y - mean).square() for y in pictures).div(2).add(1e-6).sqrt().sum() / len(x)
    torch.testing.assert_close(losses["invariance"], expected)
    # the first of them is the picture that is judged and runs back
    torch.testing.assert_close(
        losses["forward"], (pictures[0] - task.reference(x)).square().sum() / len(x)
    )
    assert list(objective.weighted(losses)) == ["forward", "reverse", "shift", "invariance"]
    assert "invariance" in TERMS


def test_invariance_has_a_gradient_where_w_changes_nothing():
    """At the start the couplings are the identity, and the deviation of equal pictures zero."""
    model, x = DLVIRN(**SMALL, z="zero"), torch.rand(1, 3, 8, 8)
    task = TASKS["rescaling-x2"]
    losses = Objective(task, invariance=1.0)(model, x, task.reference(x))
    assert losses["invariance"].item() == pytest.approx(math.sqrt(1e-6) * 3 * 16, rel=1e-4)
    losses["invariance"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_w_in_training_is_drawn_or_zero():
    model, x = network("irn x2")
    task = TASKS["rescaling-x2"]
    reference = task.reference(x)

    def loss(w):
        return Objective(task, w=w)(model, x, reference)["forward"]

    assert torch.equal(loss("zero"), loss("zero"))
    assert not torch.equal(loss("drawn"), loss("drawn"))
    torch.testing.assert_close(loss("zero"), (model(x) - reference).square().sum() / len(x))
    plain = photographs.network()
    assert torch.equal(
        Objective(task, w="drawn")(plain, x, reference)["forward"],
        Objective(task, w="zero")(plain, x, reference)["forward"],
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_saving_memory_gives_the_same_gradients(name):
    model, x = network(name, torch.float64)
    other = copy.deepcopy(model)
    save_memory(other)
    w = model.draw(x)
    for each in (model, other):
        y = each(x, w=w)
        (y.square().sum() + (each.inverse(y) - x).square().sum()).backward()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad)


def test_copies_and_state():
    model, x = network("irn x4")
    other = copy.deepcopy(model)
    assert torch.equal(other(x), model(x))
    rebuilt = type(model)(**model.config)
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(rebuilt(x), model(x))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DLVIRN(scale=3), WICArgumentError, "scale 2 or 4; got 3"),
        (lambda: DLVIRN(3, 4), WICArgumentError, "output channels as input channels, 3; got 4"),
        (lambda: DLVIRN(z="none"), WICArgumentError, 'z "zero", "drawn" or None.*none'),
        (lambda: DLVIRN(z="zero", completion="shift"), WICArgumentError, "no completion with z="),
        (lambda: DLVIRN(w_channels=0), WICArgumentError, "1 images can share; got 0"),
        (lambda: DLVHiNet(w_channels=3), WICArgumentError, "2 images can share; got 3"),
        (lambda: DLVHiNet(5), WICArgumentError, "several images of 3 channels.*got 5"),
        (lambda: Latent(2, 2)(torch.ones(1, 3, 2, 2)), WICShapeError, "divisible by 2"),
        (lambda: with_wic(DLVIRN(**SMALL)), WICArgumentError, "or random_z=True; got DLVIRN"),
        (
            lambda: Objective(TASKS["rescaling-x2"], w="one"),
            WICArgumentError,
            'w "drawn" or "zero"; got .one',
        ),
        (
            lambda: Objective(TASKS["rescaling-x2"], w="zero", invariance=1.0),
            WICArgumentError,
            "drawn.*with invariance",
        ),
        (
            lambda: Objective(TASKS["rescaling-x2"], invariance=1.0)(
                photographs.network(), torch.rand(1, 3, 8, 8), torch.rand(1, 3, 4, 4)
            ),
            WICArgumentError,
            "latent w, for invariance; got WIN",
        ),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
