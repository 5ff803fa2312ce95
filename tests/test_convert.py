"""Networks that exist: every square 1x1 as a WIC with the same matrix, and a WIC where z was."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wic_layers
from wic_layers import WIC, WellPosed, swap_1x1
from wic_layers.blocks import Haar
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.errors import IllConditionedError, WICArgumentError, WICShapeError
from wic_layers.hosts.swap import _CONVERTERS, register_1x1

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def small(c_in, c_out):
    return DenseBlock(c_in, c_out, growth=4)


@pytest.fixture
def nf():
    return pytest.importorskip("normflows", reason="needs the extra normflows")


@pytest.fixture
def freia():
    return pytest.importorskip("FrEIA", reason="needs the extra freia")


def glow(nf, use_lu, channels=6, blocks=2):
    torch.manual_seed(1)
    flows = [nf.flows.GlowBlock(channels, 8, use_lu=use_lu) for _ in range(blocks)]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian((channels, 4, 4)), flows)
    x = torch.randn(8, channels, 4, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(3):  # away from an orthogonal start
        optimizer.zero_grad()
        model.forward_kld(x).backward()
        optimizer.step()
    return model, optimizer, x


@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
class TestNormflows:
    @pytest.mark.parametrize("use_lu", [True, False])
    def test_nothing_changes_but_the_class(self, nf, use_lu):
        model, _, x = glow(nf, use_lu)
        held = {id(parameter) for parameter in model.parameters()}
        log_prob, z = model.log_prob(x), model.inverse(x)
        back = model.forward(z)
        report = swap_1x1(model)
        assert [swap.names for swap in report] == [("flows.0.flows.1",), ("flows.1.flows.1",)]
        assert not any(isinstance(m, nf.flows.Invertible1x1Conv) for m in model.modules())
        torch.testing.assert_close(model.log_prob(x), log_prob, rtol=1e-5, atol=0)
        torch.testing.assert_close(model.inverse(x), z, **CLOSE)
        torch.testing.assert_close(model.forward(z), back, **CLOSE)
        assert {id(parameter) for parameter in model.parameters()} == held
        assert report.new_parameters == []
        assert "goes on as it is" in str(report)

    @pytest.mark.parametrize("use_lu", [True, False])
    def test_training_goes_on_as_if_nothing_had_happened(self, nf, use_lu):
        model, optimizer, x = glow(nf, use_lu)
        twin, other = copy.deepcopy((model, optimizer))
        swap_1x1(model)
        for network, steps in ((model, optimizer), (twin, other)):
            for _ in range(3):
                steps.zero_grad()
                network.forward_kld(x).backward()
                steps.step()
        torch.testing.assert_close(model.log_prob(x), twin.log_prob(x), rtol=1e-4, atol=1e-3)
        moved = (
            model.flows[0].flows[1].conv.weight - twin.flows[0].flows[1]._assemble_W()
            if (use_lu)
            else model.flows[0].flows[1].conv.weight - twin.flows[0].flows[1].W
        )
        assert moved.abs().max() < 1e-5

    def test_what_is_frozen_stays_frozen_and_modes_stay(self, nf):
        model, _, _ = glow(nf, use_lu=True)
        inner = model.flows[1].flows[1]
        inner.L.requires_grad_(False)
        inner.eval()
        swap_1x1(model)
        new = model.flows[1].flows[1]
        trained = [p.requires_grad for p in new.conv.parametrizations["weight"].parameters()]
        assert trained == [False, True, True]
        assert not new.training
        assert model.flows[0].flows[1].training

    def test_factors_keep_their_pivots_and_signs(self, nf):
        model, _, x = glow(nf, use_lu=True)
        layer = model.flows[0].flows[1]
        with torch.no_grad():  # as far from the start as long training goes
            layer.L.copy_(3 * torch.randn(6, 6).tril(-1))
            layer.sign_S.copy_(torch.tensor([1.0, -1, -1, 1, -1, 1]))
        log_prob, z = model.log_prob(x), model.inverse(x)
        swap_1x1(model)
        torch.testing.assert_close(model.log_prob(x), log_prob, rtol=1e-4, atol=0)
        torch.testing.assert_close(model.inverse(x), z, rtol=1e-4, atol=1e-4)

    def test_multiscale_and_float64(self, nf):
        flows = [[nf.flows.GlowBlock(12, 8, use_lu=False), nf.flows.Squeeze()]]
        q0 = [nf.distributions.DiagGaussian((12, 4, 4))]
        model = nf.MultiscaleFlow(q0, flows, [], class_cond=False).double()
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
        model.log_prob(x, None)
        expected = model.log_prob(x, None)
        swap_1x1(model)
        torch.testing.assert_close(model.log_prob(x, None), expected)

    def test_pivots_and_signs_are_those_of_the_old_layer(self, nf):
        for seed in range(6):
            torch.manual_seed(seed)
            model = nf.NormalizingFlow(None, [nf.flows.Invertible1x1Conv(5, use_lu=True)])
            with torch.no_grad():  # a factorisation of the kernel now takes other rows first
                model.flows[0].L.add_(3 * torch.randn(5, 5))
                model.flows[0].log_S.add_(0.3 * torch.randn(5))
            x = torch.randn(2, 5, 3, 3)
            z, log_det = model.flows[0].inverse(x)
            swap_1x1(model)
            torch.testing.assert_close(model.flows[0].inverse(x)[0], z, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(model.flows[0].inverse(x)[1], log_det.expand(2), **CLOSE)

    def test_a_subclass_is_left_alone(self, nf):
        class Other(nf.flows.Invertible1x1Conv):
            """May do something else."""

        with pytest.raises(WICArgumentError, match="has none"):
            swap_1x1(nn.Sequential(Other(3)))

    def test_a_singular_kernel_is_named_and_nothing_is_replaced(self, nf):
        model, _, _ = glow(nf, use_lu=False)
        with torch.no_grad():
            model.flows[1].flows[1].W[0] = 0
        before = list(model.modules())
        with pytest.raises(IllConditionedError, match=r"flows\.1\.flows\.1: .*condition number"):
            swap_1x1(model)
        assert list(model.modules()) == before


class TestFrEIA:
    def model(self, freia):
        import FrEIA.framework as Ff
        import FrEIA.modules as Fm

        torch.manual_seed(2)
        source = Ff.InputNode(5, 4, 4, name="source")
        first = Ff.Node(source, Fm.Fixed1x1Conv, {"M": torch.randn(5, 5)}, name="first")
        last = Ff.Node(first, Fm.Fixed1x1Conv, {"M": torch.randn(5, 5)}, name="last")
        return Ff.GraphINN([source, first, last, Ff.OutputNode(last)])

    def test_node_and_module_list_are_replaced(self, freia):
        model = self.model(freia)
        x = torch.randn(2, 5, 4, 4)
        y, log_det = model(x)
        back, log_det_back = model(y, rev=True)
        report = swap_1x1(model)
        assert [swap.names for swap in report] == [("module_list.0",), ("module_list.1",)]
        node = model.get_node_by_name("first")
        assert node.module is model.module_list[0]
        assert node.module is report[0].new
        assert "WIC" in str(node)
        for new, old in zip(model(x), (y, log_det), strict=True):
            torch.testing.assert_close(new, old, **CLOSE)
        for new, old in zip(model(y, rev=True), (back, log_det_back), strict=True):
            torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4)

    def test_a_fixed_kernel_stays_fixed_until_it_is_asked_to_train(self, freia):
        model = self.model(freia)
        report = swap_1x1(model)
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert report.new_parameters == []
        assert "not trained, as before" in str(report)
        model.requires_grad_(True)
        assert len(report.new_parameters) == 2
        assert "add_param_group" in str(report)

    def test_a_subclass_is_left_alone(self, freia):
        import FrEIA.modules as Fm

        class Other(Fm.Fixed1x1Conv):
            """May do something else."""

        with pytest.raises(WICArgumentError, match="has none"):
            swap_1x1(nn.Sequential(Other([(3, 4, 4)], M=torch.eye(3))))

    def test_a_sequence(self, freia):
        import FrEIA.framework as Ff
        import FrEIA.modules as Fm

        model = Ff.SequenceINN(3, 4, 4)
        model.append(Fm.Fixed1x1Conv, M=torch.randn(3, 3))
        x = torch.randn(2, 3, 4, 4)
        y, log_det = model(x)
        swap_1x1(model)
        torch.testing.assert_close(model(x)[0], y, **CLOSE)
        torch.testing.assert_close(model(x)[1], log_det.expand(2), **CLOSE)


class InvertibleConv1x1(nn.Module):
    """As IICNet's code has it: a matrix, and an inverse at every reverse call."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])

    def forward(self, input, rev=False):
        weight = torch.inverse(self.weight.double()).float() if rev else self.weight
        return F.conv2d(input, weight[:, :, None, None])


class Downscaling(nn.Module):
    """Runs its operations as IICNet and IRN do: ``op.forward(x, rev)``, by position."""

    def __init__(self):
        super().__init__()
        self.operations = nn.ModuleList([Haar(), InvertibleConv1x1(12)])

    def forward(self, x, rev=False):
        for operation in reversed(self.operations) if rev else self.operations:
            x = operation.forward(x, rev)
        return x


def test_iicnets_layer():
    model = Downscaling()
    weight = model.operations[1].weight
    x = torch.randn(2, 3, 8, 8)
    y = model(x)
    report = swap_1x1(model)
    assert model.operations[1].weight is weight
    assert list(model.state_dict()) == ["operations.1.weight"]
    torch.testing.assert_close(model(x), y, **CLOSE)
    torch.testing.assert_close(model(y, True), x, **CLOSE)
    assert str(report).splitlines()[1] == (
        "  operations.1: InvertibleConv1x1 -> WIC(12, 12); same Parameter objects"
    )


class Glowlike(nn.Module):
    """Somebody's own: with a log-determinant, and called otherwise."""

    def __init__(self, channels):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(channels, channels, 1, 1))

    def forward(self, x, reverse=False):
        matrix = self.kernel.flatten(1)
        sign = -1 if reverse else 1
        matrix = matrix.inverse() if reverse else matrix
        log_det = sign * torch.slogdet(self.kernel.flatten(1))[1] * x[0, 0].numel()
        return F.conv2d(x, matrix[:, :, None, None]), log_det


class Swapped(nn.Module):
    def __init__(self, kernel):
        super().__init__()
        self.wic = WIC.from_kernel(kernel.flatten(1))

    def forward(self, x, reverse=False):
        log_det = self.wic.log_volume() * x[0, 0].numel()
        return (self.wic.inverse(x), -log_det) if reverse else (self.wic(x), log_det)


@pytest.fixture
def registered():
    register_1x1(Glowlike, lambda layer: Swapped(layer.kernel))
    yield
    del _CONVERTERS[Glowlike]


@pytest.mark.usefixtures("registered")
def test_a_registered_class_shared_between_two_places():
    layer = Glowlike(4)
    model = nn.ModuleDict({"a": nn.Sequential(layer), "b": nn.Sequential(layer)})
    x = torch.randn(2, 4, 3, 3)
    expected = [*layer(x), *layer(x, reverse=True)]
    report = swap_1x1(model)
    assert len(report) == 1
    assert report[0].names == ("a.0", "b.0")
    assert model["a"][0] is model["b"][0]
    found = [*model["a"][0](x), *model["a"][0](x, reverse=True)]
    for new, old in zip(found, expected, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4)
    assert report.new_parameters == [model["a"][0].wic.weight]
    assert "Give an existing optimizer a.0.wic.weight" in str(report)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    optimizer.add_param_group({"params": report.new_parameters})


def test_nothing_to_replace_and_other_mistakes():
    with pytest.raises(WICArgumentError, match=r"Sequential has none that.*register_1x1"):
        swap_1x1(nn.Sequential(nn.Conv2d(3, 3, 1)))
    with pytest.raises(WICArgumentError, match="InvertibleConv1x1 is one itself"):
        swap_1x1(InvertibleConv1x1(3))
    with pytest.raises(WICArgumentError, match=r"subclass of torch\.nn\.Module; got 3"):
        register_1x1(3, lambda layer: layer)


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda layer: nn.Identity(), "a module with a WIC in it; got Identity"),
        (lambda layer: WIC(4, 3), "expected a square WIC in place of Glowlike; got 4 -> 3"),
    ],
)
def test_a_registered_function_that_gives_no_square_wic(convert, message):
    register_1x1(Glowlike, convert)
    try:
        with pytest.raises((WICArgumentError, WICShapeError), match=message):
            swap_1x1(nn.Sequential(Glowlike(4)))
    finally:
        del _CONVERTERS[Glowlike]


def test_a_class_of_that_name_that_is_called_otherwise_is_left_alone():
    class InvertibleConv1x1(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.eye(3))

        def forward(self, input, logdet=None, reverse=False):
            return input, logdet

    with pytest.raises(WICArgumentError, match="has none"):
        swap_1x1(nn.Sequential(InvertibleConv1x1()))


def test_a_class_of_that_name_whose_matrix_is_not_square_is_left_alone():
    layer = InvertibleConv1x1(4)
    layer.weight = nn.Parameter(torch.randn(3, 4))
    with pytest.raises(WICArgumentError, match="has none"):
        swap_1x1(nn.Sequential(layer))


def test_the_names_at_the_top():
    assert wic_layers.WellPosed is WellPosed
    assert wic_layers.swap_1x1 is swap_1x1
