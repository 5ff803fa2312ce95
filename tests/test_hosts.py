"""What holds through every host: the losses, compiled or not, imports, two processes."""

import subprocess
import sys
import textwrap

import processes
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.parallel import DistributedDataParallel

from wic_layers import WIC, WellPosed, det_loss, record_wic, shift_loss
from wic_layers.blocks import AffineCoupling, Chain, Squeeze
from wic_layers.blocks.dense_block import DenseBlock

X = torch.linspace(-2, 2, 2 * 12 * 16).view(2, 12, 4, 4)


@pytest.fixture(autouse=True)
def _no_graphs_from_before():
    torch._dynamo.reset()


def graph_inn():
    pytest.importorskip("FrEIA", reason="needs the extra freia")
    import FrEIA.framework as Ff

    from wic_layers.freia import WIC as Module

    source = Ff.InputNode(12, 4, 4)
    wide = Ff.Node(source, Module, {"out_channels": 16, "log_det": "volume"})
    narrow = Ff.Node(wide, Module, {"out_channels": 5, "log_det": "volume"})
    return Ff.GraphINN([source, wide, narrow, Ff.OutputNode(narrow)]), lambda model, x: model(x)


def sequence_inn():
    pytest.importorskip("FrEIA", reason="needs the extra freia")
    import FrEIA.framework as Ff

    from wic_layers.freia import WIC as Module

    model = Ff.SequenceINN(12, 4, 4)
    model.append(Module, out_channels=16, log_det="volume")
    model.append(Module, out_channels=5, log_det="volume")
    return model, lambda model, x: model(x)


def normalizing_flow():
    nf = pytest.importorskip("normflows", reason="needs the extra normflows")
    from wic_layers.normflows import WIC as Flow

    model = nf.NormalizingFlow(
        nf.distributions.DiagGaussian((5, 4, 4)),
        [
            Flow(in_channels=16, out_channels=5, rows="n", log_det="volume"),
            Flow(in_channels=12, out_channels=16, log_det="volume"),
        ],
    )
    return model, lambda model, x: model.inverse_and_log_det(x)


def multiscale_flow():
    nf = pytest.importorskip("normflows", reason="needs the extra normflows")
    from wic_layers.normflows import WIC as Flow

    flows = [
        [Flow(in_channels=16, out_channels=5, rows="n", log_det="volume"), nf.flows.Squeeze()],
        [Flow(in_channels=8, out_channels=8)],
    ]
    q0 = [nf.distributions.DiagGaussian((5, 2, 2)), nf.distributions.DiagGaussian((4, 4, 4))]
    model = nf.MultiscaleFlow(q0, flows, [nf.flows.Merge()], class_cond=False)

    def run(model, x):
        z, log_det = model.inverse_and_log_det(x[:, :8])
        return z[0], log_det

    return model, run


HOSTS = {
    "GraphINN": graph_inn,
    "SequenceINN": sequence_inn,
    "NormalizingFlow": normalizing_flow,
    "MultiscaleFlow": multiscale_flow,
}


def step(model, run):
    """Losses and gradients of one step with both auxiliary losses."""
    model.zero_grad()
    with record_wic(model) as records:
        y, log_det = run(model, X)
    target = torch.zeros_like(records[0].output)
    total = y.square().sum() + log_det.sum() + det_loss(model) + shift_loss(records, target)
    total.backward()
    (name,) = records.names
    assert dict(model.named_modules())[name] is records[0].layer
    kernels = [module.weight for module in model.modules() if isinstance(module, WIC)]
    return total.detach(), [kernel.grad.clone() for kernel in kernels]


@pytest.mark.parametrize("host", HOSTS)
def test_losses_are_those_of_the_bare_layers(host):
    model, run = HOSTS[host]()
    layers = [module for module in model.modules() if isinstance(module, WIC)]
    narrow = next(layer for layer in layers if layer.out_channels < layer.in_channels)
    with record_wic(model) as records:
        run(model, X)
    assert [record.layer for record in records] == [narrow]
    torch.testing.assert_close(
        det_loss(model), torch.stack([layer.gram_logdet().abs() for layer in layers]).sum()
    )
    extra = records[0].extra
    assert extra.shape[1] == narrow.in_channels - narrow.out_channels
    expected = (extra - narrow.complete(records[0].output)).square().add(1e-6).sqrt().sum() / 2
    torch.testing.assert_close(shift_loss(records), expected)


@pytest.mark.parametrize("host", HOSTS)
def test_compiled_steps_give_the_same_gradients_in_two_graphs(host):
    model, run = HOSTS[host]()
    total, gradients = step(model, run)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(run, fullgraph=True, backend=counter)
    for call in range(6):
        if call % 2:
            with torch.no_grad():
                torch.testing.assert_close(compiled(model, X), run(model, X))
        found, found_gradients = step(model, compiled)
        torch.testing.assert_close(found, total)
        torch.testing.assert_close(found_gradients, gradients)
    assert counter.frame_count <= 3  # recorded, not recorded, and without gradients


def test_frameworks_are_loaded_by_their_shells_and_named_where_they_are_missing():
    code = """
        import importlib, sys, torch, wic_layers
        try:
            wic_layers.swap_1x1(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)))
        except wic_layers.WICError:
            pass
        print([name for name in sys.modules if name in ("FrEIA", "normflows")])
        for host in ("FrEIA", "normflows"):
            sys.modules[host] = None
            try:
                importlib.import_module(f"wic_layers.{host.lower()}")
            except wic_layers.errors.WICDependencyError as error:
                print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]"] + [
        f"wic_layers.{host.lower()} needs {host}. Run: pip install 'wic-layers[{host.lower()}]'"
        for host in ("FrEIA", "normflows")
    ]


# two processes


def network():
    torch.manual_seed(3)
    coupling = AffineCoupling(12, subnet=lambda a, b: DenseBlock(a, b, growth=4))
    net = WellPosed(Chain(Squeeze(2), WIC(12, 12), coupling), 12, 3, completion="repeat")
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2) if parameter.ndim == 4 else None
    return net


def loss_of(model, x, target):
    """Forward, back, and both losses: one scalar, as a training has it."""
    with record_wic(model) as records:
        y = model(x)
    back = model(y, rev=True)
    pixels = (back - x).square().mean() + (y - target).square().mean()
    return pixels + 0.1 * det_loss(model) + 0.01 * shift_loss(records, target)


def batch():
    generator = torch.Generator().manual_seed(4)
    return torch.rand(4, 3, 8, 8, generator=generator), torch.rand(4, 3, 4, 4, generator=generator)


def _process(folder):
    rank = torch.distributed.get_rank()
    model = DistributedDataParallel(network())
    x, target = (part.chunk(2)[rank] for part in batch())
    for _ in range(2):  # the second finds the buckets rebuilt
        model.zero_grad()
        loss_of(model, x, target).backward()
    gradients = [parameter.grad.clone() for parameter in model.module.parameters()]
    torch.save(gradients, folder / f"{rank}.pt")


@pytest.mark.ddp
@pytest.mark.slow
@processes.needs_fork
def test_two_processes_have_the_gradients_of_one(tmp_path):
    processes.grouped(2, _process, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    model = network()
    loss_of(model, *batch()).backward()
    for a, b, alone in zip(first, second, model.parameters(), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, alone.grad, rtol=1e-4, atol=1e-5)
