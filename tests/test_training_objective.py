"""What is minimised: the paper's sum, each part exchanged, and who learns from which loss."""

import photographs
import pytest
import torch
import torch.nn.functional as F
from cases import shaken

from wic_layers import det_loss, quantize, record_wic, shift_loss
from wic_layers.blocks import Haar
from wic_layers.errors import WICArgumentError
from wic_layers.layer.losses import log_squared, squared
from wic_layers.layer.quantization import quantize_by_noise
from wic_layers.models import HiNet
from wic_layers.tasks import TASKS
from wic_layers.training import Objective
from wic_layers.training.terms import OPTIONAL, frequencies


def packed(task="rescaling-x2"):
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return TASKS[task].pack(*(x.roll(-turn, 0) for turn in range(TASKS[task].images)))


def charbonnier(d):
    return (d.square() + 1e-6).sqrt()


def test_quantize_rounds_and_passes_the_gradient_where_nothing_is_clamped():
    x = torch.tensor([-0.3, 0.01, 0.4999, 0.51, 1.7], requires_grad=True)
    y = quantize(x)
    assert ((y.detach() * 255) - (y.detach() * 255).round()).abs().max() < 1e-4
    assert y.detach().min() >= 0
    assert y.detach().max() <= 1
    weights = torch.arange(5.0)
    (y * weights).sum().backward()
    assert torch.equal(x.grad, torch.tensor([0.0, 1.0, 2.0, 3.0, 0.0]))


def test_to_the_logarithm_every_image_counts_alike_that_becomes_better():
    """A mean of PSNR is one of logarithms; to squared errors the worst image is nearly all."""
    target = torch.rand(3, 3, 8, 8)
    errors = torch.randn(3, 3, 8, 8) * torch.tensor([0.1, 0.03, 0.01]).view(3, 1, 1, 1)

    def gains(distance, share=1e-3):
        """What each image's loss loses where its error shrinks by a share."""
        before, after = (distance(target + s * errors, target) for s in (1, 1 - share))
        return ((before - after).sum((1, 2, 3)) / before[0].numel() / share).tolist()

    worse, usual, better = gains(log_squared)
    assert worse == pytest.approx(usual, rel=0.05)
    assert better == pytest.approx(usual, rel=0.2)  # near 50 dB it counts less
    worse, usual, better = gains(squared)
    assert worse > 5 * usual > 25 * better
    # what is nearly perfect is squared errors, so that nothing divides by zero
    nothing = (target + 0 * errors).requires_grad_()
    loss = log_squared(nothing, target).sum()
    loss.backward()
    assert loss == 0
    assert torch.equal(nothing.grad, torch.zeros_like(target))
    tiny = log_squared(target + 1e-3 * errors, target)
    torch.testing.assert_close(
        tiny.sum(), 500 * squared(target + 1e-3 * errors, target).sum(), rtol=2e-3, atol=0
    )


def test_noise_is_as_large_as_rounding():
    x = torch.rand(100_000, requires_grad=True)
    errors = [(f(x) - x).detach() * 255 for f in (quantize, quantize_by_noise)]
    for error in errors:
        assert error.abs().max() <= 0.5 + 1e-4
        assert error.std() == pytest.approx(12**-0.5, rel=0.02)
    y = quantize_by_noise(torch.tensor([-3.0, 4.0]))
    assert y[0] < 1 / 255 < 1 - 1 / 255 < y[1]
    quantize_by_noise(x).sum().backward()
    assert (x.grad == 1).float().mean() > 0.99


@pytest.mark.parametrize("task", ["rescaling-x2", "hiding-1", "hiding-3", "decolorization"])
def test_objective_is_the_papers_sum(task):
    model, x = photographs.network(task), packed(task)
    reference = TASKS[task].reference(x)
    objective = Objective(TASKS[task])
    losses = objective(model, x, reference)

    with record_wic(model) as records:
        y = model(x)
    back = model.inverse(quantize(y))
    distance = charbonnier if "hiding" in task else torch.square
    expected = [
        distance(y - reference).sum() / len(x),
        charbonnier(back - x).sum() / len(x),
        det_loss(model),
        shift_loss(records, reference, lambda a, b: distance(a - b)),
        *[torch.tensor(0.0)] * len(OPTIONAL),
    ]
    for found, value in zip(losses.values(), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5)
    weighted = objective.weighted(losses)
    assert list(weighted) == ["forward", "reverse", "det", "shift"]
    total = 2 * expected[0] + expected[1] + 0.1 * expected[2] + expected[3]
    torch.testing.assert_close(sum(weighted.values()), total)


def test_each_part_can_be_exchanged():
    task, model, x = TASKS["rescaling-x2"], photographs.network(completion="shift"), packed()
    reference = task.reference(x)
    with record_wic(model) as records:
        y = model(x)
    back = model.inverse(quantize(y))

    def losses(**parts):
        return Objective(task, **parts)(model, x, reference)

    plain = losses()
    torch.testing.assert_close(losses(reverse="l2")["reverse"], (back - x).square().sum() / 2)
    found = losses(reverse="psnr")["reverse"]
    torch.testing.assert_close(found, log_squared(back, x).sum() / 2)
    found = losses(forward="l1")
    torch.testing.assert_close(found["forward"], charbonnier(y - reference).sum() / 2)
    assert not torch.equal(found["shift"], plain["shift"])
    torch.testing.assert_close(
        losses(forward=lambda a, b: 3 * (a - b).square())["forward"], 3 * plain["forward"]
    )
    own = losses(shift_target="output")["shift"]
    torch.testing.assert_close(own, shift_loss(records, None, lambda a, b: (a - b).square()))
    assert not torch.equal(own, plain["shift"])
    torch.testing.assert_close(
        losses(rounding=lambda y: y)["reverse"], charbonnier(model.inverse(y) - x).sum() / 2
    )
    noisy = losses(rounding="noise")["reverse"]
    assert not torch.equal(noisy, losses(rounding="noise")["reverse"])
    low = losses(low=1.0)["low"]
    torch.testing.assert_close(low, (F.avg_pool2d(y - reference, 2) * 2).square().sum() / 2)
    # the authors' transform is not scaled, and of real numbers they keep one side
    theirs = torch.view_as_real(torch.fft.rfft2(y) - torch.fft.rfft2(reference)).square().sum() / 2
    found = losses(frequency=1.0)["frequency"]
    torch.testing.assert_close(found * y[0, 0].numel(), theirs)
    weighted = Objective(task, (1.0, 2.0, 0.0, 0.0)).weighted(plain)
    assert set(weighted) == {"forward", "reverse"}
    assert torch.equal(weighted["reverse"], 2 * plain["reverse"])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"reverse": "l3"}, 'reverse "l1" or "l2" or "psnr"; got .l3'),
        ({"forward": "l3"}, 'forward "l1" or "l2" or "psnr"; got .l3'),
        ({"rounding": "no"}, 'rounding "straight-through" or "noise"; got .no'),
        ({"shift_target": "x"}, 'shift_target "reference" or "output"; got .x'),
        ({"returned": "x"}, 'returned "all" or "wanted"; got .x'),
    ],
)
def test_unknown_parts(parts, message):
    with pytest.raises(WICArgumentError, match=message):
        Objective(TASKS["rescaling-x2"], **parts)


def test_hinet_is_judged_by_its_secrets_and_completed_in_its_own_domain():
    task, x = TASKS["hiding-1"], packed("hiding-1")
    model = shaken(HiNet(couplings=2, growth=4))
    reference = task.reference(x)
    losses = Objective(task, returned="wanted")(model, x, reference)
    with record_wic(model) as records:
        y = model(x)
    assert records[0].output.shape == (2, 12, 16, 16)
    secret = model.inverse(quantize(y))[:, 3:]
    torch.testing.assert_close(losses["reverse"], charbonnier(secret - x[:, 3:]).sum() / 2)
    # the stego image is judged once, and the dropped bands by the completion of the cover's bands
    torch.testing.assert_close(losses["forward"], charbonnier(y - reference).sum() / 2)
    torch.testing.assert_close(losses["shift"], shift_loss(records, Haar()(reference)))


def test_copies_are_judged_too():
    """Each of them and their mean has the reference, and so has what stands in for the rest."""
    name = "rescaling-x4"
    model, x, task = photographs.network(name), packed(name), TASKS[name]
    reference = task.reference(x)
    losses = Objective(task)(model, x, reference)
    copies = reference.repeat(1, 4, 1, 1)
    with record_wic(model) as records:
        y = model(x)
    assert records[0].output.shape == copies.shape == (2, 12, 8, 8)
    expected = (y - reference).square().sum() + (records[0].output - copies).square().sum()
    torch.testing.assert_close(losses["forward"], expected / len(x))
    aims = {records[0].name: copies}
    torch.testing.assert_close(
        losses["shift"], shift_loss(records, aims, lambda a, b: (a - b) ** 2)
    )
    back = model.inverse(quantize(y))
    torch.testing.assert_close(losses["reverse"], charbonnier(back - x).sum() / len(x))


@pytest.mark.parametrize("task", ["hiding-1", "rescaling-x2", "rescaling-x4", "decolorization"])
def test_each_parameter_learns_from_the_documented_losses(task):
    """L_det: the kernels of WIC alone. L_shift: all that the dropped channels come from."""
    task, model = TASKS[task], photographs.network(task)
    x = packed(task.name)
    with torch.no_grad():  # the last convolutions start at zero, which hides those before them
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    others = [term.name for term in OPTIONAL if term.name != "invariance"]  # of latents
    losses = Objective(task, **dict.fromkeys(others, 1.0))(model, x, task.reference(x))
    names = [name for name, _ in model.named_parameters()]
    learns = {}
    for name, loss in losses.items():
        if name == "invariance":
            continue
        gradients = torch.autograd.grad(
            loss, list(model.parameters()), retain_graph=True, allow_unused=True
        )
        learns[name] = {
            parameter
            for parameter, gradient in zip(names, gradients, strict=True)
            if gradient is not None and bool(gradient.any())
        }
    kernels = {name for name in names if name.endswith(".weight") and "conv" not in name}
    assert learns["det"] == kernels
    assert learns["reverse"] == set(names)
    # the last coupling scales and shifts its second half; all of it is seen by the narrowing WIC
    for name in ("forward", "shift", *others):
        assert learns[name] == set(names)


def test_the_frequency_loss_is_at_least_half_the_squared_distance_and_at_most_all_of_it():
    y, reference = torch.rand(2, 3, 12, 9), torch.rand(2, 3, 12, 9)
    whole = (y - reference).square().sum()
    assert whole / 2 < frequencies(y, reference).sum() < whole
    flat = reference + torch.rand(2, 3, 12, 1)  # no change from left to right: counted whole
    expected = (flat - reference).square().sum()
    torch.testing.assert_close(frequencies(flat, reference).sum(), expected)
