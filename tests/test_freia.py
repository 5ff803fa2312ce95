"""FrEIA modules: their framework's contracts, with its real graphs and sequences."""

import copy
import inspect
import pickle
from functools import partial

import pytest
import torch
from torch import nn

pytest.importorskip("FrEIA", reason="needs the extra freia")
import FrEIA.framework as Ff
import FrEIA.modules as Fm
from cases import shaken

import wic_layers
from wic_layers.blocks import AffineCoupling
from wic_layers.blocks.subnets import DenseBlock
from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.freia import WIC, Coupling
from wic_layers.testing import log_volume_numerical

SHAPES = [(4, ()), (3, (5,)), (5, (2, 3)), (1, (1, 1)), (3, (2, 1, 2))]
OUT = {"square": lambda n: n, "wider": lambda n: n + 3, "narrower": lambda n: max(n - 2, 1)}


def small(c_in, c_out):
    return DenseBlock(c_in, c_out, growth=4)


def pointwise(c_in, c_out):
    return nn.Sequential(nn.Linear(c_in, 8), nn.Tanh(), nn.Linear(8, c_out))


def graph(*dims, out_channels, **arguments):
    """A single WIC between an input and an output node."""
    source = Ff.InputNode(*dims, name="source")
    node = Ff.Node(source, WIC, {"out_channels": out_channels, **arguments}, name="mix")
    return Ff.GraphINN([source, node, Ff.OutputNode(node, name="sink")])


def test_the_newcomer_story():
    x = torch.randn(4, 12, 32, 32)
    i = Ff.InputNode(12, 32, 32)
    n = Ff.Node(i, WIC, {"out_channels": 48})
    g = Ff.GraphINN([i, n, Ff.OutputNode(n)])
    y, ld = g(x)
    x2, ld2 = g(y, rev=True)
    assert y.shape == (4, 48, 32, 32)
    assert (x2 - x).abs().max() < 1e-5
    assert ld.shape == (len(x),)
    assert torch.equal(ld, -ld2)


@pytest.mark.parametrize("change", OUT)
@pytest.mark.parametrize(("channels", "spatial"), SHAPES)
def test_output_inverse_and_jacobian(channels, spatial, change):
    out = OUT[change](channels)
    module = WIC([(channels, *spatial)], out_channels=out, dtype=torch.float64)
    x = torch.randn(3, channels, *spatial, dtype=torch.float64)
    with torch.no_grad():
        module.conv.weight.mul_(1.5)
    (y,), log_det = module((x,))
    assert module.output_dims([(channels, *spatial)]) == [(out, *spatial)]
    assert y.shape[1:] == (out, *spatial)
    torch.testing.assert_close(log_det, log_volume_numerical(lambda x: module((x,))[0][0], x))
    (back,), log_det_back = module((y,), rev=True)
    assert log_det.shape == (3,)
    assert torch.equal(log_det, -log_det_back)
    (again,), _ = module((back,))
    torch.testing.assert_close(again, y)
    if out >= channels:
        torch.testing.assert_close(back, x)


def test_numerical_jacobian_of_the_framework_agrees_when_square():
    model = graph(3, 2, 2, out_channels=3)
    x = torch.randn(2, 3, 2, 2)
    _, log_det = model(x)
    torch.testing.assert_close(
        log_det, model.log_jacobian_numerical(x, h=1e-2), atol=1e-2, rtol=1e-2
    )


@pytest.mark.parametrize("out", [12, 48, 3])
def test_gradients_reach_input_and_kernel(out):
    model = graph(12, 4, 4, out_channels=out)
    x = torch.randn(2, 12, 4, 4, requires_grad=True)
    y, log_det = model(x)
    back, _ = model(y, rev=True)
    (back.square().sum() + log_det.sum()).backward()
    for tensor in (x, *model.parameters()):
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().max() > 0


def test_a_sequence():
    model = Ff.SequenceINN(3, 8, 8)
    model.append(Fm.HaarDownsampling)
    model.append(WIC, out_channels=16)
    model.append(Coupling, subnet_constructor=small)
    model.append(WIC, out_channels=20)
    assert model.shapes[-1] == (20, 4, 4)
    shaken(model)
    x = torch.randn(2, 3, 8, 8)
    y, log_det = model(x)
    back, log_det_back = model(y, rev=True)
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)
    torch.testing.assert_close(log_det, -log_det_back)
    assert torch.equal(model(x, jac=False)[0], y)
    assert torch.equal(model(y, rev=True, jac=False)[0], back)


def branched(force_tuple_output=False):
    """Split, a condition on another node, WIC in one branch, Concat, two outputs."""
    source = Ff.InputNode(8, 4, 4, name="source")
    hint = Ff.ConditionNode(2, 4, 4, name="hint")
    split = Ff.Node(source, Fm.Split, {"section_sizes": [3, 5], "dim": 0}, name="split")
    wide = Ff.Node(split.out0, WIC, {"out_channels": 6}, name="wide")
    coupled = Ff.Node(
        split.out1, Coupling, {"subnet_constructor": small}, conditions=hint, name="coupled"
    )
    joined = Ff.Node([wide.out0, coupled.out0], Fm.Concat, {"dim": 0}, name="joined")
    mixed = Ff.Node(joined, WIC, {"out_channels": 13}, name="mixed")
    parts = Ff.Node(mixed, Fm.Split, {"section_sizes": [4, 9], "dim": 0}, name="parts")
    first, second = Ff.OutputNode(parts.out0), Ff.OutputNode(parts.out1)
    nodes = [source, hint, split, wide, coupled, joined, mixed, parts, first, second]
    return Ff.GraphINN(nodes, force_tuple_output=force_tuple_output)


def test_a_graph_with_branches_conditions_and_two_outputs():
    model = shaken(branched())
    x, hint = torch.randn(2, 8, 4, 4), torch.randn(2, 2, 4, 4)
    (a, b), log_det = model(x, c=[hint])
    assert (a.shape[1], b.shape[1]) == (4, 9)
    assert model.output_dims([(8, 4, 4)]) == [(4, 4, 4), (9, 4, 4)]
    back, log_det_back = model((a, b), c=[hint], rev=True)
    torch.testing.assert_close(back, x, atol=1e-4, rtol=0)
    torch.testing.assert_close(log_det, -log_det_back)
    assert not torch.allclose(model(x, c=[hint + 1])[0][1], b)


def test_a_condition_on_the_output_of_a_wic():
    if "FeedForwardNode" not in Ff.__all__:
        pytest.skip("this FrEIA conditions on ConditionNode only")
    source = Ff.InputNode(6, 4, 4)
    split = Ff.Node(source, Fm.Split, {"section_sizes": [2, 4], "dim": 0})
    wide = Ff.Node(split.out0, WIC, {"out_channels": 3})
    coupled = Ff.Node(split.out1, Coupling, {"subnet_constructor": small}, conditions=wide.out0)
    joined = Ff.Node([wide.out0, coupled.out0], Fm.Concat, {"dim": 0})
    model = shaken(Ff.GraphINN([source, split, wide, coupled, joined, Ff.OutputNode(joined)]))
    x = torch.randn(2, 6, 4, 4)
    y, _ = model(x)
    torch.testing.assert_close(model(y, rev=True)[0], x, atol=1e-4, rtol=0)


def test_nested_graphs():
    inner = Ff.InputNode(12, 4, 4)
    node = Ff.Node(inner, WIC, {"out_channels": 15})
    inner_graph = Ff.GraphINN([inner, node, Ff.OutputNode(node)], force_tuple_output=True)

    def build(dims_in):
        assert dims_in == [(12, 4, 4)]
        return inner_graph

    source = Ff.InputNode(3, 8, 8)
    squeezed = Ff.Node(source, Fm.IRevNetDownsampling, {})
    nested = Ff.Node(squeezed, build, {})
    last = Ff.Node(nested, WIC, {"out_channels": 16})
    model = Ff.GraphINN([source, squeezed, nested, last, Ff.OutputNode(last)])
    x = torch.randn(2, 3, 8, 8)
    y, _ = model(x)
    assert y.shape == (2, 16, 4, 4)
    torch.testing.assert_close(model(y, rev=True)[0], x, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:ReversibleGraphNet")
def test_a_reversible_graph_net():
    source = Ff.InputNode(4, 3, 3)
    node = Ff.Node(source, WIC, {"out_channels": 6})
    model = Ff.ReversibleGraphNet([source, node, Ff.OutputNode(node)], verbose=False)
    x = torch.randn(2, 4, 3, 3)
    y, _ = model(x)
    torch.testing.assert_close(model(y, rev=True)[0], x, atol=1e-5, rtol=0)


def test_an_instance_in_a_node():
    if inspect.signature(Ff.Node.__init__).parameters["module_args"].default is inspect._empty:
        pytest.skip("this FrEIA's Node takes classes only")
    source = Ff.InputNode(4, 3, 3)
    node = Ff.Node(source, WIC(source.output_dims, out_channels=6))
    model = Ff.GraphINN([source, node, Ff.OutputNode(node)])
    assert model(torch.randn(2, 4, 3, 3))[0].shape == (2, 6, 3, 3)


def test_state_dict_copies_and_pickle():
    x = torch.randn(2, 12, 4, 4)
    model, other = graph(12, 4, 4, out_channels=3), graph(12, 4, 4, out_channels=3)
    expected = model.eval()(x)[0]
    with torch.no_grad():
        back = model(expected, rev=True)[0]
    assert list(model.state_dict()) == ["module_list.0.conv.weight"]
    other.load_state_dict(model.state_dict())
    for copied in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x)[0], expected)
        with torch.no_grad():
            torch.testing.assert_close(copied(expected, rev=True)[0], back)


def test_what_a_host_adds_to_the_log_det_stays_out_of_the_cache():
    module = WIC([(4, 2, 2)], out_channels=4).eval()
    with torch.no_grad():
        module.conv.weight.mul_(2)
        first = module((torch.randn(3, 4, 2, 2),))[1]
        kept = first.clone()
        first += 5
        assert torch.equal(module((torch.randn(3, 4, 2, 2),))[1], kept)


def test_other_image_sizes_and_empty_batches_run():
    model = graph(3, 8, 8, out_channels=4)
    y, log_det = model(torch.randn(2, 3, 5, 6))
    _, one_pixel = model(torch.randn(1, 3, 1, 1))
    torch.testing.assert_close(log_det, 30 * one_pixel.expand(2))
    assert model(y, rev=True)[0].shape == (2, 3, 5, 6)
    assert model(torch.randn(0, 3, 5, 6))[1].shape == (0,)


def test_reduced_precision_keeps_the_log_det_in_the_kernels():
    module = WIC([(4, 2, 2)], out_channels=4)
    (y,), log_det = module((torch.randn(2, 4, 2, 2).bfloat16(),))
    assert (y.dtype, log_det.dtype) == (torch.bfloat16, torch.float32)


ERRORS = {
    "two inputs": (lambda: WIC([(3, 4, 4), (3, 4, 4)], out_channels=6), "one input; got 2.*Conc"),
    "five axes": (lambda: WIC([(3, 2, 2, 2, 2)], out_channels=6), "0 to 3 spatial dimensions"),
    "a condition": (lambda: WIC([(3, 4, 4)], [(1, 4, 4)], out_channels=6), "no conditions; got"),
    "no channels": (lambda: WIC([(3, 4, 4)], out_channels=0), "out_channels as an int"),
    "a tensor": (lambda: WIC([(3, 4, 4)], out_channels=6)(torch.ones(1, 3, 4, 4)), "tuple or li"),
    "two tensors": (
        lambda: WIC([(3, 4)], out_channels=6)((torch.ones(1, 3, 4),) * 2),
        "one tensor; got 2",
    ),
    "dims of another": (
        lambda: WIC([(3, 4)], out_channels=6).output_dims([(4, 4)]),
        r"like those it was built for, \[\(3, 4\)\]; got \[\(4, 4\)\]",
    ),
    "around another width": (
        lambda: WIC.around(wic_layers.WIC(3, 4), [(5, 2, 2)]),
        "the layer's 3 channels",
    ),
    "a coupling of one": (lambda: Coupling([(1, 4, 4)]), "at least 2 channels"),
    "a dense block on vectors": (lambda: Coupling([(4,)]), "Give a subnet_constructor"),
    "a condition of another size": (
        lambda: Coupling([(4, 4, 4)], [(4, 2, 2)]),
        r"spatial dims \(4, 4\)",
    ),
    "a condition that is not there": (
        lambda: Coupling([(4, 4, 4)])((torch.ones(1, 4, 4, 4),), c=[torch.ones(1, 1, 4, 4)]),
        "expected 0 conditions; got 1",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(WICArgumentError, match=message):
        call()


def test_a_wrong_size_names_the_node_what_came_and_what_was_expected():
    model = graph(12, 8, 8, out_channels=48)
    for x, rev, expected in (
        (torch.randn(1, 5, 8, 8), False, r"\(B, 12, \*, \*\); got \(1, 5, 8, 8\)"),
        (torch.randn(1, 12, 8), False, r"\(B, 12, \*, \*\); got \(1, 12, 8\)"),
        (torch.randn(1, 12, 8, 8), True, r"\(B, 48, \*, \*\); got \(1, 12, 8, 8\)"),
    ):
        with pytest.raises(RuntimeError, match="'mix'") as raised:
            model(x, rev=rev)
        cause = raised.value.__cause__
        assert isinstance(cause, WICShapeError)
        with pytest.raises(WICError, match=expected):
            raise cause


@pytest.mark.parametrize(
    ("dims", "dims_c", "arguments"),
    [
        ((6, 3, 2), [], {"subnet_constructor": small}),
        ((5, 3, 2), [(2, 3, 2)], {"subnet_constructor": small, "clamp": 2.0, "split_len": 1}),
        ((4, 2, 2), [(1, 2, 2), (2, 2, 2)], {"subnet_constructor": small, "split_len": 0.25}),
        ((7,), [(2,)], {"subnet_constructor": pointwise}),
    ],
)
def test_coupling_inverts_and_its_jacobian_is_exact(dims, dims_c, arguments):
    module = shaken(Coupling([dims], dims_c, **arguments)).double()
    x = torch.randn(2, *dims, dtype=torch.float64)
    c = [torch.randn(2, *condition, dtype=torch.float64) for condition in dims_c]
    (y,), log_det = module((x,), c=c)
    (back,), log_det_back = module((y,), c=c, rev=True)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det_back, -log_det)
    assert module.output_dims([dims]) == [dims]
    numerical = []
    for i in range(2):
        own = [condition[i : i + 1] for condition in c]
        alone = partial(lambda own, x: module((x,), c=own)[0][0], own)
        numerical.append(log_volume_numerical(alone, x[i : i + 1]))
    torch.testing.assert_close(log_det, torch.cat(numerical))


def test_irn_drawn_as_a_graph_is_irn():
    blocks = [shaken(AffineCoupling(12, split=3, subnet=small)) for _ in range(2)]
    source = Ff.InputNode(12, 4, 4)
    nodes = [source]
    for _ in blocks:
        nodes.append(Ff.Node(nodes[-1], Coupling, {"subnet_constructor": small, "split_len": 3}))
    model = Ff.GraphINN([*nodes, Ff.OutputNode(nodes[-1])])
    for node, block in zip(nodes[1:], blocks, strict=True):
        node.module.coupling.load_state_dict(block.state_dict())
    x = torch.randn(2, 12, 4, 4)
    expected = blocks[1](blocks[0](x))
    torch.testing.assert_close(model(x)[0], expected)
    torch.testing.assert_close(model(expected, rev=True)[0], x)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("out", [12, 48, 3])
def test_on_cuda(out):
    model = graph(12, 8, 8, out_channels=out)
    x = torch.randn(2, 12, 8, 8)
    expected, log_det = model(x)
    model.cuda()
    y, log_det_cuda = model(x.cuda())
    torch.testing.assert_close(y.cpu(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_det_cuda.cpu(), log_det, atol=1e-4, rtol=1e-5)
    again, _ = model(model(y, rev=True)[0])
    torch.testing.assert_close(again, y, atol=1e-5, rtol=1e-5)
