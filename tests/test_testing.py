"""The contract checks find every broken contract, name its layer, and leave no trace."""

import math
import re

import pytest
import torch
from cases import LAYERS, ranks
from torch import nn

from wic_layers import WIC, testing
from wic_layers.blocks import AffineCoupling, Chain, Haar, Squeeze
from wic_layers.cli.selftest import selftest
from wic_layers.errors import ContractError, IllConditionedError, WICArgumentError, WICError
from wic_layers.testing import check, check_model, log_volume_numerical, round_trip_limit


class WrongChannels(WIC):
    def inverse(self, y):
        return super().inverse(y)[:, :-1]


class WrongDtype(WIC):
    def forward(self, x, *, rev=False):
        return super().forward(x, rev=rev).double()


class FailsOnEmptyBatches(WIC):
    def inverse(self, y):
        y = super().inverse(y)
        return y if len(y) else y[..., :0]


class ReturnsTwo(WIC):
    def forward(self, x, *, rev=False):
        return (super().forward(x, rev=rev), None) if not rev else super().inverse(x)


class DiffersInTraining(WIC):
    def forward(self, x, *, rev=False):
        y = super().forward(x, rev=rev)
        return y * 1.001 if self.training and not rev else y


class IgnoresRev(WIC):
    def forward(self, x, *, rev=False):
        return super().forward(x) if not rev or self.in_channels == self.out_channels else x


class Damped(WIC):
    """A Gram matrix with something on its diagonal."""

    def _inverse_matrix(self, high, stored):
        gram = high.mT @ high + 1e-4 * torch.eye(high.shape[1], dtype=high.dtype)
        return torch.linalg.solve(gram, high.mT)


class LearnsLazily(WIC):
    def inverse(self, y):
        if "offset" not in self._buffers:
            self.register_buffer("offset", torch.zeros(1))
        return super().inverse(y)


class NeverForgets(WIC):
    def inverse(self, y):
        if self.training or torch.is_grad_enabled():
            return super().inverse(y)
        if not hasattr(self, "kept"):
            self.kept = self._checked_inverse(None).float()
        channels = torch.cat((y, self.complete(y)), dim=1)
        return torch.einsum("nm,bm...->bn...", self.kept, channels)


class JoinsAutocast(WIC):
    def forward(self, x, *, rev=False):
        if rev or x.ndim != 4:
            return super().forward(x, rev=rev)
        return nn.functional.conv2d(x, self.weight[: self.out_channels, :, None, None])


class LosesItsVolume(WIC):
    def gram_logdet(self):
        return torch.linalg.det(1e-9 * self.weight.mT @ self.weight).log()


class KeepsTheRecord(WIC):
    def _other_rows(self, x, weight):
        self.extra = super()._other_rows(x, weight)
        return self.extra


class RecordsBackwards(WIC):
    def inverse(self, y):
        x = super().inverse(y)
        if y.shape[0]:
            WIC.forward(self, x)
        return x


class RecordingChangesIt(WIC):
    def forward(self, x, *, rev=False):
        y = super().forward(x, rev=rev)
        return y + 1e-3 if testing.is_recording() and not rev else y


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (WrongChannels, "expected inverse of shape.*to return one tensor"),
        (WrongDtype, "expected forward.*float32.*got.*float64"),
        (FailsOnEmptyBatches, r"expected inverse of shape \(0, 3"),
        (ReturnsTwo, "expected forward.*got.*tuple"),
        (DiffersInTraining, r"train\(\) and eval\(\) to agree; they differ by 0\.0"),
        (IgnoresRev, r"forward\(y, rev=True\) to agree"),
        (Damped, r"within .* of the largest; it is off by .* at condition number"),
        (LearnsLazily, "state dict; offset changed"),
        (NeverForgets, "inverse of an edited kernel within"),
        (JoinsAutocast, "inside autocast to agree"),
        (LosesItsVolume, "finite det_loss and gradient; got -?inf"),
        (KeepsTheRecord, "tensor of a recording to outlive it; one did"),
        (RecordsBackwards, "expected 1 records of one forward and one inverse; got 2"),
        (RecordingChangesIt, "with and without record_wic to agree"),
    ],
)
def test_every_broken_contract_is_found_and_its_layer_named(kind, message):
    layer = kind(6, 3, completion="shift")
    images = [(4, 6)]
    with pytest.raises(ContractError, match=rf"^{kind.__name__}\(6, 3, rows=6\): .*{message}"):
        check(layer, spatial=images)
    model = Chain(WIC(6, 6), Chain(kind(6, 3, completion="shift")))
    with pytest.raises(AssertionError, match=r"^1\.0: "):
        check(model, spatial=images)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 0.0])
def test_bad_kernels_are_named_with_their_number(value):
    model = nn.ModuleDict({"a": WIC(3, 8), "b": nn.Sequential(WIC(8, 3), WIC(3, 3))})
    with torch.no_grad():
        model["b"][1].weight[1] = value
    number = "3 of the kernel's 9" if value else r"condition number (inf|.*e\+\d\d) is past"
    with pytest.raises(IllConditionedError, match=rf"^b\.1: WIC\(3, 3\): .*{number}"):
        check(model)


def test_nearly_singular_kernels():
    layer = WIC(4, 4)
    for smallest, digits in ((1.0, 6.9), (1e-6, 0.9), (1e-9, 0.0), (1e-17, None)):
        with torch.no_grad():
            layer.weight.copy_(torch.diag(torch.tensor([1.0, 1.0, 1.0, smallest])))
        if digits is None:
            with pytest.raises(IllConditionedError, match=r"1e\+17 is past 4\.5e\+15.*float64"):
                check(layer)
        else:
            round_trip = check(layer)[""]
            assert round_trip.condition == pytest.approx(1 / smallest)
            assert round_trip.digits == pytest.approx(digits, abs=0.03)


def test_reports_every_layer_by_name():
    model = Chain(Squeeze(2), WIC(12, 14), Chain(WIC(14, 5)))
    found = check(model, torch.rand(1, 3, 4, 4))
    assert list(found) == ["1", "2.0"]
    assert all(0 < trip.error <= trip.limit for trip in found.values())


@pytest.mark.parametrize("name", ["square", "narrow, learned", "narrow, gaussian", "widen, lu"])
def test_leaves_no_trace(name):
    layer = LAYERS[name]()
    layer.train()
    if isinstance(layer.completion, nn.Module):
        layer.completion.eval()
    layer(torch.rand(1, layer.in_channels, 2, 2)).sum().backward()
    gradients = {key: p.grad for key, p in layer.named_parameters()}
    copies = {key: None if g is None else g.clone() for key, g in gradients.items()}
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    modes = [module.training for module in layer.modules()]
    random = torch.random.get_rng_state()
    check(layer, spatial=ranks(layer))
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [module.training for module in layer.modules()] == modes
    for key, parameter in layer.named_parameters():
        assert parameter.grad is gradients[key]
        assert copies[key] is None or torch.equal(parameter.grad, copies[key])
    for key, value in layer.state_dict().items():
        assert torch.equal(value, state[key])


@pytest.mark.parametrize("is_grad_enabled", [True, False])
def test_runs_with_gradients_on_and_off(is_grad_enabled):
    with torch.set_grad_enabled(is_grad_enabled):
        check(WIC(12, 3))


def test_frozen_layers_pass():
    check(WIC(12, 3).requires_grad_(requires_grad=False))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_dtypes_pass(dtype):
    check(WIC(12, 3, dtype=dtype))
    check(WIC(3, 12, dtype=dtype))


def test_completions_of_a_users_own_get_images():
    check(WIC(6, 3, completion=lambda y: y.roll((1, 1), dims=(2, 3))))
    check(WIC(6, 3, completion=nn.Conv2d(3, 3, 3, padding=1)))


def test_nothing_to_check():
    with pytest.raises(WICArgumentError, match="at least one WIC; Haar has none"):
        check(Haar())


class Noisy(nn.Dropout):
    def inverse(self, y):
        return y


class Averaged(nn.BatchNorm2d):
    def inverse(self, y):
        return y


class Cropped(nn.Identity):
    def inverse(self, y):
        return y[..., 1:]


class Forgetful(nn.Identity):
    def inverse(self, y):
        self.register_buffer("seen", y)
        return y


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Noisy(0.5), r"train\(\) and eval\(\) to agree"),
        (Averaged(5), r"to agree|state dict"),
        (Cropped(), r"shape \(1, 3, 4, 4\); got \(1, 3, 4, 3\)"),
        (Forgetful(), r"state dict; 0\.seen changed"),
    ],
)
def test_broken_models(block, message):
    x = torch.rand(1, 3, 4, 4)
    model = Chain(WIC(3, 5), block, WIC(5, 3)) if isinstance(block, Averaged) else Chain(block)
    with pytest.raises(ContractError, match=message):
        check_model(model, x)


def test_limit_says_what_the_contract_says():
    layer = WIC(7, 7)
    assert round_trip_limit(layer) == pytest.approx(8 * 2**-23, rel=1e-5)
    assert round_trip_limit(layer, torch.float64) == pytest.approx(15 * 2**-52, rel=1e-5)
    assert round_trip_limit(layer, torch.bfloat16) == pytest.approx(8 * 2**-7, rel=1e-5)
    with torch.no_grad():
        layer.weight[0] *= 50
    assert round_trip_limit(layer) == pytest.approx(50 * 8 * 2**-23, rel=1e-4)


def test_numerical_log_volume():
    x = torch.rand(3, 4, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(log_volume_numerical(Haar(), x), torch.zeros(3).double())
    expected = torch.full((3,), 16 * 3 * torch.tensor(2.0).log().item(), dtype=torch.float64)
    torch.testing.assert_close(log_volume_numerical(lambda x: 8 * x, x), expected)
    for name in ("widen", "narrow", "square"):
        layer = LAYERS[name]().double()
        with torch.no_grad():
            layer.weight.mul_(1 + torch.rand_like(layer.weight))
        x = torch.rand(2, layer.in_channels, 2, dtype=torch.float64)
        expected = (2 * layer.log_volume().detach()).expand(2)
        torch.testing.assert_close(log_volume_numerical(layer, x), expected)
    assert log_volume_numerical(AffineCoupling(4), torch.rand(1, 4, 2, 2)).abs() < 1e-5


def test_selftest(capsys):
    random = torch.random.get_rng_state()
    assert selftest() == 0
    lines = capsys.readouterr().out.splitlines()
    assert torch.equal(torch.random.get_rng_state(), random)
    assert lines[0].split() == ["layer", "dtype", "condition", "error", "limit", "digits"]
    assert "all contracts hold" in lines[-1]
    seconds = re.search(r"([\d.]+) s$", lines[-1])
    assert float(seconds[1]) < 20
    for kind in ("square", "widening", "narrowing", "learned", "gaussian", "rows 9", "network"):
        for dtype in ("float32", "float64"):
            assert any(kind in line and dtype in line for line in lines)
    for line in lines[1:-1]:
        condition, error, limit, digits = map(float, line.split()[-4:])
        assert error <= limit
        whole = 6.9 if "float32" in line else 15.7
        assert digits == pytest.approx(whole - math.log10(condition), abs=0.1)


def test_selftest_says_what_failed(capsys, monkeypatch):
    def broken(layer, spatial=None):
        raise ContractError("it is broken")

    monkeypatch.setattr(testing, "check_state", broken)
    assert selftest() == 1
    out = capsys.readouterr().out
    assert "FAILED  it is broken" in out
    assert re.search(r"\d+ failed; torch", out)


def test_errors_are_of_the_family():
    assert issubclass(ContractError, WICError)
    assert issubclass(ContractError, AssertionError)
    assert set(testing.__all__) >= {name for name in dir(testing) if name.startswith("check")}
