"""``(z, reverse=False)``, ``(z, inverse=False)``: (z, log-det) there, z back; kernel (n, n, 1).

WaveGlow's log-det is that of the whole batch, SoftFlow's per sample, RAD-TTS's per position.
"""

import torch
from torch import nn
from torch.nn import functional as F

from . import parts
from .case import Case


def conv_with(c):
    """A Conv1d without bias whose weight is orthogonal with det +1 (``logdet`` is NaN below 0)."""
    conv = nn.Conv1d(c, c, kernel_size=1, bias=False)
    conv.weight.data = parts.orthogonal(c, positive=True)[..., None]
    return conv


class WaveGlowConv(nn.Module):
    """NVIDIA/waveglow: the inverse, detached, stays on the layer from the first reverse on."""

    def __init__(self, c):
        super().__init__()
        self.conv = conv_with(c)

    def forward(self, z, reverse=False):
        batch_size, group_size, n_of_groups = z.size()
        W = self.conv.weight.squeeze()
        if reverse:
            if not hasattr(self, "W_inverse"):
                self.W_inverse = W.float().inverse()[..., None].to(z.dtype).detach()
            return F.conv1d(z, self.W_inverse)
        return self.conv(z), batch_size * n_of_groups * torch.logdet(W)


class SoftFlowConv(nn.Module):
    """ANLGBOY/SoftFlow: ``W_inverse`` is set anew at each reverse."""

    def __init__(self, c):
        super().__init__()
        self.conv = conv_with(c)

    def forward(self, z, reverse=False):
        W = self.conv.weight.squeeze()
        if reverse:
            self.W_inverse = W.float().inverse()[..., None].detach()
            return F.conv1d(z, self.W_inverse)
        return self.conv(z), torch.ones_like(z[:, 0, 0]) * z.size(2) * torch.logdet(W)


class InverseKept(nn.Module):
    """What both layers of RAD-TTS do with their inverse: kept or deleted after the call."""

    def __init__(self, cache_inverse=False):
        super().__init__()
        self.cache_inverse = cache_inverse

    def back(self, z, W):
        if not hasattr(self, "W_inverse"):
            self.W_inverse = W.float().inverse()[..., None]
        z = F.conv1d(z, self.W_inverse)
        if not self.cache_inverse:
            del self.W_inverse
        return z


class RadConv(InverseKept):
    """NVIDIA/radtts, free."""

    def __init__(self, c, cache_inverse=False):
        super().__init__(cache_inverse)
        self.conv = conv_with(c)

    def forward(self, z, inverse=False):
        W = self.conv.weight.squeeze()
        return self.back(z, W) if inverse else (self.conv(z), torch.logdet(W).clone())


class RadConvLUS(InverseKept):
    """NVIDIA/radtts, LU whose diagonal is free, signs and all."""

    def __init__(self, c, cache_inverse=False):
        super().__init__(cache_inverse)
        p, lower, upper = torch.linalg.lu(parts.orthogonal(c, positive=True))
        self.register_buffer("p", p)
        self.register_buffer("lower_diag", torch.ones(c))
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper_diag = nn.Parameter(upper.diag())
        self.upper = nn.Parameter(upper.triu(1))

    @torch.autocast("cpu", enabled=False)
    def forward(self, z, inverse=False):
        upper = self.upper.triu(1) + self.upper_diag.diag()
        W = self.p @ (self.lower.tril(-1) + self.lower_diag.diag()) @ upper
        if inverse:
            return self.back(z, W)
        return F.conv1d(z, W[..., None]), self.upper_diag.abs().log().sum()


class ActNorm(parts.Norm):
    """SoftFlow: ``(x, reverse=False)`` -> (x, log-det (B,)), and a method ``reverse`` besides."""

    def forward(self, x, reverse=False):
        if reverse:
            return self.back(x)
        return self.there(x), torch.ones_like(x[:, 0, 0]) * self.logdet(x)


class WaveGlow(nn.Module):
    """Two lists side by side, early outputs of two channels, and lists of log-dets per kind."""

    def __init__(self, n_group=8, n_flows=3, n_early_every=2, n_early_size=2):
        super().__init__()
        self.n_flows, self.n_early_every, self.n_early_size = n_flows, n_early_every, n_early_size
        self.convinv, self.WN = nn.ModuleList(), nn.ModuleList()
        for k in range(n_flows):
            n_group -= n_early_size * self.gives(k)
            self.convinv.append(WaveGlowConv(n_group))
            self.WN.append(parts.net(n_group // 2, n_group, n_group, rank=1))

    def gives(self, k):
        return k > 0 and k % self.n_early_every == 0

    def forward(self, audio):
        early, logs, dets = [], [], []
        for k in range(self.n_flows):
            if self.gives(k):
                early.append(audio[:, : self.n_early_size])
                audio = audio[:, self.n_early_size :]
            audio, log_det_W = self.convinv[k](audio)
            dets.append(log_det_W)
            first, second = audio.chunk(2, 1)
            b, log_s = self.WN[k](first).chunk(2, 1)
            audio = torch.cat([first, log_s.exp() * second + b], 1)
            logs.append(log_s)
        return torch.cat([*early, audio], 1), logs, dets

    def infer(self, z):
        *early, audio = z.split([self.n_early_size, z.size(1) - self.n_early_size], 1)
        for k in reversed(range(self.n_flows)):
            first, second = audio.chunk(2, 1)
            b, log_s = self.WN[k](first).chunk(2, 1)
            audio = torch.cat([first, (second - b) / log_s.exp()], 1)
            audio = self.convinv[k](audio, reverse=True)
            if self.gives(k):
                audio = torch.cat([early.pop(), audio], 1)
        return audio


class SoftFlow(nn.Module):
    def __init__(self, channels=6):
        super().__init__()
        self.norms = nn.ModuleList(ActNorm(channels, rank=1) for _ in range(2))
        self.convs = nn.ModuleList(SoftFlowConv(channels) for _ in range(2))
        self.couplings = nn.ModuleList(parts.Affine(channels, rank=1) for _ in range(2))

    def steps(self):
        return list(zip(self.norms, self.convs, self.couplings, strict=True))

    def forward(self, x):
        total = 0
        for norm, conv, coupling in self.steps():
            x, first = norm(x)
            x, second = conv(x)
            x, third = coupling.couple(x)
            total = total + first + second + third
        return x, total

    def reverse(self, z):
        for norm, conv, coupling in self.steps()[::-1]:
            z = norm(conv(coupling.uncouple(z), reverse=True), reverse=True)
        return z


class FlowStep(nn.Module):
    def __init__(self, layer, channels):
        super().__init__()
        self.invtbl_conv, self.coupling = layer, parts.Affine(channels, rank=1)

    def forward(self, z, inverse=False):
        if inverse:
            return self.invtbl_conv(self.coupling.uncouple(z), inverse=True)
        z, log_det_W = self.invtbl_conv(z)
        z, log_s = self.coupling.couple(z)
        return z, log_det_W, log_s


class RADTTS(nn.Module):
    """The kernels' log-dets are per position: the loss counts those that are no padding."""

    def __init__(self, layer, channels=6, cache_inverse=False):
        super().__init__()
        self.flows = nn.ModuleList(
            FlowStep(layer(channels, cache_inverse), channels) for _ in range(2)
        )

    def forward(self, z):
        log_det_W_list, log_s_list = [], []
        for flow in self.flows:
            z, log_det_W, log_s = flow(z)
            log_det_W_list.append(log_det_W)
            log_s_list.append(log_s)
        return z, log_det_W_list, log_s_list

    def infer(self, z):
        for flow in reversed(self.flows):
            z = flow(z, inverse=True)
        return z


def of_waveglow(model, x):
    z, logs, dets = model(x)
    return z, sum(dets) + sum(log_s.sum() for log_s in logs)


def of_radtts(model, x):
    z, dets, logs = model(x)
    return z, sum(dets) * len(x) * x.size(2) + sum(log_s.sum() for log_s in logs)


def rad():
    return RADTTS(RadConv)


def rad_kept():
    return RADTTS(RadConv, cache_inverse=True)


def rad_factors():
    return RADTTS(RadConvLUS)


def sequences():
    return torch.randn(2, 6, 5)


def calls(flag):
    return {
        "forward": lambda layer, x: layer(x),
        "forward, by keyword": lambda layer, x: layer(z=x, **{flag: False}),
        "reverse": lambda layer, x: layer(x, **{flag: True}),
        "reverse, by position": lambda layer, x: layer(x, True),
    }


def radtts(name, build, **options):
    return Case(
        name=name,
        like="NVIDIA/radtts",
        build=build,
        layers=("flows.0.invtbl_conv", "flows.1.invtbl_conv"),
        x=sequences,
        forward=of_radtts,
        inverse=lambda model, z: model.infer(z),
        layer_x=sequences,
        layer_calls=calls("inverse"),
        units="batch",
        **options,
    )


CASES = [
    Case(
        name="(z, reverse), log-det of the batch, W_inverse stays",
        like="NVIDIA/waveglow",
        build=WaveGlow,
        layers=("convinv.0", "convinv.1", "convinv.2"),
        x=lambda: torch.randn(2, 8, 5),
        forward=of_waveglow,
        inverse=lambda model, z: model.infer(z),
        layer_x=lambda: torch.randn(2, 8, 5),
        layer_calls=calls("reverse"),
        units="batch",
        nan_below_zero=True,
    ),
    Case(
        name="(z, reverse), log-det per sample",
        like="ANLGBOY/SoftFlow",
        build=SoftFlow,
        layers=("convs.0", "convs.1"),
        x=sequences,
        forward=lambda model, x: model(x),
        inverse=lambda model, z: model.reverse(z),
        layer_x=sequences,
        layer_calls=calls("reverse"),
        nan_below_zero=True,
    ),
    radtts("(z, inverse), log-det per position", rad, nan_below_zero=True),
    radtts("(z, inverse), log-det per position, inverse kept", rad_kept, nan_below_zero=True),
    radtts("(z, inverse), log-det per position, LU", rad_factors),
]
