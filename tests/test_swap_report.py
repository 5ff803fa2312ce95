"""What swap_1x1 refuses, what its report says, and what users register."""

import copy
import inspect
import re

import numpy as np
import pytest
import torch
from standins.flows.running_logdet import InvertibleConv1x1
from standins.flows.speech import WaveGlowConv
from swapping import batch, built, moved, named, require_close
from torch import nn

from wic_layers import WIC, det_loss, swap_1x1
from wic_layers.errors import IllConditionedError, WICArgumentError
from wic_layers.hosts import register_1x1, unswap_1x1
from wic_layers.hosts.answering import kernel_of, spec_of
from wic_layers.hosts.calls import Call, Flag, Pair, entry_of
from wic_layers.hosts.swap import _REGISTERED
from wic_layers.testing import check


@pytest.fixture(autouse=True)
def _no_registrations_from_here():
    before = dict(_REGISTERED)
    yield
    _REGISTERED.clear()
    _REGISTERED.update(before)


class ForSquares(nn.Module):
    """Takes the last side twice for its log-determinant."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4) + 0.2 * torch.randn(4, 4))

    def forward(self, x, reverse=False):
        weight = self.weight.inverse() if reverse else self.weight
        volume = torch.slogdet(self.weight)[1] * x.shape[-1] ** 2
        y = nn.functional.conv2d(x, weight[..., None, None])
        return (y, -volume) if reverse else (y, volume)


def test_a_log_determinant_that_is_right_for_squares_alone():
    torch.manual_seed(0)
    model = nn.Sequential(ForSquares())
    square, wide = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 3, 5)
    y, log_det = model[0](square)
    note = r"its own log-determinant \(forward\) is off by .* where the sides differ"
    report = swap_1x1(model)
    assert "0: ForSquares, WIC(4, 4); " in str(report)
    assert re.search(note, str(report))
    for new, old in zip(model[0](square), (y, log_det), strict=True):
        require_close(new, old)
    expected = torch.slogdet(model[0].weight)[1] * 15
    torch.testing.assert_close(model[0](wide)[1], expected)


class TestRefusals:
    def test_nothing_there(self):
        with pytest.raises(WICArgumentError, match=r"Sequential has none that.*register_1x1\(You"):
            swap_1x1(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Linear(3, 3)))

    def test_a_singular_kernel_is_named_and_nothing_is_changed(self):
        case = named("(x, logdet, reverse), free")
        model = built(case)
        kinds = [type(module) for module in model.modules()]
        with torch.no_grad():
            model.get_submodule("layers.1.invconv").weight[0] = 0
        with pytest.raises(
            IllConditionedError, match=r"layers\.1\.invconv: .*condition number \d"
        ):
            swap_1x1(model)
        assert [type(module) for module in model.modules()] == kinds

    def test_a_kernel_that_is_no_class(self):
        with pytest.raises(WICArgumentError, match=r"subclass of torch\.nn\.Module; got 3"):
            register_1x1(3, lambda layer: layer)
        with pytest.raises(WICArgumentError, match="kernel as a function of the layer; got 3"):
            register_1x1(nn.Linear, 3)
        with pytest.raises(
            WICArgumentError, match=r"call as a wic_layers.hosts.calls.Call; got 'm"
        ):
            register_1x1(nn.Linear, lambda layer: layer.weight, "mix")

    def test_a_method_that_was_taken_before(self):
        case = named("(x, logdet, reverse), free")
        model = built(case)
        model.layers[0].mix = model.layers[0].invconv.forward
        report = swap_1x1(model)
        assert [swap.names for swap in report] == [("layers.1.invconv",)]
        (left,) = report.left
        assert left.names == ("layers.0.invconv",)
        assert "layers.0.mix is a bound method of it" in left.reason
        assert "a function there that calls the layer" in left.advice
        assert spec_of(model.layers[0].invconv) is None
        assert "Left as they are:\n  layers.0.invconv: layers.0.mix is" in str(report)

    def test_freias_sizes_name_the_shell(self):
        with pytest.raises(
            WICArgumentError, match=r"got \[\(12, 8, 8\)\].* wic_layers\.freia\.WIC"
        ):
            WIC([(12, 8, 8)], out_channels=16)
        framework = pytest.importorskip("FrEIA.framework", reason="needs the extra freia")
        with pytest.raises(WICArgumentError, match=r"wic_layers\.freia\.WIC"):
            framework.SequenceINN(12, 8, 8).append(WIC, out_channels=16)
        with pytest.raises(WICArgumentError, match=r"as an int of at least 1; got 0\.$"):
            WIC(0, 3)


class Plain(nn.Module):
    """A base of layers that nothing recognises: their methods have names of their own."""

    def __init__(self, kernel=None):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 3) if kernel is None else kernel)

    def run(self, x, matrix):
        return torch.einsum("ij,bjhw->bihw", matrix, x)


class Mix(Plain):
    def mix(self, x):
        return self.run(x, self.w)

    def unmix(self, y):
        return self.run(y, self.w.inverse())


class Turn(Plain):
    def turn(self, x, upside_down=False):
        return self.run(x, self.w.inverse() if upside_down else self.w)


class Directed(Call):
    """A way of being called of one's own."""

    def entries(self, kind):
        return tuple(
            entry
            for method, rev in (("mix", False), ("unmix", True))
            if (entry := entry_of(kind, method, rev=rev)) is not None
        )


class Called(nn.Module):
    """Recognised by its call, but not its kernel's place."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 3))

    def forward(self, x, reverse=False):
        matrix = self.w.mT.inverse() if reverse else self.w.mT
        return torch.einsum("ij,bjhw->bihw", matrix, x)


class TestRegistered:
    @pytest.mark.parametrize(
        ("kind", "call", "there", "back"),
        [
            (Mix, Pair("mix", "unmix"), Mix.mix, Mix.unmix),
            (Mix, Directed(), Mix.mix, Mix.unmix),
            (Turn, Flag("turn", "upside_down"), Turn.turn, lambda m, x: m.turn(x, True)),
            (Called, None, Called.forward, lambda m, x: m(x, reverse=True)),
        ],
    )
    def test_it_answers_by_the_registered_kernel(self, kind, call, there, back, monkeypatch):
        model = nn.ModuleList([kind()])
        twin, x = copy.deepcopy(model), torch.randn(2, 3, 4, 4)
        calls = []

        def kernel(layer):
            calls.append(layer)
            return layer.w.mT if kind is Called else layer.w

        register_1x1(kind, kernel, call)
        report = swap_1x1(model)
        assert str(report).splitlines()[1] == f"  0: {kind.__name__}, WIC(3, 3)"
        calls.clear()
        name = there.__name__
        found = getattr(model[0], name)(x)
        assert calls == [model[0]]
        require_close(found, there(twin[0], x))
        # the owner's class is not asked: only the object's own methods are
        assert type(model[0]).__dict__.keys() & {"mix", "turn", "forward"}
        backwards = {"mix": "unmix"}.get(name)
        new = getattr(model[0], backwards)(found) if backwards else back(model[0], found)
        require_close(new, x, 1e-4)
        loss = det_loss(model)
        loss.backward()
        assert model[0].w.grad.abs().max() > 0

    def test_a_transposed_kernel_is_named(self):
        register_1x1(Mix, lambda layer: layer.w.mT, Pair("mix", "unmix"))
        with pytest.raises(
            WICArgumentError, match=r"0: the registered kernel is the transpose of"
        ):
            swap_1x1(nn.Sequential(Mix()))

    def test_a_wrong_kernel_is_refused_with_its_size(self):
        model = nn.Sequential(Mix(torch.eye(3)))
        register_1x1(Mix, lambda layer: 3 * layer.w, Pair("mix", "unmix"))
        with pytest.raises(WICArgumentError, match=r"0: .* is not the matrix .*off by [1-4]"):
            swap_1x1(model)
        register_1x1(Mix, lambda layer: layer.w[:2, :2], Pair("mix", "unmix"))
        with pytest.raises(WICArgumentError, match="has none"):
            swap_1x1(model)
        assert type(model[0]) is Mix

    def test_a_kernel_that_is_right_at_the_start_alone(self):
        start = torch.randn(3, 3)
        register_1x1(Mix, lambda layer: start.to(layer.w), Pair("mix", "unmix"))
        with pytest.raises(WICArgumentError, match="is not the matrix that its forward applies"):
            swap_1x1(nn.Sequential(Mix(start.clone())))

    def test_subclasses_are_not_meant(self):
        class Other(Mix):
            """May do something else."""

        register_1x1(Mix, lambda layer: layer.w, Pair("mix", "unmix"))
        with pytest.raises(WICArgumentError, match="has none"):
            swap_1x1(nn.Sequential(Other()))


class Reversed(nn.Module):
    """A fixed permutation that returns no log-determinant."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("order", torch.randperm(channels))

    def forward(self, x, rev=False):
        return x[:, self.order.argsort() if rev else self.order]


FIXED = ("(x,), rev, jac, fixed with a bias, vectors", "(inputs, cond_inputs, mode), free")


class TestTrainFixed:
    @pytest.mark.parametrize("name", FIXED)
    def test_permutations_get_a_kernel_to_train(self, name):
        case = named(name)
        model, twin, x = built(case), built(case), batch(case)
        moved(case, model).eval()
        moved(case, twin).eval()
        before = list(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        report = swap_1x1(model, train_fixed=True)
        assert [swap.names[0] for swap in report if swap.new_parameters] == list(case.left)
        new = [swap for swap in report if swap.new_parameters]
        assert [swap.new_parameters[0][0] for swap in new] == ["kernel_1x1"] * len(new)
        assert str(report).count("now trains kernel_1x1") == len(new)
        assert 'optimizer.add_param_group({"params": report.new_parameters})' in str(report)
        assert set(model.state_dict()) - set(before) == {f"{n}.kernel_1x1" for n in case.left}
        z, log_det = case.forward(model, x)
        expected, expected_log_det = case.forward(twin, x)
        require_close(z, expected)
        require_close(log_det, expected_log_det)
        optimizer.add_param_group({"params": report.new_parameters})
        weights = torch.randn(z.shape, generator=torch.Generator().manual_seed(5))
        ((z * weights).sum() - 0.1 * log_det.sum()).backward()
        kernels = [kernel_of(swap.layer).weight.clone() for swap in new]
        optimizer.step()
        for swap, kernel in zip(new, kernels, strict=True):
            assert not torch.equal(swap.wic.weight, kernel)
            assert swap.layer.kernel_1x1 is swap.new_parameters[0][1]
        z, log_det = case.forward(model, x)
        require_close(case.inverse(model, z).view_as(x), x, 1e-4)

        def flat(values):
            return case.forward(model, values.view_as(x))[0].flatten()

        jacobian = torch.autograd.functional.jacobian(flat, x.flatten())
        expected = torch.slogdet(jacobian.double())[1].float()
        require_close(log_det.flatten().expand(len(x)).sum(), expected, 1e-4)

    def test_without_it_they_are_left_with_the_line_to_write(self):
        case = named("(inputs, cond_inputs, mode), free")
        report = swap_1x1(built(case))
        (left,) = report.left
        assert left.names == ("3",)
        assert left.reason == "a fixed permutation, for which an index is faster than a kernel"
        assert "swap_1x1(model, train_fixed=True)" in left.advice
        assert report.new_parameters == []

    def test_one_without_a_log_det_is_left(self):
        model = nn.ModuleList([Reversed(5), InvertibleConv1x1(5)])
        report = swap_1x1(model, train_fixed=True)
        assert [swap.names for swap in report] == [("1",)]
        assert "returns no log-determinant, which a trained kernel needs" in report.left[0].reason
        assert report.left[0].names == ("0",)
        assert not any("kernel_1x1" in name for name, _ in model.named_parameters())

    def test_a_fixed_kernel_trains_where_it_is_asked_to(self):
        case = named("(x,), rev, jac, fixed")
        for train_fixed in (False, True):
            model = built(case)
            report = swap_1x1(model, train_fixed=train_fixed)
            layers = [kernel_of(swap.layer).host for swap in report]
            own = [p for layer in layers for p in layer.parameters()]
            assert [p.requires_grad for p in own[:1]] == [train_fixed][: len(own[:1])]
            assert len(report.new_parameters) == (len(layers) if train_fixed and own else 0)

    def test_unswapping_leaves_the_permutation(self):
        case = named(FIXED[0])
        model, twin, x = built(case), built(case), batch(case)
        swap_1x1(model, train_fixed=True)
        unswap_1x1(model)
        assert torch.equal(case.forward(model, x)[0], case.forward(twin, x)[0])


class TestTheReport:
    def test_it_names_what_changed_and_where_else_it_is(self):
        case = named("(x, logdet, reverse), one layer in two places")
        model = built(case)
        report = swap_1x1(model)
        assert len(report) == 1
        assert report[0].names == ("layers.0.invconv", "layers.1.invconv")
        assert report[0].layer is model.layers[0].invconv is model.layers[1].invconv
        assert report[0].wic is kernel_of(report[0].layer)
        n = report[0].wic.in_channels
        assert (
            str(report)
            == repr(report)
            == (
                "A WIC answers for 1 invertible 1x1 convolution:\n"
                f"  layers.0.invconv, layers.1.invconv: InvertibleConv1x1, WIC({n}, {n})\n"
                "Parameters, their names and checkpoints are what they were."
            )
        )

    def test_a_single_layer(self):
        report = swap_1x1(InvertibleConv1x1(3))
        assert "\n  (model): InvertibleConv1x1, WIC(3, 3)\n" in str(report)
        assert f"wic={3}" in repr(report[0].layer)

    def test_a_host_whose_log_det_is_nan_counts_and_its_error_is_named(self):
        layer = WaveGlowConv(4)
        with torch.no_grad():
            layer.conv.weight[0] *= -1
        twin, x = copy.deepcopy(layer), torch.randn(2, 4, 5)
        (swap,) = swap_1x1(nn.Sequential(layer))
        assert "its own log-determinant (forward) is not finite" in swap.note
        assert swap.note in str(swap)
        y, log_det = layer(x)
        theirs, nan = twin(x)
        require_close(y, theirs)
        assert nan.isnan()
        require_close(log_det, torch.zeros(()))  # orthogonal
        with torch.no_grad():
            layer.conv.weight *= 2
        require_close(layer(x)[1].double(), torch.tensor(10 * 4 * np.log(2)), 1e-5)

    def test_a_way_back_that_is_wrong_is_refused_with_its_size(self):
        class Approximate(InvertibleConv1x1):
            def get_weight(self, input, reverse):
                weight, log_det = super().get_weight(input, reverse)
                return (1.5 * weight if reverse else weight), log_det

        with pytest.raises(WICArgumentError, match=r"way back is no inverse.*off by 0\.5"):
            swap_1x1(nn.Sequential(Approximate(3)))

    def test_a_log_det_that_is_wrong_is_refused(self):
        class Wrong(InvertibleConv1x1):
            def get_weight(self, input, reverse):
                weight, log_det = super().get_weight(input, reverse)
                return weight, 3 * log_det

        layer = Wrong(3)
        with torch.no_grad():
            layer.weight *= 2
        with pytest.raises(WICArgumentError, match="log-determinant is not log"):
            swap_1x1(nn.Sequential(layer))


class TestWhatIsTold:
    def test_checks_name_the_owners_layers(self):
        case = named("forward, reverse(y), LU")
        model = moved(case, built(case))
        swap_1x1(model)
        found = check(model)
        assert list(found) == list(case.layers)
        assert all(trip.error < trip.limit for trip in found.values())
        with torch.no_grad():
            model.flows[1].invconv.w_s[0] = torch.nan
        with pytest.raises(IllConditionedError, match=r"flows\.1\.invconv: .*not finite"):
            check(model)

    def test_training_and_inspection_name_them(self):
        from wic_layers.models import WINNaive
        from wic_layers.models.inspection import inspect as inspected
        from wic_layers.training.diagnosis import diagnose

        case = named("(x, logdet, reverse), free")
        model = built(case)
        swap_1x1(model)
        with torch.no_grad():
            model.layers[1].invconv.weight[0] = 1e-12
        assert diagnose(model).startswith("layers.1.invconv (condition number")
        network = WINNaive.from_preset("rescaling-x2-naive-tiny")
        before = inspected(network).conditions
        network[0].add_module("flow", built(case))
        swap_1x1(network)
        after = inspected(network).conditions
        assert list(after) == ["0.flow.layers.0.invconv", "0.flow.layers.1.invconv", *before]
        require_close(torch.tensor(after["0.flow.layers.0.invconv"]), torch.ones(()), 1e-3)

    def test_the_signature_is_the_owners(self):
        layer = InvertibleConv1x1(3)
        before = inspect.signature(layer.forward)
        swap_1x1(layer)
        assert inspect.signature(layer.forward) == before
        with pytest.raises(TypeError, match="unexpected keyword argument 'revers'"):
            layer(torch.randn(1, 3, 2, 2), revers=True)
