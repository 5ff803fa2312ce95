"""swap_1x1 on normflows and FrEIA themselves: the same likelihoods, and training that goes on."""

import copy

import pytest
import torch
import torch.nn.functional as F
from swapping import require_close
from torch import nn

import wic_layers
from wic_layers import WellPosed, swap_1x1
from wic_layers.blocks import Haar
from wic_layers.errors import IllConditionedError, WICArgumentError
from wic_layers.hosts.answering import kernel_of, spec_of

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


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
    def test_nothing_changes_but_who_answers(self, nf, use_lu):
        model, _, x = glow(nf, use_lu)
        parameters, keys = list(model.parameters()), list(model.state_dict())
        log_prob, z = model.log_prob(x), model.inverse(x)
        back = model.forward(z)
        report = swap_1x1(model)
        assert [swap.names for swap in report] == [("flows.0.flows.1",), ("flows.1.flows.1",)]
        assert report.left == ()
        for swap in report:
            assert isinstance(swap.layer, nf.flows.Invertible1x1Conv)
            assert spec_of(swap.layer) is not None
        torch.testing.assert_close(model.log_prob(x), log_prob, rtol=1e-5, atol=0)
        torch.testing.assert_close(model.inverse(x), z, **CLOSE)
        torch.testing.assert_close(model.forward(z), back, **CLOSE)
        pairs = zip(model.parameters(), parameters, strict=True)
        assert all(new is old for new, old in pairs)
        assert list(model.state_dict()) == keys

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
        for new, old in zip(model.parameters(), twin.parameters(), strict=True):
            require_close(new, old)
        torch.testing.assert_close(model.log_prob(x), twin.log_prob(x), rtol=1e-5, atol=1e-4)

    def test_what_is_frozen_stays_frozen_and_modes_stay(self, nf):
        model, _, _ = glow(nf, use_lu=True)
        inner = model.flows[1].flows[1]
        inner.L.requires_grad_(False)
        inner.eval()
        swap_1x1(model)
        assert [p.requires_grad for p in inner.parameters()].count(False) == 1
        assert not inner.training
        assert model.flows[0].flows[1].training

    def test_multiscale_and_float64(self, nf):
        flows = [[nf.flows.GlowBlock(12, 8, use_lu=False), nf.flows.Squeeze()]]
        q0 = [nf.distributions.DiagGaussian((12, 4, 4))]
        model = nf.MultiscaleFlow(q0, flows, [], class_cond=False).double()
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
        model.log_prob(x, None)
        expected = model.log_prob(x, None)
        swap_1x1(model)
        torch.testing.assert_close(model.log_prob(x, None), expected)

    def test_any_pivots_and_signs(self, nf):
        for seed in range(6):
            torch.manual_seed(seed)
            model = nf.NormalizingFlow(None, [nf.flows.Invertible1x1Conv(5, use_lu=True)])
            with torch.no_grad():  # a factorisation of the kernel now takes other rows first
                model.flows[0].L.add_(3 * torch.randn(5, 5))
                model.flows[0].log_S.add_(0.3 * torch.randn(5))
                model.flows[0].sign_S.copy_(torch.tensor([1.0, -1, -1, 1, -1]))
            x = torch.randn(2, 5, 3, 3)
            z, log_det = model.flows[0].inverse(x)
            swap_1x1(model)
            torch.testing.assert_close(model.flows[0].inverse(x)[0], z, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(model.flows[0].inverse(x)[1], log_det, **CLOSE)

    def test_a_singular_kernel_is_named_and_nothing_is_changed(self, nf):
        model, _, _ = glow(nf, use_lu=False)
        with torch.no_grad():
            model.flows[1].flows[1].W[0] = 0
        kinds = [type(module) for module in model.modules()]
        with pytest.raises(IllConditionedError, match=r"flows\.1\.flows\.1: .*an inverse"):
            swap_1x1(model)
        assert [type(module) for module in model.modules()] == kinds


class TestFrEIA:
    def model(self, freia):
        import FrEIA.framework as Ff
        import FrEIA.modules as Fm

        torch.manual_seed(2)
        source = Ff.InputNode(5, 4, 4, name="source")
        first = Ff.Node(source, Fm.Fixed1x1Conv, {"M": torch.randn(5, 5)}, name="first")
        last = Ff.Node(first, Fm.Fixed1x1Conv, {"M": torch.randn(5, 5)}, name="last")
        return Ff.GraphINN([source, first, last, Ff.OutputNode(last)])

    def test_a_graph(self, freia):
        import FrEIA.modules as Fm

        model = self.model(freia)
        x = torch.randn(2, 5, 4, 4)
        y, log_det = model(x)
        back, log_det_back = model(y, rev=True)
        report = swap_1x1(model)
        assert [swap.names for swap in report] == [("module_list.0",), ("module_list.1",)]
        node = model.get_node_by_name("first")
        assert node.module is model.module_list[0] is report[0].layer
        assert isinstance(node.module, Fm.Fixed1x1Conv)
        torch.testing.assert_close(model(x)[0], y, **CLOSE)
        torch.testing.assert_close(model(x)[1], log_det.expand_as(model(x)[1]), **CLOSE)
        torch.testing.assert_close(model(y, rev=True)[0], back, rtol=1e-4, atol=1e-4)
        found = model(y, rev=True)[1]
        torch.testing.assert_close(found, log_det_back.expand_as(found), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("train_fixed", [False, True])
    def test_a_fixed_kernel_stays_fixed_until_it_is_asked_to_train(self, freia, train_fixed):
        model = self.model(freia)
        report = swap_1x1(model, train_fixed=train_fixed)
        trained = [p for p in model.parameters() if p.requires_grad]
        assert len(trained) == len(report.new_parameters) == 2 * train_fixed
        assert ("add_param_group" in str(report)) == train_fixed
        if train_fixed:
            x = torch.randn(2, 5, 4, 4)
            (model(x)[0].square().mean() - model(x)[1].mean()).backward()
            assert all(p.grad.abs().max() > 0 for p in trained)

    def test_a_sequence(self, freia):
        import FrEIA.framework as Ff
        import FrEIA.modules as Fm

        model = Ff.SequenceINN(3, 4, 4)
        model.append(Fm.Fixed1x1Conv, M=torch.randn(3, 3))
        x = torch.randn(2, 3, 4, 4)
        y, log_det = model(x)
        swap_1x1(model)
        torch.testing.assert_close(model(x)[0], y, **CLOSE)
        torch.testing.assert_close(model(x)[1], log_det.expand_as(model(x)[1]), **CLOSE)


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


def test_iicnets_layer_between_our_blocks():
    model = Downscaling()
    weight = model.operations[1].weight
    x = torch.randn(2, 3, 8, 8)
    y = model(x)
    report = swap_1x1(model)
    assert model.operations[1].weight is weight
    assert list(model.state_dict()) == ["operations.1.weight"]
    torch.testing.assert_close(model(x), y, **CLOSE)
    torch.testing.assert_close(model(y, True), x, **CLOSE)
    assert str(report).splitlines()[1] == "  operations.1: InvertibleConv1x1, WIC(12, 12)"
    assert kernel_of(model.operations[1]).weight.data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 3)])
def test_what_is_called_like_one_and_holds_no_square_matrix_is_left_alone(shape):
    layer = InvertibleConv1x1(4)
    layer.weight = nn.Parameter(torch.randn(shape))
    with pytest.raises(WICArgumentError, match="has none"):
        swap_1x1(nn.Sequential(layer))


def test_the_names_at_the_top():
    assert wic_layers.WellPosed is WellPosed
    assert wic_layers.swap_1x1 is swap_1x1
