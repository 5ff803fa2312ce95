"""FrEIA modules: their framework's contracts, with its real graphs and sequences."""

import copy
import inspect
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("FrEIA", reason="needs the extra freia")
import FrEIA.framework as Ff
import FrEIA.modules as Fm
from cases import shaken

import wic_layers
from wic_layers.blocks import AffineCoupling
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.deploy import fuse
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
    model = graph(12, 4, 4, out_channels=out, log_det="volume")
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


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("rev", [False, True])
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (WIC, {"out_channels": 4}),
        (WIC, {"out_channels": 7}),
        (WIC, {"out_channels": 3}),
        (WIC, {"out_channels": 4, "parametrization": "lu"}),
        (Coupling, {"subnet_constructor": small}),
    ],
)
def test_the_log_det_comes_back_whatever_jac_says(kind, arguments, rev, gradients):
    module = kind([(4, 3, 2)], **arguments).train(gradients)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    (channels, *_), *_ = module.output_dims([(4, 3, 2)])
    x = torch.randn(2, channels if rev else 4, 3, 2)
    with torch.set_grad_enabled(gradients):
        (y,), log_det = module((x,), rev=rev)
        (same,), quick = module((x,), rev=rev, jac=False)
    assert torch.equal(same, y)
    assert torch.equal(quick, log_det)
    assert (log_det.abs() > 1e-2).all()


def log_prob(transform, x):
    """As FrEIA's distributions say it, whose 0.2 has none: what comes with jac=False is added."""
    try:
        from FrEIA.distributions import PullBackDistribution, StandardNormalDistribution
    except ImportError:
        z, log_det = transform(x, jac=False)
        normal = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
        return normal.log_prob(z).flatten(1).sum(1) + log_det
    base = StandardNormalDistribution(*x.shape[1:])
    return PullBackDistribution(base, transform).log_prob(x)


def sequence_of(kind, *dims, **arguments):
    model = Ff.SequenceINN(*dims)
    model.append(kind, **arguments)
    return model


def test_a_likelihood_is_the_same_after_a_swap():
    x = torch.randn(5, 4, 1, 1)
    for matrix in (2 * torch.eye(4), torch.randn(4, 4)):
        model = sequence_of(Fm.Fixed1x1Conv, 4, 1, 1, M=matrix)
        before = log_prob(model, x)
        backwards = model(x, rev=True, jac=False)
        wic_layers.swap_1x1(model)
        torch.testing.assert_close(log_prob(model, x), before, rtol=1e-5, atol=1e-4)
        for new, old in zip(model(x, rev=True, jac=False), backwards, strict=True):
            torch.testing.assert_close(new, old.expand_as(new), rtol=1e-4, atol=1e-4)


def test_maximum_likelihood_learns_the_scale_of_the_data():
    model = sequence_of(WIC, 4, 1, 1, out_channels=4)
    data = 1.5 * torch.randn(500, 4, 1, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        (-log_prob(model, data).mean()).backward()
        optimizer.step()
    scales = torch.linalg.svdvals(model[0].conv.weight.detach())
    torch.testing.assert_close(scales, torch.full((4,), 1 / 1.5), rtol=0.1, atol=0)


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


@pytest.mark.parametrize("rev", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_couplings_log_det_is_summed_in_float32_at_least(dtype, rev):
    module = Coupling([(12, 64, 64)], subnet_constructor=lambda a, b: nn.Conv2d(a, b, 1), clamp=7)
    nn.init.constant_(module.coupling.H.bias, 1.0)
    module.to(dtype)
    x = torch.rand(2, 12, 64, 64).to(dtype)
    (y,), log_det = module((x,), rev=rev)
    coupling = module.coupling
    scale = (coupling.uncouple if rev else coupling.couple)(x)[1].double().flatten(1).sum(1)
    assert scale.min() > torch.finfo(torch.float16).max
    assert y.dtype == dtype
    assert log_det.dtype == torch.promote_types(dtype, torch.float32)
    limit = 1e-6 if dtype != torch.float64 else 1e-12
    torch.testing.assert_close(log_det.double(), -scale if rev else scale, rtol=limit, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_log_volume_of_a_fused_layer_is_not_rounded_to_the_kernels_dtype(dtype):
    model = sequence_of(WIC, 12, 64, 64, out_channels=12)
    with torch.no_grad():
        model[0].conv.weight.mul_(2)
    model.to(dtype)
    kernel = model[0].conv.weight.detach().double()
    (constant,) = (
        part for part in fuse(model, "forward").modules() if hasattr(part, "with_log_det")
    )
    x = torch.rand(2, 12, 64, 64).to(dtype)
    for rev in (False, True):
        volume = torch.linalg.slogdet(kernel)[1] * 64 * 64
        log_det = constant.with_log_det(x, rev=rev)[1].double()
        torch.testing.assert_close(
            log_det, (-volume if rev else volume).expand(2), rtol=1e-6, atol=0
        )


def test_around_keeps_the_layer_and_draws_nothing():
    layer, before = wic_layers.WIC(3, 4), torch.get_rng_state()
    module = WIC.around(layer, [(3, 2, 2)])
    assert torch.equal(torch.get_rng_state(), before)
    assert module.conv is layer
    x = torch.randn(2, 3, 2, 2)
    assert torch.equal(module((x,))[0][0], layer(x))
    assert module.output_dims([(3, 9, 5)]) == [(4, 9, 5)]


def test_numbers_may_be_numpys():
    dims = [tuple(np.array([4, 3, 3]))]
    x = torch.randn(2, 4, 3, 3)
    assert WIC(dims, out_channels=6)((x,))[0][0].shape == (2, 6, 3, 3)
    for split, first in ((np.int64(1), 1), (np.float32(0.25), 1), (np.float64(0.75), 3)):
        module = Coupling(dims, subnet_constructor=small, split_len=split)
        assert module.coupling.sizes == (first, 4 - first)
        assert module((x,))[0][0].shape == x.shape


@pytest.mark.parametrize("split", [0.5, 0.3, 0.75, 2])
def test_channels_are_split_as_the_frameworks_couplings_split_them(split):
    arguments = {"subnet_constructor": pointwise, "split_len": split}
    for channels in (3, 5, 6):
        theirs = Fm.RNVPCouplingBlock([(channels,)], **arguments)
        sizes = Coupling([(channels,)], **arguments).coupling.sizes
        assert sizes == (theirs.split_len1, theirs.split_len2)


def test_conditions_are_seen_in_their_order():
    module = shaken(Coupling([(4, 3, 3)], [(1, 3, 3), (2, 3, 3)], subnet_constructor=small))
    x, first, second = (torch.randn(2, channels, 3, 3) for channels in (4, 1, 2))
    (y,), _ = module((x,), c=(first, second))
    expected, _ = module.coupling.couple(x, torch.cat((first, second), dim=1))
    assert torch.equal(y, expected)
    other, _ = module.coupling.couple(x, torch.cat((second, first), dim=1))
    assert not torch.allclose(y, other)


def conditioned(condition):
    module = Coupling([(4, 3, 3)], [(2, 3, 3)], subnet_constructor=small)
    return module((torch.ones(2, 4, 3, 3),), c=condition)


@pytest.mark.parametrize(
    "shape", [(2, 3, 3, 3), (2, 2, 4, 3), (1, 2, 3, 3), (2, 2, 3), (2, 2, 3, 3, 1)]
)
def test_a_condition_of_another_shape_than_was_said(shape):
    with pytest.raises(WICShapeError) as raised:
        conditioned([torch.ones(shape)])
    assert "expected a condition of shape (2, 2, 3, 3) for input (2, 4, 3, 3)" in str(raised.value)
    assert str(raised.value).endswith(f"got {shape}.")


def test_a_wrong_shape_is_an_error_of_pythons_and_of_torchs():
    module = WIC([(3, 4, 4)], out_channels=6)
    for kind in (WICShapeError, WICError, ValueError, RuntimeError):
        with pytest.raises(kind, match=r"got \(1, 5, 4, 4\)"):
            module((torch.ones(1, 5, 4, 4),))
        with pytest.raises(kind, match=r"got \(1, 5, 4, 4\)"):
            sequence_of(WIC, 3, 4, 4, out_channels=6)(torch.ones(1, 5, 4, 4))
    copied = pickle.loads(pickle.dumps(WICShapeError("it is wrong").inside("layer")))
    assert str(copied) == "layer: it is wrong"


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
    "a condition alone": (lambda: conditioned(torch.ones(1, 2, 3, 3)), r"Write c=\[condition\]"),
    "a condition on a kernel": (
        lambda: WIC([(3, 4)], out_channels=6)((torch.ones(1, 3, 4),), c=[torch.ones(1, 1, 4)]),
        "expected no conditions; got 1",
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
