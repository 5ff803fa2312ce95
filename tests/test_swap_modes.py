"""Swapped models in what runs them: compile, autocast, torch.func, replicas, processes."""

import importlib

import processes
import processes_swap
import pytest
import torch
from swapping import (
    batch,
    built,
    latent,
    layer_batch,
    moved,
    named,
    objective,
    require_alike,
    require_close,
)
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.optim.swa_utils import AveragedModel

from wic_layers import swap_1x1
from wic_layers.hosts.answering import kernel_of
from wic_layers.hosts.engine import HostKernel

FREE, LU, WAVES = (
    "(x, logdet, reverse), free",
    "forward, reverse(y), LU",
    "(z, reverse), log-det of the batch, W_inverse stays",
)
FACTORS = "(x, logdet, reverse), LU"
GROUPS = "(x, x_mask, reverse), groups share a kernel"
ROWS = "z @ W from latent to data, free"
PACKED = "(inputs, context=None), vectors, packed LU with bias"
BLOCK = "(x,), rev, jac, matrix in a block"
MODE = "(inputs, cond_inputs, mode), free"
PAIR = "forward, inverse, both with log-det, free"
CASES = pytest.mark.parametrize("name", [FREE, LU, WAVES, GROUPS, ROWS, BLOCK, MODE, PAIR])


def pair_of(name):
    """The case, a swapped model, and its unswapped twin."""
    case = named(name)
    model, twin = (moved(case, built(case)) for _ in range(2))
    swap_1x1(model)
    return case, model, twin


class TestCompiled:
    @pytest.fixture(autouse=True)
    def _no_graphs_from_before(self):
        torch._dynamo.reset()

    @pytest.mark.parametrize("name", [FREE, FACTORS, WAVES])
    def test_in_one_graph_both_ways(self, name):
        case, model, twin = pair_of(name)
        x = batch(case)
        counter = CompileCounterWithBackend("aot_eager")
        there = torch.compile(case.forward, backend=counter, fullgraph=True)
        back = torch.compile(case.inverse, backend=counter, fullgraph=True)
        for _ in range(2):
            z, log_det = there(model, x)
            require_alike((z, log_det), case.forward(twin, x))
            (z.square().mean() - log_det.mean()).backward()
        old_z, old_log_det = case.forward(twin, x)
        for _ in range(2):
            (old_z.square().mean() - old_log_det.mean()).backward(retain_graph=True)
        for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
            require_close(parameter.grad, other.grad, 1e-4)
        for network in (model, twin):
            network.eval()
        with torch.no_grad():
            for _ in range(2):
                require_close(back(model, z.detach()), case.inverse(twin, z.detach()))
        assert counter.frame_count == 2

    def test_a_step_between_calls_is_seen(self):
        case, model, _ = pair_of(FREE)
        model.eval()
        x = latent(case)
        back = torch.compile(case.inverse, backend="aot_eager", fullgraph=True)
        with torch.no_grad():
            back(model, x)
            for parameter in model.parameters():
                parameter.data.mul_(1.1)
            require_close(back(model, x), case.inverse(model, x))


class TestPrecision:
    @pytest.mark.parametrize("name", [FREE, LU, WAVES, GROUPS, ROWS, MODE, PAIR])
    @torch.no_grad()
    def test_autocast_returns_the_hosts_dtype_and_rounds_once(self, name):
        case, model, twin = pair_of(name)
        layer, other = (one.eval().get_submodule(case.layers[0]) for one in (model, twin))
        x = layer_batch(case)
        use, call = next(iter(case.layer_calls.items()))
        exact = _tensors(call(layer, x))
        with torch.autocast("cpu", torch.bfloat16):
            mine, theirs = _tensors(call(layer, x)), _tensors(call(other, x))
        assert mine[0].dtype == theirs[0].dtype, use
        off, host_off = ((y[0].float() - exact[0]).abs().max() for y in (mine, theirs))
        assert off <= 1.01 * host_off + 1e-6
        for value, expected in zip(
            mine[1:], exact[1:], strict=True
        ):  # log-dets are no sums of bits
            require_close(value.float(), expected.float(), 1e-5)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("name", [FREE, LU, WAVES])
    @torch.no_grad()
    def test_lower_weights_run_both_ways(self, name, dtype):
        case, model, _ = pair_of(name)
        layer = model.eval().get_submodule(case.layers[0]).to(dtype)
        x = layer_batch(case).to(dtype)
        calls = {use: call for use, call in case.layer_calls.items() if use in NAMES}
        (there, back), eps = calls.values(), torch.finfo(dtype).eps
        y = _tensors(there(layer, x))
        assert y[0].dtype == dtype
        kernel = kernel_of(layer).weight.double()
        assert kernel_of(layer).weight.dtype == dtype
        expected = torch.einsum("ij,bj...->bi...", kernel, x.double())
        require_close(y[0].double(), expected, 2 * eps)
        if len(y) > 1:
            assert y[1].dtype == torch.float32
            volume = torch.slogdet(kernel)[1]
            ratio = y[1].double().flatten()[0] / volume
            assert abs(ratio - ratio.round()) < 1e-3 * abs(ratio)
        require_close(_tensors(back(layer, y[0]))[0].double(), x.double(), 16 * eps)


NAMES = ("forward", "reverse", "inverse")


def _tensors(result):
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, (list, tuple)):
        return [tensor for one in result for tensor in _tensors(one)]
    return []


class TestFunctional:
    @pytest.mark.parametrize("name", [FREE, FACTORS, BLOCK])
    def test_calls_with_other_parameters(self, name):
        case, model, twin = pair_of(name)
        x = batch(case)
        other = moved(case, built(case), seed=6).named_parameters()
        wrapped, plain = Run(model, case), Run(twin, case)
        values = {f"model.{key}": value.detach() for key, value in other if value.requires_grad}
        for gradients in (False, True):
            with torch.set_grad_enabled(gradients):
                for _ in range(2):
                    new = functional_call(wrapped, values, (x,))
                    require_alike(new, functional_call(plain, values, (x,)))
                    require_close(wrapped(x), plain(x))
        gradients = [grad(lambda v, one=one: functional_call(one, v, (x,)))(values)
                     for one in (wrapped, plain)]  # fmt: skip
        for key, value in gradients[1].items():
            require_close(gradients[0][key], value, 1e-4)

    @pytest.mark.parametrize("name", [FREE, LU])
    def test_vmap_over_a_stack_of_parameters(self, name):
        case = named(name)
        models = [moved(case, built(case), seed=seed) for seed in (6, 7)]
        x, z = batch(case), latent(case)
        expected = torch.stack([Run(model, case)(x) for model in models])
        inverses = torch.stack([case.inverse(model, z) for model in models])
        for model in models:
            swap_1x1(model)
        values, buffers = stack_module_state([Run(model, case) for model in models])
        base = Run(models[0], case)
        buffers = {k: v for k, v in buffers.items() if not k.endswith("initialized")}

        def run(values, buffers, rev):
            return functional_call(base, (values, buffers), (z if rev else x, rev))

        require_close(vmap(lambda v, b: run(v, b, False))(values, buffers), expected)
        require_close(vmap(lambda v, b: run(v, b, True))(values, buffers), inverses, 1e-4)


class Run(nn.Module):
    """The loss of a case, or its way back, as a module."""

    def __init__(self, model, case):
        super().__init__()
        self.model, self.case = model, case

    def forward(self, x, rev=False):
        return self.case.inverse(self.model, x) if rev else objective(self.case, self.model, x)


class TestReplicas:
    @pytest.fixture
    def replicas(self, monkeypatch):
        """Two replicas of a module as nn.DataParallel makes them, on the CPU."""
        replication = importlib.import_module("torch.nn.parallel.replicate")

        def broadcast(tensors, devices, detach=False):
            return [
                [t.detach().clone() if detach else t.clone() for t in tensors] for _ in devices
            ]

        monkeypatch.setattr(replication, "_broadcast_coalesced_reshape", broadcast)
        monkeypatch.setattr(
            replication, "_get_all_device_indices", lambda *_: [0, 1], raising=False
        )
        return lambda module: replication.replicate(module, [0, 1])

    @CASES
    def test_they_do_what_the_model_does(self, name, replicas):
        case, model, _ = pair_of(name)
        x = batch(case)
        expected = case.forward(model, x)
        objective(case, model, x).backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        copies = replicas(model)
        for one in copies:
            require_alike(case.forward(one, x), expected)
            layer = one.get_submodule(case.layers[0])
            assert kernel_of(layer).host is layer
            with torch.no_grad():
                require_close(case.inverse(one, expected[0]).view_as(x), x, 1e-4)
        objective(case, copies[1], x).backward()
        for key, value in gradients.items():
            require_close(dict(model.named_parameters())[key].grad, value)

    def test_they_see_every_step(self, replicas):
        case, model, twin = pair_of(FREE)
        x = latent(case)
        model.eval()
        with torch.no_grad():
            case.inverse(replicas(model)[1], x)
            for one in (model, twin):
                for parameter in one.parameters():
                    parameter.data.mul_(1.1)
            require_close(case.inverse(replicas(model)[1], x), case.inverse(twin, x))


class TestSampling:
    """On the CPU, where it is compared by value, an inverse is kept in train mode too."""

    @pytest.mark.parametrize("is_training", [True, False])
    @torch.no_grad()
    def test_one_inverse_for_many_samples(self, is_training, monkeypatch):
        case, model, _ = pair_of(LU)
        model.train(is_training)
        counted = []
        inverse = HostKernel._checked_inverse
        monkeypatch.setattr(
            HostKernel, "_checked_inverse", lambda *a: counted.append(1) or inverse(*a)
        )
        z = case.forward(model, batch(case))[0]
        for _ in range(3):
            case.inverse(model, z)
        assert len(counted) == len(case.layers)
        with torch.enable_grad():
            case.inverse(model, z)
        assert len(counted) == 2 * len(case.layers)

    @pytest.mark.parametrize("name", [FREE, LU, PACKED])
    @pytest.mark.parametrize("is_training", [True, False])
    def test_fused_steps_between_samples_are_seen(self, name, is_training):
        case, model, twin = pair_of(name)
        x, z = batch(case), latent(case)
        both = [
            (one, torch.optim.Adam(one.parameters(), 1e-2, fused=True)) for one in (model, twin)
        ]
        for _ in range(3):
            for one, optimizer in both:
                one.train(is_training)
                optimizer.zero_grad()
                objective(case, one, x).backward()
                optimizer.step()
            with torch.no_grad():
                one.train()  # where the twin drops what it keeps
                require_close(case.inverse(model, z), case.inverse(twin, z), 1e-4)

    @pytest.mark.parametrize("is_training", [True, False])
    @torch.no_grad()
    def test_edits_past_autograd_are_seen(self, is_training):
        case, model, twin = pair_of(FREE)
        x, z = batch(case), latent(case)
        for one in (model, twin):
            one.train(is_training)
        for step in range(3):
            for one in (model, twin):
                for name in case.layers:
                    layer = one.get_submodule(name)
                    noise = torch.randn(12, 12, generator=torch.Generator().manual_seed(step))
                    layer.weight.data.add_(0.05 * noise[: len(layer.weight), : len(layer.weight)])
            require_close(case.inverse(model, z), case.inverse(twin, z), 1e-4)
            require_close(case.forward(model, x)[1], case.forward(twin, x)[1])


def test_a_moving_average_follows():
    case, model, twin = pair_of(LU)
    x, z = batch(case), latent(case)
    decay = torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    averages = []
    for one in (model, twin):
        average = AveragedModel(one, multi_avg_fn=decay)
        optimizer = torch.optim.SGD(one.parameters(), 0.05)
        for _ in range(3):
            optimizer.zero_grad()
            objective(case, one, x).backward()
            optimizer.step()
            average.update_parameters(one)
            with torch.no_grad():
                case.inverse(average.module, z)
        averages.append(average.module.eval())
    with torch.no_grad():
        require_alike(case.forward(averages[0], x), case.forward(averages[1], x))
        require_close(case.inverse(averages[0], z), case.inverse(averages[1], z), 1e-4)


@processes.needs_fork
@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_processes_have_the_gradients_of_one(how, tmp_path):
    processes.grouped(2, processes_swap.train, how, tmp_path)
    for name in (FREE, LU):
        case = named(name)
        model = moved(case, built(case))  # unswapped
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        for _ in range(2):
            optimizer.zero_grad()
            objective(case, model, batch(case)).backward()
            optimizer.step()
        results = [torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(2)]
        for key, value in model.state_dict().items():
            assert torch.equal(results[0][key], results[1][key])
            require_close(results[0][key].to(value.dtype), value)
        with torch.no_grad():
            require_close(results[0]["sample"], case.inverse(model, latent(case)), 1e-4)
