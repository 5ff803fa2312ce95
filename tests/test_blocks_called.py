"""Blocks are called as modules in both directions, so that hooks run and weights are current."""

import copy

import processes
import pytest
import torch
from cases import BLOCKS, NETWORKS, shaken
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils import prune, weight_norm

from wic_layers import WIC, WellPosed
from wic_layers.blocks import (
    AffineCoupling,
    Chain,
    CouplingNet,
    InvertibleBlock,
    LearnedSqueeze,
    LongTermMemory,
    Squeeze,
)
from wic_layers.blocks.reversible import save_memory
from wic_layers.deploy import fuse
from wic_layers.models import DLVIRN, HCFlow

MODELS = {
    **{name: NETWORKS[name] for name in ("hiding", "IRN x3", "IICNet", "HiNet", "rescaling x4")},
    "DLV-IRN": (lambda: DLVIRN(couplings=1, growth=4), (1, 3, 4, 4)),
    "HCFlow": (
        lambda: HCFlow(steps=1, growth=4, conditional_steps=2, width=4, depth=1),
        (1, 3, 8, 8),
    ),
    "well posed": (
        lambda: WellPosed(Chain(LearnedSqueeze(2), AffineCoupling(12), WIC(12, 12)), 12, 3),
        (1, 3, 4, 4),
    ),
    "memory": (
        lambda: LongTermMemory(2, Chain(WIC(4, 6), LongTermMemory(1, WIC(5, 5)))),
        (2, 6, 4, 4),
    ),
}


def built(name):
    """A model in float64 with random weights, and an input."""
    make, shape = MODELS[name]
    model = shaken(make()).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, WIC):
                module.weight.add_(0.2 * torch.randn_like(module.weight))
    return model, torch.rand(shape, dtype=torch.float64)


def watched(model, names):
    """Where the calls of the modules of these names are noted, forward and back."""
    there, back = [], []

    def note(name):
        def hook(module, given, kwargs, out):
            rev = kwargs.get("rev", given[1] if len(given) > 1 else False)
            (back if rev else there).append(name)

        return hook

    for name in names:
        model.get_submodule(name).register_forward_hook(note(name), with_kwargs=True)
    return there, back


def both_ways(model):
    """The names of the modules that run in both directions."""
    return [n for n, m in model.named_modules() if isinstance(m, (InvertibleBlock, WIC))]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "HCFlow"])
@pytest.mark.parametrize("way", ["rev", "inverse"])
def test_hooks_see_both_directions(name, way):
    model, x = built(name)
    there, back = watched(model, both_ways(model))
    y = model(x)
    assert sorted(there) == sorted(both_ways(model))
    assert back == []
    model(y, rev=True) if way == "rev" else model.inverse(y)
    assert sorted(back) == sorted(there) == sorted(both_ways(model))


def test_hooks_see_the_way_back_of_conditional_flows():
    model, x = built("HCFlow")
    y = model(x)
    # the layer that drops z runs where it is recorded, the blocks inside a network forward only
    names = [n for n in both_ways(model) if not n.endswith(("drop", "inner")) and ".f." not in n]
    names += ["3.flow", "3.inner.3.flow", *(f"3.flow.steps.{index}" for index in range(2))]
    there, back = watched(model, names)
    model.inverse(y)
    assert there == []
    assert sorted(back) == sorted(names)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_alone_runs_its_hooks_in_both_directions(name):
    make, shape = BLOCKS[name]
    block, x, seen = shaken(make()), torch.rand(shape), []
    plain = copy.deepcopy(block)
    block.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape))
    block.register_forward_hook(lambda module, given, out: out + 1)
    y = block(x)
    torch.testing.assert_close(y, plain(x) + 1)
    torch.testing.assert_close(block.inverse(y), plain.inverse(y) + 1)
    torch.testing.assert_close(block(y, rev=True), plain.inverse(y) + 1)
    assert seen == [x.shape, y.shape, y.shape]


def trained(model):
    """The layers whose weights are trained."""
    return [
        m
        for m in model.modules()
        if isinstance(m, nn.Conv2d) or (isinstance(m, WIC) and m.parametrization == "free")
    ]


def halve(module):
    """Prunes half of a weight, and nothing that an inverse could not do without."""
    prune.custom_from_mask(module, "weight", (torch.arange(module.weight.numel()) % 2 + 1).view(
        module.weight.shape) / 2)  # fmt: skip


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("name", ["hiding", "HCFlow", "well posed", "memory"])
def test_pruned_weights_are_current_on_the_way_back(name, memory):
    model, x = built(name)
    plain = copy.deepcopy(model)
    for module in trained(model):
        halve(module)
    y = model(x).detach()
    with torch.no_grad():  # an optimizer's step, after which no forward has run
        for module, other in zip(trained(model), trained(plain), strict=True):
            module.weight_orig.mul_(1.3)
            other.weight.copy_(module.weight_orig * module.weight_mask)
    save_memory(model, enabled=memory)
    back, expected = model.inverse(y), plain.inverse(y)
    torch.testing.assert_close(back, expected)
    found = torch.autograd.grad(back.square().sum(), [m.weight_orig for m in trained(model)])
    wanted = torch.autograd.grad(expected.square().sum(), [m.weight for m in trained(plain)])
    for module, one, other in zip(trained(model), found, wanted, strict=True):
        torch.testing.assert_close(one, other * module.weight_mask)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_pruned_weights_are_current_where_they_are_fused(direction):
    model = shaken(Chain(LearnedSqueeze(2), WIC(12, 12), AffineCoupling(12), WIC(12, 3))).double()
    for layer in (model[0].wic, model[1], model[3]):
        halve(layer)
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    model(x)
    with torch.no_grad():
        for layer in (model[0].wic, model[1], model[3]):
            layer.weight_orig.mul_(1.3)
        fused = fuse(model, direction)
        torch.testing.assert_close(fused(x), model(x, rev=direction == "reverse"))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["hiding", "well posed"])
def test_old_weight_norm_is_current_on_the_way_back(name):
    model, x = built(name)
    plain = copy.deepcopy(model)
    for module in trained(model):
        weight_norm(module)
    y = model(x).detach()
    with torch.no_grad():
        for module, other in zip(trained(model), trained(plain), strict=True):
            module.weight_g.mul_(1.3)
            other.weight.mul_(1.3)
    torch.testing.assert_close(model.inverse(y), plain.inverse(y))


@pytest.mark.parametrize("name", ["well posed", "memory"])
def test_both_directions_compile_in_one_graph_each(name):
    torch._dynamo.reset()
    model, x = built(name)
    y = model(x)
    expected = model.inverse(y)
    counter = CompileCounterWithBackend("eager")
    forward = torch.compile(model, fullgraph=True, backend=counter)
    back = torch.compile(model.inverse, fullgraph=True, backend=counter)
    for _ in range(2):
        torch.testing.assert_close(forward(x), y)
        torch.testing.assert_close(back(y), expected)
        torch.testing.assert_close(forward(y, rev=True), expected)
    assert counter.frame_count == 3


class Doubling(Squeeze):
    """A user's block: what it replaces, it calls."""

    def _forward(self, x):
        return 2 * super()._forward(x)

    def inverse(self, y):
        return super().inverse(y / 2)


class Turned(Squeeze):
    """A user's block with a forward of its own."""

    def forward(self, x, rev=False):
        return self.inverse(x) if rev else super().forward(x.flip(2))

    def inverse(self, y):
        return super().inverse(y).flip(2)


class Checked(Squeeze):
    """A user's block that calls the base's inverse where it is called with ``rev``."""

    def forward(self, x, rev=False):
        assert x.ndim == 4
        return self.inverse(x) if rev else super().forward(x)


class Own(InvertibleBlock):
    """A user's block with the two methods that a block must have."""

    def _forward(self, x):
        return 3 * x

    def _inverse(self, y):
        return y / 3


class Plain(nn.Module):
    """A user's module that knows nothing of ``rev``."""

    def forward(self, x):
        return x + 1

    def inverse(self, y):
        return y - 1


class Layer(WIC):
    """A user's layer that runs forward only when it is called."""

    def forward(self, x):
        return 2 * super().forward(x)

    def inverse(self, y):
        return super().inverse(y / 2)


@pytest.mark.parametrize("memory", [False, True])
def test_blocks_of_a_users_own_keep_their_inverse(memory):
    model = Chain(
        Own(), Plain(), Doubling(2), LongTermMemory(2, Layer(10, 10)), Chain(Turned(1), Checked(1))
    )
    save_memory(model, enabled=memory)
    x = torch.rand(1, 3, 4, 4, requires_grad=True)
    y = model(x)
    squeezed = nn.functional.pixel_unshuffle(2 * (3 * x + 1), 2)
    inner = model[3].inner
    rest = 2 * torch.einsum("mn,bnhw->bmhw", inner.weight, squeezed[:, 2:])
    torch.testing.assert_close(y, torch.cat((squeezed[:, :2], rest), 1).flip(2))
    torch.testing.assert_close(model[4][0](y, rev=True), y.flip(2))
    for back in (model.inverse(y), model(y, rev=True)):
        (rounded,) = torch.autograd.grad(back[0, 0, 0, 0], x, retain_graph=True)
        assert rounded[0, 0, 0, 0] == pytest.approx(1, abs=1e-4)
    own, seen = model[0], []
    own.register_forward_hook(lambda *_: seen.append(1))
    model.inverse(y)
    assert seen == [1]


def test_a_base_without_directions_says_so():
    for call in (InvertibleBlock(), InvertibleBlock().inverse):
        with pytest.raises(NotImplementedError):
            call(torch.rand(1, 3))
    with pytest.raises(NotImplementedError):
        InvertibleBlock()(torch.rand(1, 3), rev=True)


# ------------------------------------------------------------------------------- fully_shard


def gradients(model, x):
    """The gradients of a step in both directions, each whole."""
    model.zero_grad()
    y = model(x)
    back = model.inverse(y)
    (y.square().sum() + (back - x).square().sum()).backward()
    whole = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        whole[name] = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    return whole


def is_block(module):
    return isinstance(module, (InvertibleBlock, WIC))


def is_network(module):
    return isinstance(module, CouplingNet)


SHARDED = [
    ("HCFlow", is_block, False),
    ("well posed", is_block, True),
    ("well posed", is_network, True),
    ("well posed", lambda module: False, True),
]


def _process():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    for name, is_part, memory in SHARDED:
        torch.manual_seed(0)  # the same in both processes
        model, x = built(name)
        expected = gradients(model, x)
        save_memory(model, enabled=memory)
        for module in reversed(list(model.modules())):
            if is_part(module) and module is not model:
                fully_shard(module, mesh=mesh)
        found = gradients(fully_shard(model, mesh=mesh), x)
        for part, gradient in expected.items():
            if gradient is not None:
                torch.testing.assert_close(found[part], gradient)


@processes.needs_fork
@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(getattr(torch.distributed, "fsdp", None), "fully_shard"),
    reason="needs torch 2.6 with torch.distributed",
)
def test_every_block_can_be_sharded():
    processes.grouped(2, _process)
