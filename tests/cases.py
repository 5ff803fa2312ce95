"""One layer or network of every kind, by name; every contract is tested on all of them.

A new kind of layer, completion or block adds its line here.
"""

import math

import torch
from torch import nn

from wic_layers import WIC
from wic_layers.blocks import (
    AffineCoupling,
    Chain,
    Haar,
    InverseHaar,
    Latent,
    LearnedSqueeze,
    LongTermMemory,
    Squeeze,
    SqueezedBlock,
    Unsqueeze,
)
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.layer.completion import Learned
from wic_layers.models import IRN, WIN, HiNet, IICNet, WINNaive

LAYERS = {
    "one channel": lambda: WIC(1, 1),
    "one to many": lambda: WIC(1, 5),
    "many to one": lambda: WIC(5, 1),
    "square": lambda: WIC(12, 12),
    "square, prime": lambda: WIC(7, 7),
    "square, orthogonal": lambda: WIC(6, 6, parametrization="orthogonal"),
    "square, lu": lambda: WIC(6, 6, parametrization="lu"),
    "widen": lambda: WIC(3, 12),
    "widen, prime": lambda: WIC(5, 11),
    "widen, orthogonal": lambda: WIC(3, 12, parametrization="orthogonal"),
    "widen, lu": lambda: WIC(3, 8, parametrization="lu"),
    "narrow": lambda: WIC(12, 3),
    "narrow, prime": lambda: WIC(13, 7, completion="shift"),
    "narrow, zero": lambda: WIC(12, 3, completion="zero"),
    "narrow, repeat": lambda: WIC(11, 3, completion="repeat"),
    "narrow, shift": lambda: WIC(11, 3, completion="shift"),
    "narrow, learned": lambda: WIC(12, 3, completion="learned"),
    "narrow, learned 1d": lambda: WIC(4, 3, completion=Learned(3, 1, rank=1)),
    "narrow, gaussian": lambda: WIC(12, 3, completion="gaussian"),
    "narrow, callable": lambda: WIC(6, 3, completion=torch.tanh),
    "narrow, module": lambda: WIC(6, 3, completion=nn.Conv2d(3, 3, 3, padding=1)),
    "narrow, rows m": lambda: WIC(7, 3, rows="m"),
    "narrow, rows above n": lambda: WIC(7, 3, rows=10),
    "narrow, rows above n, zero": lambda: WIC(7, 5, rows=8, completion="zero"),
    "narrow, orthogonal": lambda: WIC(12, 3, parametrization="orthogonal"),
    "narrow, lu": lambda: WIC(12, 3, parametrization="lu"),
    "narrow, fixed": lambda: WIC(12, 3, completion="zero", parametrization="fixed"),
    "published": lambda: WIC(12, 3, layout="published"),
    "published, more rows": lambda: WIC(7, 3, layout="published"),
}

DETERMINISTIC = [name for name in LAYERS if "gaussian" not in name]
NARROWING = {
    name: make for name, make in LAYERS.items() if make().out_channels < make().in_channels
}

# name -> (constructor, shape of the input); the networks inside couplings get numbers below
BLOCKS = {
    "squeeze": (lambda: Squeeze(2), (2, 3, 4, 6)),
    "squeeze 3": (lambda: Squeeze(3), (2, 1, 9, 3)),
    "squeeze in groups": (lambda: Squeeze(2, 2), (2, 6, 4, 2)),
    "unsqueeze": (lambda: Unsqueeze(2), (2, 8, 3, 5)),
    "haar": (Haar, (2, 3, 4, 6)),
    "haar of two images": (lambda: Haar(2), (2, 6, 2, 4)),
    "haar, mean": (lambda: Haar(mean=True), (2, 3, 2, 4)),
    "learned squeeze": (lambda: LearnedSqueeze(3), (2, 2, 3, 6)),
    "inverse haar": (lambda: InverseHaar(2), (2, 8, 3, 1)),
    "latent": (lambda: Latent(2), (2, 3, 4, 5)),
    "latent of two images": (lambda: Latent(2, 2), (2, 6, 1, 3)),
    "coupling": (lambda: AffineCoupling(7, subnet=_small), (2, 7, 3, 5)),
    "coupling, split": (
        lambda: AffineCoupling(7, split=1, clamp=2.0, subnet=_small),
        (2, 7, 1, 1),
    ),
    "coupling, squeezed": (
        lambda: AffineCoupling(5, subnet=lambda i, o: SqueezedBlock(i, o, 4)),
        (2, 5, 3, 5),
    ),
    "memory": (lambda: LongTermMemory(2, AffineCoupling(4, subnet=_small)), (2, 6, 4, 4)),
    "empty chain": (Chain, (2, 3, 4, 4)),
    "chain": (lambda: Chain(Squeeze(2), WIC(12, 16)), (2, 3, 4, 6)),
    "nested chains": (
        lambda: Chain(
            Chain(Haar(), WIC(12, 13)),
            LongTermMemory(5, Chain(AffineCoupling(8, subnet=_small), WIC(8, 9))),
        ),
        (2, 3, 4, 6),
    ),
}

# name -> (constructor, shape of the input) of networks that narrow
NETWORKS = {
    "hiding": (lambda: WIN(2, 1, width=16, couplings=1, growth=4), (2, 2, 6, 8)),
    "hiding, published": (
        lambda: WIN(2, 1, width=16, couplings=1, growth=4, layout="published"),
        (2, 2, 6, 8),
    ),
    "rescaling": (
        lambda: WIN(3, 3, scale=2, width=16, couplings=1, growth=4, completion="zero"),
        (1, 3, 6, 4),
    ),
    "hiding, naive": (lambda: WINNaive(2, 1, couplings=1, growth=4), (2, 2, 4, 4)),
    "rescaling, naive": (lambda: WINNaive(3, 3, scale=2, couplings=1, growth=4), (1, 3, 4, 6)),
    "rescaling, squeezed": (
        lambda: WINNaive(3, 3, scale=2, couplings=1, squeezed=4, haar=True),
        (1, 3, 6, 4),
    ),
    "IRN": (lambda: IRN(scale=2, couplings=1, growth=4), (1, 3, 4, 6)),
    "IRN x3": (lambda: IRN(1, 1, scale=3, couplings=1, growth=4), (2, 1, 6, 3)),
    "IRN decolorization": (lambda: IRN(3, 1, scale=1, couplings=1, growth=4), (1, 3, 2, 4)),
    "IICNet": (
        lambda: IICNet(6, 3, couplings=1, growth=4, features=0),
        (2, 6, 3, 5),
    ),
    "IICNet x2": (
        lambda: IICNet(9, 3, scale=2, couplings=1, growth=4, features=0, order="images"),
        (1, 9, 4, 6),
    ),
    "IICNet decolorization": (
        lambda: IICNet(3, 1, couplings=1, growth=4, features=0, completion="repeat"),
        (1, 3, 4, 3),
    ),
    "HiNet": (lambda: HiNet(2, 1, couplings=1, growth=4), (2, 2, 4, 6)),
    "rescaling x4": (
        lambda: WIN(1, 1, scale=4, width=8, modules=1, couplings=1, growth=4, copies=2),
        (2, 1, 8, 12),
    ),
    "rescaling x4, naive": (
        lambda: WINNaive(1, 1, scale=4, couplings=1, growth=4, copies=4),
        (1, 1, 8, 4),
    ),
    "rescaling x4, naive, published": (
        lambda: WINNaive(1, 1, scale=4, couplings=1, growth=4, copies=4, layout="published"),
        (1, 1, 8, 4),
    ),
    "rescaling x4, naive, plain": (
        lambda: WINNaive(1, 1, scale=4, couplings=1, growth=4, layout="published"),
        (1, 1, 4, 8),
    ),
}


def _small(in_channels, out_channels):
    return DenseBlock(in_channels, out_channels, growth=4)


def shaken(model):
    """The model with random numbers in every convolution, whose last one starts at zero."""
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.normal_(module.weight, std=0.3 / math.sqrt(module.weight[0].numel()))
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
    return model


def ranks(layer):
    """Shapes of the spatial dimensions that the layer's completion takes."""
    everything = [(), (5,), (4, 3), (1, 1), (2, 3, 2)]
    completion = layer.completion
    if isinstance(completion, Learned):
        return [sizes for sizes in everything if len(sizes) == completion.rank]
    if isinstance(completion, nn.Conv2d) or getattr(completion, "order", "") == "published":
        return [sizes for sizes in everything if len(sizes) == 2]
    return everything


def kernel_of(rows, columns, condition, *, dtype=torch.float64, spread="even"):
    """A kernel with a condition number of choice, from its singular values.

    ``spread`` says where they lie between 1 and 1/condition: "even" on a logarithmic scale, one
    "small", or one "large" and the others small.
    """
    rank = min(rows, columns)
    u = torch.linalg.qr(torch.randn(rows, rank, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(columns, rank, dtype=torch.float64))[0]
    values = torch.logspace(0, -math.log10(condition), rank, dtype=torch.float64)
    if spread == "small":
        values[:-1] = 1
    elif spread == "large":
        values[1:] = 1 / condition
    return ((u * values) @ v.mT).to(dtype)
