"""The authors' networks as far as a checkpoint sees them, and how their code loads one.

The names and shapes are written down from their code, not from ours, and the loading functions do
what theirs do: which keys they look up, which prefix they take off, whether they are strict, and
what they do with an optimizer.
"""

import itertools

import torch
from torch import nn

from wic_layers import WellPosed
from wic_layers.blocks import ChannelMean

HAAR = torch.tensor(
    [[[1.0, 1], [1, 1]], [[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]]]
)


class Named(nn.Module):
    """A module whose tensors have these names and shapes; it runs nothing."""

    def __init__(self, shapes):
        super().__init__()
        for name, shape in shapes.items():
            *path, last = name.split(".")
            module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module._modules[part]
            if last == "haar_weights":
                value = nn.Parameter(HAAR[:, None].repeat(shape[0] // 4, 1, 1, 1), False)
            else:
                value = nn.Parameter(torch.zeros(shape))
            module.register_parameter(last, value)

    def forward(self, x, rev=False):
        return x


def convolution(name, inputs, outputs, side=3):
    return {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}


def dense(name, inputs, outputs, growth):
    """Five convolutions, each of which sees all before it."""
    shapes = {}
    for n in range(1, 6):
        seen, made = inputs + (n - 1) * growth, growth if n < 5 else outputs
        shapes |= convolution(f"{name}.conv{n}", seen, made)
    return shapes


def coupling(name, first, second, growth, nets="FGH"):
    """F makes the first half of the second, the others the second of the first."""
    f, *others = nets
    shapes = dense(f"{name}.{f}", second, first, growth)
    for net in others:
        shapes |= dense(f"{name}.{net}", first, second, growth)
    return shapes


def irn(depths, growth, channels=3, kept=3):
    shapes, place, inner = {}, itertools.count(), channels
    for depth in depths:
        shapes[f"operations.{next(place)}.haar_weights"] = (4 * inner, 1, 2, 2)
        inner *= 4
        for _ in range(depth):
            shapes |= coupling(f"operations.{next(place)}", kept, inner - kept, growth)
    return Named(shapes)


def hinet(blocks, growth):
    """Without the module ``Model`` around it."""
    shapes = {}
    for n in range(1, blocks + 1):
        shapes |= coupling(f"inv{n}", 12, 12, growth, nets="fyr")
    return Named(shapes)


class HiNetModel(nn.Module):
    def __init__(self, *size):
        super().__init__()
        self.model = hinet(*size)

    def forward(self, x, rev=False):
        return self.model(x, rev)


def iicnet(images, depth, growth, features, scale):
    """Their ModuleList but for its last two layers, which have no tensors."""
    shapes = {}
    for side in ("forw_rel", "back_rel"):
        for n in range(images):
            name = f"0.{side}"
            shapes |= dense(f"{name}.DB_heads.{n}", 3, features, growth)
            shapes |= convolution(f"{name}.conv_1x1_heads.{n}", features, features, 1)
            shapes |= convolution(f"{name}.conv_merges.{n}", images * features, features)
            shapes |= convolution(f"{name}.conv_1x1_tails.{n}", features, features, 1)
            shapes |= dense(f"{name}.DB_tails.{n}", features, 3, growth)
    channels = 3 * images
    first = 3 if scale == 1 else channels
    if scale == 2:
        shapes["1.operations.0.haar_weights"] = (4 * channels, 1, 2, 2)
        channels *= 4
        shapes["1.operations.1.weight"] = (channels, channels)
    for n in range(depth):
        shapes |= coupling(f"2.operations.{n}", first, channels - first, growth)
    return Named(shapes)


def hcflow(steps, growth, conditional, width, trunks):
    shapes, place, channels = {}, itertools.count(), 3
    for level in range(2):
        shapes[f"flow.layers.{next(place)}.haar_weights"] = (4 * channels, 1, 2, 2)
        channels *= 4
        for step in range(steps):
            name = f"flow.layers.{next(place)}"
            shapes |= {f"{name}.actnorm.{part}": (1, channels, 1, 1) for part in ("bias", "logs")}
            seen, made = (3, 2 * (channels - 3)) if step % 2 == 0 else (channels - 3, 3)
            shapes |= dense(f"{name}.affine.f", seen, made, growth)
        next(place)  # a split has no tensors
        kept = channels // 2 if level == 0 else 3
        lost, name = channels - kept, f"flow.level{level}_condFlow"
        shapes |= convolution(f"{name}.conv_first", kept + (width if level == 0 else 0), width)
        for trunk, count in enumerate(trunks):
            for n, k in itertools.product(range(count), (1, 2, 3)):
                shapes |= dense(f"{name}.RRDB_trunk{trunk}.{n}.RDB{k}", width, width, width // 4)
        shapes |= convolution(f"{name}.trunk_conv1", width, width)
        for n in range(conditional):
            step = f"{name}.additional_flow_steps.{n}"
            shapes |= {f"{step}.actnorm.{part}": (1, lost, 1, 1) for part in ("bias", "logs")}
            shapes[f"{step}.permute.weight"] = (lost, lost)
            half = lost // 2
            for k, seen, side in ((1, half + width, 3), (2, width, 1)):
                conv = f"{step}.affine.f.conv{k}"
                shapes[f"{conv}.weight"] = (width, seen, side, side)
                shapes |= {f"{conv}.actnorm.{part}": (1, width, 1, 1) for part in ("bias", "logs")}
            shapes |= zero_convolution(f"{step}.affine.f.conv3", width, 2 * (lost - half))
        shapes |= zero_convolution(f"{name}.f", width, 2 * lost)
        channels = kept
    return Named(shapes)


def zero_convolution(name, inputs, outputs):
    return {**convolution(name, inputs, outputs), f"{name}.logs": (outputs, 1, 1)}


def win_naive(channels, depth, growth):
    """Hiding: one squeeze, couplings, and the convolution that drops."""
    inner = 4 * channels
    shapes = {}
    for n in range(1, depth + 1):
        shapes |= coupling(f"operations.{n}", inner // 2, inner - inner // 2, growth)
    shapes[f"operations.{depth + 2}.iConv2d.weight"] = (channels, channels, 1, 1)
    return Named(shapes)


def without_module(state):
    return {key[7:] if key.startswith("module.") else key: value for key, value in state.items()}


def load_network(path, net):
    """IRN's and HCFlow's ``load_network`` and IICNet's ``load_current_state_dict``: strict."""
    net.load_state_dict(without_module(torch.load(path)), strict=True)


def load_win(path, net):
    """WIN's ``load_checkpoint`` takes what it finds; here nothing may be left over."""
    state = {k.split("module.")[1] if "module" in k else k: v for k, v in torch.load(path).items()}
    result = net.load_state_dict(state, strict=False)
    assert not result.missing_keys
    assert not result.unexpected_keys


def load_hinet(path, model):
    """HiNet's ``load``, whose optimizer is there already; what it swallows is raised here."""
    net = nn.DataParallel(model)
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optim = torch.optim.Adam(trainable, lr=1e-6, betas=(0.5, 0.999), eps=1e-6, weight_decay=1e-5)
    scheduler = torch.optim.lr_scheduler.StepLR(optim, 1000, gamma=0.5)
    state_dicts = torch.load(path)
    net.load_state_dict({k: v for k, v in state_dicts["net"].items() if "tmp_var" not in k})
    optim.load_state_dict(state_dicts["opt"])
    return optim, scheduler


def closed(net, channels, kept):
    """As the lines of ``integrations/`` close it."""
    return WellPosed(net, channels, kept)


def closed_iicnet(net, channels):
    net.add_module("3", ChannelMean(channels // 3).as_wic(3))
    return net
