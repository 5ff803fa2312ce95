"""normflows flows: the framework's contracts, and what log_prob means for every kernel."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("normflows", reason="needs the extra normflows")
import normflows as nf

from wic_layers import WIC as Layer
from wic_layers.errors import ContractError, WICArgumentError, WICShapeError
from wic_layers.injective import log_prob_on_manifold
from wic_layers.normflows import WIC
from wic_layers.testing import check_density, log_volume_numerical

SIZES = [(), (5,), (3, 2), (1, 1), (2, 1, 2)]


def gaussian(*shape):
    return nf.distributions.DiagGaussian(shape, trainable=False)


def test_the_newcomer_story():
    x = torch.randn(4, 12, 8, 8)
    flow = WIC(in_channels=12, out_channels=12)
    theirs = nf.flows.Invertible1x1Conv(12)
    with torch.no_grad():
        theirs.W.copy_(1.1 * flow.conv.weight)
        flow.conv.weight.mul_(1.1)
    q0 = gaussian(12, 8, 8)
    ours = nf.NormalizingFlow(q0, [flow]).log_prob(x)
    assert torch.isfinite(ours).all()
    torch.testing.assert_close(
        ours, nf.NormalizingFlow(q0, [theirs]).log_prob(x), rtol=1e-5, atol=0
    )
    with pytest.raises(WICArgumentError, match='log_det="volume"'):
        WIC(in_channels=12, out_channels=48)


@pytest.mark.parametrize("parametrization", ["free", "orthogonal", "lu"])
@pytest.mark.parametrize("sizes", SIZES)
def test_square_flows_are_exact_both_ways(sizes, parametrization):
    flow = WIC(in_channels=4, out_channels=4, parametrization=parametrization, dtype=torch.float64)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    z = torch.randn(3, 4, *sizes, dtype=torch.float64)
    x, log_det = flow(z)
    back, log_det_back = flow.inverse(x)
    assert x.dtype == z.dtype
    assert x.shape == z.shape
    assert log_det.shape == (3,)
    torch.testing.assert_close(back, z)
    assert torch.equal(log_det, -log_det_back)
    torch.testing.assert_close(log_det, log_volume_numerical(lambda z: flow(z)[0], z))


def test_the_density_on_the_manifold_integrates_to_one_and_is_that_of_the_samples():
    flow = WIC(in_channels=3, out_channels=2, dtype=torch.float64)
    with torch.no_grad():
        flow.conv.weight.copy_(
            torch.tensor([[0.9, 0.3, -0.2], [0.1, 1.2, 0.4]], dtype=torch.float64)
        )
    q0 = gaussian(2).double()
    model = nf.NormalizingFlow(q0, [flow])
    # points of the plane that the samples lie in, by an orthonormal basis of it
    basis = torch.linalg.qr(flow.conv.weight.detach().T)[0]
    step = 0.05
    ticks = torch.arange(-8, 8, step, dtype=torch.float64)
    plane = torch.cartesian_prod(ticks, ticks) @ basis.T
    with torch.no_grad():
        density = model.log_prob(plane).exp()
        samples, log_q = model.sample(2000)
        torch.testing.assert_close(model.log_prob(samples), log_q)
    assert density.sum().item() * step**2 == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(samples, samples @ basis @ basis.T)
    # and the chance of a half plane is that of the samples in it
    side = plane @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) > 0.7
    sampled = (samples @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) > 0.7).double()
    assert (density * side).sum().item() * step**2 == pytest.approx(
        sampled.mean().item(), abs=4 * sampled.std().item() / math.sqrt(2000)
    )


def bent(size):
    net = nf.nets.MLP([(size + 1) // 2, 8, 2 * (size // 2)], init_zeros=False)
    return [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(size, mode="swap")]


def test_the_density_is_exact_where_the_narrowing_comes_first_on_the_datas_side():
    torch.manual_seed(0)
    q0 = gaussian(2)
    exact = nf.NormalizingFlow(q0, [*bent(2), WIC(in_channels=3, out_channels=2)]).double()
    assert check_density(exact, (2,), points=101) == pytest.approx(1, abs=1e-3)
    turned = WIC(in_channels=3, out_channels=3, parametrization="orthogonal")
    isometric = nf.NormalizingFlow(q0, [*exact.flows, turned]).double()
    assert check_density(isometric, (2,), points=101) == pytest.approx(1, abs=1e-3)
    # the couplings of the data bend the plane, which no log-determinant of theirs tells
    bends = nf.NormalizingFlow(q0, [*bent(2), WIC(in_channels=3, out_channels=2), *bent(3)])
    bends.double()
    with pytest.raises(ContractError, match="NormalizingFlow: expected a density"):
        check_density(bends, (2,), points=101)

    def whole(x):
        return log_prob_on_manifold(bends.forward, bends.inverse(x), q0.log_prob)

    assert check_density(bends, (2,), points=101, log_prob=whole) == pytest.approx(1, abs=1e-3)


def test_narrower_images_have_the_minimum_norm_inverse():
    flow = WIC(in_channels=12, out_channels=3)
    assert flow.conv.rows == 3
    x, log_det = flow(torch.randn(2, 3, 4, 4))
    z, log_det_back = flow.inverse(x)
    torch.testing.assert_close(flow(z)[0], x, atol=1e-5, rtol=1e-5)
    assert torch.equal(log_det, -log_det_back)
    torch.testing.assert_close(
        log_det_back, log_volume_numerical(lambda x: flow.inverse(x)[0], x), atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ({"in_channels": 3, "out_channels": 12}, 12),
        ({"in_channels": 12, "out_channels": 3}, 3),
        ({"in_channels": 12, "out_channels": 3, "rows": "n"}, 12),
        ({"in_channels": 7, "out_channels": 3, "completion": "shift"}, 7),
        ({"in_channels": 7, "out_channels": 3, "layout": "published"}, 9),
    ],
)
def test_the_log_volume_is_given_to_who_asks_for_it_by_name(arguments, rows):
    flow = WIC(**arguments, log_det="volume")
    assert flow.conv.rows == rows
    z = torch.randn(2, flow.conv.out_channels, 3, 3)
    x, log_det = flow(z)
    assert torch.equal(log_det, -flow.inverse(x)[1])
    torch.testing.assert_close(log_det, -9 * flow.conv.log_volume().expand(2))


REFUSED = {
    "a wider latent": ({"in_channels": 3, "out_channels": 12}, "at most as wide as the data"),
    "rows n": ({"in_channels": 12, "out_channels": 3, "rows": "n"}, "got rows='n'"),
    "published": ({"in_channels": 7, "out_channels": 3, "layout": "published"}, "got layout="),
    "a completion": (
        {"in_channels": 7, "out_channels": 3, "completion": "shift"},
        'completion "zero" with rows="m"',
    ),
    "another log_det": ({"in_channels": 3, "out_channels": 3, "log_det": "none"}, "exact"),
    "a word": ({"in_channels": "three", "out_channels": 3}, "in_channels as an int"),
}


def test_numpys_numbers_are_refused_alike():
    with pytest.raises(WICArgumentError, match="at most as wide as the data"):
        WIC(in_channels=np.int64(3), out_channels=np.int64(12))


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    arguments, message = REFUSED[name]
    with pytest.raises(WICArgumentError, match=message):
        WIC(**arguments)


def test_channels_are_given_by_name_only():
    with pytest.raises(TypeError):
        WIC(3, 12)


def test_around_takes_square_layers_only_and_draws_nothing():
    before = torch.get_rng_state()
    layer = Layer.from_kernel(torch.eye(3))
    assert WIC.around(layer).conv is layer
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(WICArgumentError, match="square layer; got 3 -> 5"):
        WIC.around(Layer(3, 5))


def test_a_wrong_size_says_what_came():
    with pytest.raises(WICShapeError, match=r"\(B, 4, \*spatial\).*got \(2, 3, 5, 5\)"):
        WIC(in_channels=4, out_channels=4).inverse(torch.randn(2, 3, 5, 5))


def multiscale(levels=2, hidden=8):
    """A Glow of the library's making, with a narrowing WIC at its coarsest level."""
    q0, flows, merges = [], [], []
    for level in range(levels):
        channels = 3 * 2 ** (levels + 1 - level)
        blocks = [nf.flows.GlowBlock(channels, hidden, use_lu=False), nf.flows.Squeeze()]
        size = 2 ** (level + 1)
        latent = channels // 2 if level else channels
        if not level:
            blocks.insert(0, WIC(in_channels=channels, out_channels=channels - 4))
            latent = channels - 4
        else:
            merges.append(nf.flows.Merge())
            latent = channels // 2
        flows.append(blocks)
        q0.append(gaussian(latent, size, size))
    return nf.MultiscaleFlow(q0, flows, merges, class_cond=False)


def test_a_multiscale_flow():
    model = multiscale()
    x = torch.randn(2, 3, 8, 8)
    loss = model.forward_kld(x)  # initialises the ActNorms
    loss.backward()
    log_prob = model.log_prob(x, None)
    assert log_prob.shape == (2,)
    assert torch.isfinite(log_prob).all()
    samples, log_q = model.sample(3)
    assert samples.shape == (3, 3, 8, 8)
    torch.testing.assert_close(model.log_prob(samples, None), log_q, rtol=1e-4, atol=1e-2)
    z, log_det = model.inverse_and_log_det(x)
    back, log_det_back = model.forward_and_log_det(z)
    torch.testing.assert_close(log_det, -log_det_back, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(model.inverse_and_log_det(back)[0][0], z[0], rtol=1e-3, atol=1e-4)


def test_a_conditional_flow_and_reverse():
    q0 = nf.distributions.base.ConditionalDiagGaussian(3, context_encoder=torch.nn.Linear(2, 6))
    model = nf.ConditionalNormalizingFlow(q0, [WIC(in_channels=3, out_channels=3)])
    context = torch.randn(4, 2)
    assert model.log_prob(torch.randn(4, 3), context).shape == (4,)
    flow = WIC(in_channels=3, out_channels=3)
    z = torch.randn(2, 3)
    assert torch.equal(nf.flows.Reverse(flow)(z)[0], flow.inverse(z)[0])


@pytest.mark.parametrize("out", [12, 5])
def test_gradients_reach_the_kernel_in_both_directions(out):
    flow = WIC(in_channels=12, out_channels=out)
    model = nf.NormalizingFlow(gaussian(out, 4, 4), [flow])
    for loss in (model.forward_kld(torch.randn(2, 12, 4, 4)), model.sample(2)[0].square().mean()):
        flow.conv.weight.grad = None
        loss.backward()
        assert torch.isfinite(flow.conv.weight.grad).all()
        assert flow.conv.weight.grad.abs().max() > 0


def test_saving_copies_and_pickle():
    x = torch.randn(2, 12, 4, 4)
    model = nf.NormalizingFlow(gaussian(12, 4, 4), [WIC(in_channels=12, out_channels=12)]).eval()
    with torch.no_grad():
        expected, back = model.log_prob(x), model.forward(x)
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    other = nf.NormalizingFlow(gaussian(12, 4, 4), [WIC(in_channels=12, out_channels=12)])
    other.load(file)
    for copied in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied.log_prob(x), expected)
        with torch.no_grad():
            torch.testing.assert_close(copied.forward(x), back)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("out", [12, 5])
def test_on_cuda(out):
    model = nf.NormalizingFlow(gaussian(out, 4, 4), [WIC(in_channels=12, out_channels=out)])
    x = torch.randn(2, 12, 4, 4)
    expected = model.log_prob(x)
    torch.testing.assert_close(
        model.cuda().log_prob(x.cuda()).cpu(), expected, rtol=1e-5, atol=1e-4
    )
    assert model.sample(2)[0].is_cuda
