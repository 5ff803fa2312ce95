"""Densities on a manifold: the volume of a decoder, the losses, and the trap they keep out of."""

import math

import pytest
import torch
from torch import nn

from wic_layers import WIC
from wic_layers.errors import ContractError, WICArgumentError, WICShapeError
from wic_layers.injective import (
    decoder_log_volume,
    estimate_log_volume,
    joint_loss,
    latent_loss,
    log_prob_on_manifold,
    reconstruction_loss,
)
from wic_layers.testing import check_density, log_volume_numerical


def curved(latents=4, data=9):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(latents, 2 * latents), nn.Tanh(), nn.Linear(2 * latents, data)
    ).double()


class InPlace(nn.Module):
    """As many flows are written: a log-determinant that nobody asked for is added up in place."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, z):
        total = torch.zeros(len(z), dtype=z.dtype)
        x = self.decoder(z)
        total += x.flatten(1).sum(1)
        return x


def normal(z):
    return torch.distributions.Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)


@pytest.mark.parametrize("kind", ["curved", "in place", "an image", "square"])
def test_the_volume_of_a_decoder_against_autograds_jacobian(kind):
    decoder, shape = {
        "curved": lambda: (curved(), (4,)),
        "in place": lambda: (InPlace(curved()), (4,)),
        "an image": lambda: (
            nn.Sequential(nn.ConvTranspose2d(1, 3, 2, stride=2), nn.Tanh()).double(),
            (1, 2, 2),
        ),
        "square": lambda: (curved(4, 4), (4,)),
    }[kind]()
    z = torch.randn(3, *shape, dtype=torch.float64)
    found = decoder_log_volume(decoder, z)
    assert found.shape == (3,)
    torch.testing.assert_close(found, log_volume_numerical(decoder, z))


def test_the_gradient_of_the_volume_is_that_of_differences():
    decoder = curved()
    z = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: decoder_log_volume(decoder, z), (z,))
    weight = decoder[0].weight

    def by_weight(weight):
        parameters = {"0.weight": weight}
        return decoder_log_volume(lambda z: torch.func.functional_call(decoder, parameters, z), z)

    assert torch.autograd.gradcheck(by_weight, (weight.detach().requires_grad_(),))


def test_the_volume_of_a_wic_is_its_own():
    layer = WIC(12, 3, rows="m")
    nn.init.normal_(layer.weight)
    z = torch.randn(2, 3, 1, 2)
    expected = layer.with_log_det(z, rev=True)[1]
    torch.testing.assert_close(decoder_log_volume(layer.inverse, z), expected)


def test_the_estimate_has_the_mean_the_error_and_the_gradient_that_it_says():
    decoder, generator = curved(6, 11), torch.Generator().manual_seed(0)
    z = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    sources = (z, decoder[0].weight)
    exact = decoder_log_volume(decoder, z)
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(decoder, one) for one in z.detach()]
    )
    values, vectors = torch.linalg.eigh(jacobian.mT @ jacobian)
    logarithm = vectors @ torch.diag_embed(values.log()) @ vectors.mT
    spread = (logarithm - torch.diag_embed(logarithm.diagonal(dim1=1, dim2=2))).square()
    deviation = (spread.sum((1, 2)) / 2).sqrt()
    assert (deviation > 0.1).all()
    found, error = estimate_log_volume(decoder, z, probes=1000, generator=generator)
    assert not error.requires_grad
    torch.testing.assert_close(error, deviation.detach() / math.sqrt(1000), rtol=0.1, atol=0)
    assert ((found - exact).abs() < 4 * error).all()
    slopes = torch.autograd.grad(found.sum(), sources)
    for slope, expected in zip(slopes, torch.autograd.grad(exact.sum(), sources), strict=True):
        assert (slope - expected).norm() < 0.15 * expected.norm()


def test_an_estimate_that_stops_early_is_close_and_its_steps_are_counted():
    torch.manual_seed(0)
    calls = []
    matrix = torch.eye(60, 50, dtype=torch.float64) + 0.01 * torch.randn(60, 50).double()

    def decoder(z):
        calls.append(len(z))
        return z @ matrix.T

    z = torch.randn(1, 50, dtype=torch.float64)
    with torch.no_grad():
        found, error = estimate_log_volume(decoder, z, probes=200, steps=5)
    assert calls == [200] * 6
    exact = decoder_log_volume(decoder, z)
    assert abs(found - exact) < 4 * error + 1e-6


@pytest.mark.parametrize("size", [4, 10])
def test_an_estimate_where_all_directions_are_alike(size):
    """The first step has found all there is: of four numbers nothing is left, of ten rounding."""
    basis = torch.eye(30, size) if size == 4 else torch.linalg.qr(torch.randn(30, size))[0]
    z = torch.randn(3, size, requires_grad=True)
    found, error = estimate_log_volume(lambda z: 3 * z @ basis.T, z, probes=2)
    torch.testing.assert_close(found, torch.full((3,), size * math.log(3)), rtol=1e-5, atol=1e-5)
    assert (error < 1e-4).all()
    found.sum().backward()
    assert z.grad.abs().max() < 1e-5  # the same everywhere


def test_the_losses_are_what_they_say():
    layer = WIC(12, 3, rows="m")
    nn.init.normal_(layer.weight)
    x = torch.randn(5, 12)
    back = layer.inverse(layer(x))
    reconstruction = reconstruction_loss(x, layer, layer.inverse)
    torch.testing.assert_close(reconstruction, (x - back).square().sum(1).mean())
    log_prob = normal(layer(x)) + layer.log_volume()
    torch.testing.assert_close(log_prob_on_manifold(layer.inverse, layer(x), normal), log_prob)
    loss = joint_loss(x, layer, layer.inverse, normal, weight=3.0)
    torch.testing.assert_close(loss.reconstruction, reconstruction)
    torch.testing.assert_close(loss.log_prob, log_prob.mean())
    torch.testing.assert_close(loss.total, 3 * reconstruction - log_prob.mean())
    loss.total.backward()
    assert layer.weight.grad.abs().max() > 0
    scale = nn.Parameter(torch.ones(3))
    layer.zero_grad()
    latent_loss(x, layer, lambda z: normal(z * scale) + scale.log().sum()).backward()
    assert layer.weight.grad is None
    assert scale.grad.abs().max() > 0
    constant = joint_loss(
        x, layer, layer.inverse, normal, weight=0.0, volume=lambda _, z: torch.ones(len(z))
    )
    torch.testing.assert_close(constant.total, 1 - normal(layer(x)).mean())


def data(count, generator):
    """Three directions that matter and nine of noise: a twentieth of them, 99.2 % to 0.8 %."""
    scales = torch.tensor([1.0] * 3 + [0.05] * 9)
    return torch.randn(count, 12, generator=generator) * scales


def share(x, layer):
    """Which part of the variance comes back."""
    with torch.no_grad():
        return 1 - float((x - layer.inverse(layer(x))).square().sum() / x.square().sum())


def trained(loss, steps, generator, rate=1e-2):
    """A layer 12 -> 3 that starts at the best subspace, with latents of unit variance."""
    first = data(2000, generator)
    _, deviations, axes = torch.linalg.svd(first, full_matrices=False)
    kernel = nn.Parameter(axes[:3] * math.sqrt(len(first)) / deviations[:3, None])
    layer = WIC.from_kernel(kernel, completion="zero")
    held_out = data(2000, generator)
    yield share(held_out, layer), loss(layer, held_out)[1]
    optimizer = torch.optim.Adam(layer.parameters(), rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        loss(layer, data(256, generator))[0].backward()
        optimizer.step()
    yield share(held_out, layer), loss(layer, held_out)[1]


def likelihood(layer, x):
    z, log_det = layer.with_log_det(x)
    log_prob = (normal(z) + log_det).mean()
    return -log_prob, log_prob.item()


def test_maximum_likelihood_alone_learns_the_noise():
    generator = torch.Generator().manual_seed(0)
    (before, log_prob), (after, better) = trained(likelihood, 1000, generator, rate=0.1)
    assert before == pytest.approx(0.992, abs=0.002)
    assert log_prob == pytest.approx(-4.2, abs=0.15)
    assert better == pytest.approx(4.7, abs=0.15)
    assert after == pytest.approx(0.003, abs=0.002)


def test_reconstruction_plus_density_keeps_what_comes_back():
    generator = torch.Generator().manual_seed(0)

    def loss(layer, x):
        both = joint_loss(x, layer, layer.inverse, normal, weight=1 / (2 * 0.05**2))
        return both.total, both.log_prob.item()

    (before, log_prob), (after, still) = trained(loss, 300, generator)
    assert after == pytest.approx(before, abs=0.002)
    assert still == pytest.approx(log_prob, abs=0.1)


class Linear(nn.Module):
    """A flow of one WIC, whose log-determinant is wrong by a factor if asked for."""

    def __init__(self, data, latents, factor=1.0):
        super().__init__()
        torch.manual_seed(1)
        rows = {"rows": "m"} if data > latents else {}
        self.layer = WIC(data, latents, dtype=torch.float64, **rows)
        with torch.no_grad():
            self.layer.weight.mul_(1.3)
        self.factor = factor

    def forward(self, z):
        return self.layer.inverse(z)

    def log_prob(self, x):
        z, log_det = self.layer.with_log_det(x)
        return normal(z) + self.factor * log_det


@pytest.mark.parametrize(("data", "latents"), [(1, 1), (2, 2), (3, 3), (4, 1), (5, 2), (7, 3)])
def test_densities_integrate_to_one(data, latents):
    model = Linear(data, latents).train()
    assert check_density(model, (latents,), tolerance=1e-6) == pytest.approx(1, abs=1e-6)
    assert model.training
    for factor in (-1.0, 0.0):
        with pytest.raises(ContractError, match=r"integrates to 1 within 0\.01; got "):
            check_density(Linear(data, latents, factor), (latents,))


def test_a_density_of_other_functions_and_a_grid_that_is_too_small():
    layer = WIC(3, 2, rows="m").double()
    functions = {
        "decoder": layer.inverse,
        "log_prob": lambda x: normal(layer(x)) + layer.with_log_det(x)[1],
    }
    check_density(layer, (2, 1, 1), **functions, points=81)
    with pytest.raises(ContractError, match=r"got 0\.47.* on 81 latents from -1 to 1"):
        check_density(layer, (2,), **functions, points=81, low=-1, high=1)


def test_a_log_volume_is_no_density():
    """Rows n: the number that log_det="volume" gives does not integrate to one."""
    torch.manual_seed(0)
    layer = WIC(5, 2, dtype=torch.float64)
    nn.init.normal_(layer.weight)
    with pytest.raises(ContractError):
        check_density(
            layer,
            (2,),
            decoder=layer.inverse,
            log_prob=lambda x: normal(layer(x)) + layer.with_log_det(x, log_det="volume")[1],
        )


ERRORS = {
    "a wide decoder": (
        lambda: decoder_log_volume(nn.Linear(3, 2), torch.ones(1, 3)),
        WICArgumentError,
        "as many numbers as the latents' 3; got 2",
    ),
    "no batch": (
        lambda: decoder_log_volume(nn.Linear(3, 4), torch.ones(3)),
        WICShapeError,
        r"\(B, \*latent\); got \(3,\)",
    ),
    "one probe": (
        lambda: estimate_log_volume(nn.Linear(3, 4), torch.ones(1, 3), probes=1),
        WICArgumentError,
        "at least 2 probes",
    ),
    "another size back": (
        lambda: reconstruction_loss(torch.ones(2, 1), lambda x: x, lambda z: z[:, 0]),
        WICShapeError,
        r"\(2, 1\); got \(2,\)",
    ),
    "four dimensions": (
        lambda: check_density(Linear(4, 4), (4,)),
        WICArgumentError,
        r"1 to 3 numbers.*got \(4,\)",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, kind, message = ERRORS[name]
    with pytest.raises(kind, match=message):
        call()
