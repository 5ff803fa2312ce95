"""What FrEIA's graphs get as log_det where it is no density: a number that nobody trains on."""

import copy
import pickle

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

pytest.importorskip("FrEIA", reason="needs the extra freia")
import FrEIA.framework as Ff
import FrEIA.modules as Fm

import wic_layers
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.deploy import fuse
from wic_layers.errors import WICArgumentError, WICError
from wic_layers.freia import WIC, Coupling

NO_DENSITY = {
    "wider": {"out_channels": 7},
    "rows n": {"out_channels": 3},
    "published": {"out_channels": 3, "layout": "published"},
}
DENSITY = {
    "square": {"out_channels": 4},
    "rows m": {"out_channels": 3, "rows": "m"},
    "by name": {"out_channels": 7, "log_det": "volume"},
}
MESSAGE = r'wic_layers.freia.WIC\(4, .*no log-determinant of a density.*log_det="volume"'


def module_of(arguments):
    return WIC([(4, 3, 2)], **arguments)


def dense(c_in, c_out):
    return DenseBlock(c_in, c_out, growth=4)


def image_graph(kind, **arguments):
    """As examples/freia_channel_change.py draws it: pixels to channels, wider, couple, narrow."""
    parts = (
        (Fm.IRevNetDownsampling, {}),
        (WIC, {"out_channels": 16, **arguments}),
        (Coupling, {"subnet_constructor": dense}),
        (WIC, {"out_channels": 3, **arguments}),
    )
    if kind == "sequence":
        model = Ff.SequenceINN(3, 8, 8)
        for part, own in parts:
            model.append(part, **own)
        return model
    nodes = [Ff.InputNode(3, 8, 8)]
    for part, own in parts:
        nodes.append(Ff.Node(nodes[-1], part, own))
    nodes.append(Ff.OutputNode(nodes[-1]))
    return (Ff.GraphINN if kind == "graph" else Ff.ReversibleGraphNet)(nodes, verbose=False)


@pytest.mark.filterwarnings("ignore:ReversibleGraphNet")
@pytest.mark.parametrize("kind", ["sequence", "graph", "net"])
def test_image_graphs_train_as_they_are_and_likelihoods_raise(kind):
    model = image_graph(kind)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    x = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        y, _ = model(x)
        back, _ = model(y, rev=True)
        loss = (y - x[:, :, ::2, ::2]).square().mean() + (back - x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for rev in (False, True):
        out, log_det = model(y.detach() if rev else x, rev=rev)
        assert log_det.shape == (8,)
        with pytest.raises(WICError, match="no log-determinant of a density"):
            (out.square().sum() - log_det.sum()).backward()
    named = image_graph(kind, log_det="volume")
    named(x)[1].sum().backward()
    kernels = [part.conv.weight for part in named.modules() if isinstance(part, WIC)]
    assert all(kernel.grad.abs().max() > 0 for kernel in kernels)


@pytest.mark.parametrize("rev", [False, True])
@pytest.mark.parametrize("name", NO_DENSITY)
def test_differentiating_what_is_no_density_raises(name, rev):
    module = module_of(NO_DENSITY[name])
    x = torch.randn(2, module.conv.out_channels if rev else 4, 3, 2)
    (y,), log_det = module((x,), rev=rev)
    expected = (-6 if rev else 6) * module.conv.log_volume()
    torch.testing.assert_close(log_det, expected.expand(2))
    with pytest.raises(WICError, match=MESSAGE):
        log_det.sum().backward()
    with pytest.raises(WICError, match=MESSAGE):
        torch.autograd.grad(module((x,), rev=rev)[1].sum(), module.parameters(), create_graph=True)
    y.sum().backward()
    assert module.conv.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", DENSITY)
def test_densities_and_what_is_asked_for_by_name_are_differentiated_twice(name):
    module = module_of(DENSITY[name])
    log_det = module((torch.randn(2, 4, 3, 2),))[1]
    (slope,) = torch.autograd.grad(log_det.sum(), module.parameters(), create_graph=True)
    expected = torch.autograd.grad(12 * module.conv.log_volume(), module.parameters())
    torch.testing.assert_close(slope, expected[0])
    slope.square().sum().backward()
    assert module.conv.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", NO_DENSITY)
def test_outputs_are_differentiated_twice(name):
    module = module_of(NO_DENSITY[name])
    (y,), _ = module((torch.randn(2, 4, 3, 2),))
    (slope,) = torch.autograd.grad(y.square().sum(), module.parameters(), create_graph=True)
    slope.square().sum().backward()
    assert module.conv.weight.grad.abs().max() > 0


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", NO_DENSITY)
def test_checkpointing(name, reentrant):
    module = module_of(NO_DENSITY[name])
    x = torch.randn(2, 4, 3, 2, requires_grad=True)
    module((x,))[0][0].square().sum().backward()
    expected = module.conv.weight.grad
    module.zero_grad()

    def run():
        def inner(x):
            (y,), log_det = module((x,))
            return y, log_det

        return checkpoint(inner, x, use_reentrant=reentrant)

    run()[0].square().sum().backward()
    torch.testing.assert_close(module.conv.weight.grad, expected)
    y, log_det = run()
    with pytest.raises(WICError, match=MESSAGE):
        (y.sum() + log_det.sum()).backward()
    y, log_det = run()
    (y.sum() + 0 * log_det.sum()).backward()


@pytest.mark.parametrize("name", NO_DENSITY)
def test_functorch(name):
    module = module_of(NO_DENSITY[name])
    x = torch.randn(2, 4, 3, 2)
    weights = dict(module.named_parameters())

    def run(weights, x):
        (y,), log_det = torch.func.functional_call(module, weights, ((x,),))
        return y, log_det

    slope = torch.func.grad(lambda weights: run(weights, x)[0].square().sum())(weights)
    run(weights, x)[0].square().sum().backward()
    torch.testing.assert_close(slope["conv.weight"], module.conv.weight.grad)
    with pytest.raises(WICError, match=MESSAGE):
        torch.func.grad(lambda weights: run(weights, x)[1].sum())(weights)
    # no number can be read under vmap: NaN where the log-volume was differentiated, and there only
    y_rows, log_det_rows = torch.func.jacrev(run)(weights, x)
    assert not y_rows["conv.weight"].isnan().any()
    assert log_det_rows["conv.weight"].isnan().any()
    per_sample = torch.func.vmap(
        torch.func.grad(lambda weights, x: run(weights, x[None])[0].sum()), (None, 0)
    )(weights, x)
    assert per_sample["conv.weight"].isfinite().all()
    # forward mode says no error: the number comes along, wanted or not
    tangent = torch.func.jvp(lambda w: run(w, x), (weights,), (weights,))[1]
    assert tangent[1].isfinite().all()


@pytest.mark.parametrize("name", NO_DENSITY)
def test_with_gradients_off_and_in_copies(name):
    module = module_of(NO_DENSITY[name])
    x = torch.randn(2, 4, 3, 2)
    with torch.no_grad():
        assert not module((x,))[1].requires_grad
    fixed = copy.deepcopy(module).requires_grad_(False)
    given = x.clone().requires_grad_()
    (y,), log_det = fixed((given,))  # a constant: nothing is learned through it
    (y.sum() + log_det.sum()).backward()
    assert given.grad.isfinite().all()
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        (y,), log_det = copied((x,))
        assert torch.equal(log_det, module((x,))[1])
        with pytest.raises(WICError, match=MESSAGE):
            log_det.sum().backward()
    log_det = module((x,))[1]
    log_det += 1  # as hosts do
    with pytest.raises(WICError, match=MESSAGE):
        log_det.sum().backward()


@pytest.mark.parametrize("log_det", ["exact", "volume"])
def test_under_compile_the_gradient_is_nan_unless_it_was_asked_for(log_det):
    module = WIC([(4, 3, 2)], out_channels=7, log_det=log_det)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x: module((x,)), backend=counter, fullgraph=True)
    x = torch.randn(2, 4, 3, 2)
    for _ in range(2):
        module.zero_grad()
        (y,), _ = compiled(x)
        y.square().sum().backward()
        assert module.conv.weight.grad.isfinite().all()
    module.zero_grad()
    compiled(x)[1].sum().backward()
    assert counter.frame_count == 1
    slope = module.conv.weight.grad
    if log_det == "exact":
        assert slope.isnan().any()
    else:
        (expected,) = torch.autograd.grad(12 * module.conv.log_volume(), module.parameters())
        torch.testing.assert_close(slope, expected)


def test_exported_and_fused_graphs_give_the_number():
    model = image_graph("sequence").eval()
    x = torch.rand(2, 3, 8, 8)
    y, log_det = model(x)
    program = torch.export.export(model, (x,)).module()
    for got, expected in zip(program(x), (y, log_det), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    for got, expected in zip(fuse(model)(x), (y, log_det), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fuse(model, "forward")(x), y, rtol=1e-4, atol=1e-4)


def test_the_name_is_checked_and_goes_through_around():
    with pytest.raises(WICArgumentError, match='log_det "exact" or "volume"; got \'none\''):
        WIC([(4, 3, 2)], out_channels=7, log_det="none")
    layer = wic_layers.WIC(4, 7)
    x = torch.randn(2, 4, 3, 2)
    WIC.around(layer, [(4, 3, 2)], log_det="volume")((x,))[1].sum().backward()
    with pytest.raises(WICError, match=MESSAGE):
        WIC.around(layer, [(4, 3, 2)])((x,))[1].sum().backward()
