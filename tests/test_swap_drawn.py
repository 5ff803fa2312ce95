"""Hosts, sizes, kernels, directions and modes as they are drawn: contracts 2 and 7 hold."""

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from standins.flows import masked, mode, rev, reverse_method, running_logdet, speech, two_methods
from standins.flows.vectors import InvertibleAffine

from wic_layers import swap_1x1
from wic_layers.hosts.answering import kernel_of

EPS = torch.finfo(torch.float32).eps


def _zeros(x):
    return torch.zeros(len(x))


# how a layer of n channels is made; forward and back, each with (result, log-det) or the result
HOSTS = {
    "running log-det": (
        running_logdet.InvertibleConv1x1,
        lambda layer, x: layer(x, _zeros(x)),
        lambda layer, y: layer(y, _zeros(y), reverse=True),
    ),
    "running log-det, LU": (
        lambda n: running_logdet.InvertibleConv1x1(n, True),
        lambda layer, x: layer(x, _zeros(x)),
        lambda layer, y: layer(y, _zeros(y), True),
    ),
    "reverse": (reverse_method.InvConv2d, lambda m, x: m(x), lambda m, y: m.reverse(y)),
    "reverse, LU": (reverse_method.InvConv2dLU, lambda m, x: m(x), lambda m, y: m.reverse(y)),
    "sequences": (speech.SoftFlowConv, lambda m, x: m(x), lambda m, y: m(y, reverse=True)),
    "pair": (
        lambda n: two_methods.Invertible1x1Conv(n),
        lambda m, x: m(x),
        lambda m, y: m.inverse(y),
    ),
    "pair, survae": (two_methods.Conv1x1, lambda m, x: m(x), lambda m, y: m.inverse(y)),
    "mode": (mode.InvertibleMM, lambda m, x: m(x), lambda m, y: m(y, mode="inverse")),
    "rev": (rev.InvertibleConv1x1, lambda m, x: m(x), lambda m, y: m(y, rev=True)),
    "groups": (
        lambda n: masked.InvConvNear(2 * n, n_split=n),
        lambda m, x: m(x),
        lambda m, y: m(y, reverse=True),
    ),
    "latent to data": (
        lambda n: InvertibleAffine(n, use_lu=False),
        lambda m, x: m.inverse(x),
        lambda m, z: m(z),
    ),
}
RANKS = {"sequences": 1, "groups": 1, "mode": 0, "latent to data": 0}


@torch.no_grad()
def set_kernel(layer, kernel):
    """Makes a square matrix the kernel, or factorises it into the host's parameters."""
    named = dict(layer.named_parameters())
    if len(named) == 1:
        (own,) = named.values()
        own.copy_(kernel.view(own.shape))
        return
    pivots, lower, upper = torch.linalg.lu(kernel)
    prefix = "w_" if "w_l" in named else ""
    values = {
        "p": pivots,
        "l": lower,
        "u": upper.triu(1),
        "s" if prefix else "log_s": upper.diag().abs().log(),
    }
    for name, value in values.items():
        getattr(layer, prefix + name).copy_(value)
    getattr(layer, "s_sign" if prefix else "sign_s").copy_(upper.diag().sign())


def drawn_kernel(n, exponent, scale, seed):
    """A kernel of condition number 10 to the exponent and positive determinant."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
        for _ in range(2)
    )
    kernel = scale * left @ torch.logspace(0, -exponent, n, dtype=torch.float64).diag() @ right
    if torch.linalg.det(kernel) < 0:
        kernel[0] *= -1
    return kernel.float()


def parts(result):
    return result if isinstance(result, tuple) else (result, None)


@given(
    host=st.sampled_from(sorted(HOSTS)),
    n=st.sampled_from([2, 4, 6, 8]),
    exponent=st.floats(0, 4),
    scale=st.sampled_from([0.05, 1.0, 30.0]),
    seed=st.integers(0, 50),
    is_training=st.booleans(),
    gradients=st.booleans(),
    back_first=st.booleans(),
)
@settings(max_examples=60)
def test_contracts(host, n, exponent, scale, seed, is_training, gradients, back_first):
    make, there, back = HOSTS[host]
    layer = make(n)
    kernels = [drawn_kernel(n, exponent, scale, seed + k) for k in (0, 100)]
    set_kernel(layer, kernels[0])
    own, keys, kind = list(layer.parameters()), list(layer.state_dict()), type(layer)
    twin = copy.deepcopy(layer)
    (swap,) = swap_1x1(layer)
    assert swap.layer is layer
    assert isinstance(layer, kind)
    layer.train(is_training)
    assert all(one is other for one, other in zip(layer.parameters(), own, strict=True))
    assert list(layer.state_dict()) == keys
    sides = (5, 3)[: RANKS.get(host, 2)]
    channels = 2 * n if host == "groups" else n
    torch.manual_seed(seed)
    x = torch.randn(3, channels, *sides)
    for kernel in kernels:
        for one in (layer, twin):
            set_kernel(one, kernel)
        stored = kernel_of(layer).weight.detach().double()
        if host == "latent to data" and not kernel_of(layer).spec.turned:  # back is our forward
            stored = torch.linalg.inv(stored)
        condition = float(torch.linalg.cond(stored))
        limit = 128 * EPS * condition
        with torch.set_grad_enabled(gradients):
            if back_first:
                back(layer, x)
            y, log_det = parts(there(layer, x))
            expected, their_log_det = parts(there(twin, x))
            again, back_log_det = parts(back(layer, y))
            once_more, _ = parts(back(layer, y))
        assert torch.equal(again, once_more)
        largest = float(expected.abs().max())
        off = float((y - expected).abs().max())
        assert off <= (1e-5 + limit * (host == "latent to data")) * largest, "forward"
        off = float((again - x).abs().max())
        assert off <= limit * float(x.abs().max()), "round trip"
        assert (log_det is None) == (their_log_det is None)
        if log_det is not None:
            assert log_det.shape == torch.as_tensor(their_log_det).shape
            positions = x[0].numel() // n
            volume = positions * float(torch.linalg.slogdet(stored)[1])
            off = (log_det.detach().double() - volume).abs().max()
            assert off <= 1e-5 * max(abs(volume), n * positions), "log-det"
            if back_log_det is not None:
                assert torch.allclose(back_log_det, -log_det, rtol=1e-5, atol=1e-3)
        if gradients:
            layer.zero_grad()
            y.square().sum().backward()
            assert any(p.grad is not None and p.grad.abs().max() > 0 for p in own)
