"""The stand-ins for public flows do what they say before anything is tried on them."""

import copy
import io

import pytest
import torch
from standins.flows import CASES
from standins.flows.masked import mask_of

# FrEIA's OrthogonalTransform hooks so
pytestmark = pytest.mark.filterwarnings("ignore:Using non-full backward hooks:FutureWarning")

EVERY = pytest.mark.parametrize("case", CASES, ids=str)
WITH_LAYERS = pytest.mark.parametrize("case", [case for case in CASES if case.layers], ids=str)


def trained(case, kinds=()):
    """The model after a first batch and a step that moved its parameters, but none that drifts.

    With ``kinds``, ends of names, those alone.
    """
    torch.manual_seed(1)
    model = case.build()
    with torch.no_grad():
        case.forward(model, case.x())
        for name, parameter in model.named_parameters():
            moves = name.endswith(kinds) if kinds else not name.endswith(case.drifts)
            if parameter.requires_grad and moves:
                parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


@EVERY
def test_the_inverse_undoes_forward(case):
    model, x = trained(case), case.x()
    with torch.no_grad():
        z, _ = case.forward(model, x)
        torch.testing.assert_close(case.inverse(model, z), x, atol=1e-4, rtol=1e-4)
    assert (z - x.reshape(z.shape)).abs().max() > 0.1


@EVERY
def test_the_log_det_is_that_of_the_jacobian(case):
    model, x = trained(case), case.x()
    _, logdet = case.forward(model, x)
    if logdet is None:
        return
    unmasked = torch.ones_like(x, dtype=torch.bool)
    if "masked" in case.notes:
        unmasked = mask_of(x).bool().expand_as(x)

    def flat(values):
        z = case.forward(model, x.masked_scatter(unmasked, values))[0]
        return z[unmasked] if "masked" in case.notes else z.flatten()

    jacobian = torch.autograd.functional.jacobian(flat, x[unmasked])
    if case.units == "sample":
        assert logdet.numel() in (1, len(x))
        logdet = logdet.flatten().expand(len(x)).sum()
    expected = torch.slogdet(jacobian.double())[1].float()
    torch.testing.assert_close(logdet, expected, atol=2e-3, rtol=1e-4)
    assert case.units == "sample" or logdet.numel() == 1


@pytest.mark.parametrize("case", [case for case in CASES if case.drifts], ids=str)
def test_what_drifts_makes_the_host_wrong(case):
    model, x = trained(case, kinds=case.drifts), case.x()
    z, logdet = case.forward(model, x)

    def flat(x):
        return case.forward(model, x)[0].flatten()

    jacobian = torch.autograd.functional.jacobian(flat, x).view(x.numel(), x.numel())
    expected = torch.slogdet(jacobian.double())[1].float()
    error = (logdet.expand(len(x)).sum() - expected).abs()
    assert max(error, (case.inverse(model, z) - x).abs().max()) > 1e-2


@WITH_LAYERS
def test_a_layer_answers_every_call(case):
    layer, x = trained(case).get_submodule(case.layers[0]), case.layer_x()
    for call in case.layer_calls.values():
        with torch.no_grad():
            results = [call(layer, x), call(layer, x)]
        torch.testing.assert_close(*results)


@EVERY
def test_names_are_modules_of_the_model(case):
    model = case.build()
    for name in (*case.layers, *case.left):
        assert name
        model.get_submodule(name)


@EVERY
def test_whether_the_owner_can_save_and_copy_the_model(case):
    model = case.build()
    z, _ = case.forward(model, case.x())
    z.sum().backward()
    try:
        copy.deepcopy(model)
    except RuntimeError:
        copies = False
    else:
        copies = True
    assert copies == case.copies
    fresh = case.build()
    try:
        torch.save(fresh, io.BytesIO())
    except Exception:
        pickles = False
    else:
        pickles = True
    assert pickles == case.pickles


@pytest.mark.parametrize("case", [c for c in CASES if c.nan_below_zero], ids=str)
def test_a_log_det_that_is_nan_below_zero(case):
    model, x = case.build(), case.x()
    layer = model.get_submodule(case.layers[0])
    weight = layer.conv.weight if hasattr(layer, "conv") else layer.weight
    with torch.no_grad():
        assert not case.forward(model, x)[1].isnan().any()
        weight[0] *= -1
        assert case.forward(model, x)[1].isnan().all()


def test_names_are_different():
    assert len({case.name for case in CASES}) == len(CASES)
