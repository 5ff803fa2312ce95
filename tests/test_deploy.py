"""One direction of a model without linear algebra: the same numbers, traced and exported."""

import copy
import logging
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from cases import BLOCKS, DETERMINISTIC, LAYERS, NETWORKS, kernel_of, ranks, shaken
from hypothesis import given
from hypothesis import strategies as st
from skimage import data
from torch import nn
from torch.export import Dim

from wic_layers import WIC, WellPosed
from wic_layers.blocks import (
    AffineCoupling,
    Chain,
    ChannelMean,
    DenseBlock,
    Haar,
    LearnedSqueeze,
    Squeeze,
)
from wic_layers.deploy import export_program, fuse
from wic_layers.deploy.constants import Completed, Matrix
from wic_layers.deploy.fusing import lowered
from wic_layers.errors import IllConditionedError, WICArgumentError, WICShapeError
from wic_layers.hosts.swap import register_1x1
from wic_layers.models import NETWORKS as NETWORKS_BY_NAME
from wic_layers.models import (
    PRESETS,
    HiNet,
    IICNet,
    WINNaive,
    from_pretrained,
    packaged_weights,
)
from wic_layers.tasks import down

ALGEBRA = ("linalg", "inv", "slogdet", "solve", "_qr", "det", "cholesky", "lu_")


def require_close(found, wanted, tolerance=1e-5):
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    scale = max(float(wanted.abs().max()), 1e-3)
    assert float((found - wanted).abs().max()) <= tolerance * scale


def exported(module, x):
    """Through torch.export with any batch, height and width, and no linear algebra in it."""
    sides = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(module, (x,), dynamic_shapes=(sides,))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets
    assert not [name for name in targets if any(word in name for word in ALGEBRA)]
    return program.module()


@pytest.mark.parametrize("name", DETERMINISTIC)
@torch.no_grad()
def test_layers(name):
    layer = shaken(LAYERS[name]()).eval()
    there, back = fuse(layer, "forward"), fuse(layer, "reverse")
    for module in (there, back):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())
    for spatial in ranks(layer):
        x = torch.randn(2, layer.in_channels, *spatial)
        y = torch.randn(2, layer.out_channels, *spatial)
        require_close(there(x), layer(x))
        require_close(back(y), layer.inverse(y))


@pytest.mark.parametrize("name", {**BLOCKS, **NETWORKS})
@torch.no_grad()
def test_blocks_and_networks(name):
    make, shape = {**BLOCKS, **NETWORKS}[name]
    model, x = shaken(make()), torch.randn(shape)
    before = copy.deepcopy(model.state_dict())
    y = model(x)
    for direction, given_, wanted in (("forward", x, y), ("reverse", y, model.inverse(y))):
        fused = fuse(model, direction)
        require_close(fused(given_), wanted)
        assert not any(isinstance(module, WIC) for module in fused.modules())
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    if fused.state_dict():  # nothing is shared with the model
        for value in fused.state_dict().values():
            value.fill_(7)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


SIZES = st.lists(st.integers(1, 5), min_size=0, max_size=3)


@given(
    st.integers(1, 12), st.integers(1, 12), st.sampled_from(("zero", "repeat", "shift")),
    st.sampled_from((None, "m", 3, "published")), SIZES, st.floats(0, 4),
)  # fmt: skip
@torch.no_grad()
def test_any_layer(n, m, completion, rows, sizes, decades):
    arguments = {"completion": completion}
    if rows == "published":
        arguments["layout"] = rows
        sizes = (*sizes, 2, 3)[:2]
    elif rows == "m" and m < n:
        arguments = {"rows": "m"}
    elif rows == 3 and m < n:
        arguments["rows"] = n + rows
    layer = WIC(n, m, **arguments, dtype=torch.float64)
    layer.weight.copy_(kernel_of(*layer.weight.shape, 10**decades))
    x, y = (torch.randn(2, channels, *sizes, dtype=torch.float64) for channels in (n, m))
    # the rows that hold exactly may be conditioned worse than all of them
    require_close(fuse(layer, "forward")(x), layer(x), 1e-12)
    limit = 1e-13 * 10**decades * float(torch.linalg.cond(layer.weight[:m]))
    require_close(fuse(layer, "reverse")(y), layer.inverse(y), limit)


@torch.no_grad()
def test_what_becomes_one_constant():
    kinds = {"zero": Matrix, "repeat": Matrix, "shift": Completed, "learned": Completed}
    for completion, kind in kinds.items():
        fused = fuse(Chain(WIC(12, 3, completion=completion)), "reverse")
        assert type(fused.module[0].back) is kind


@torch.no_grad()
def test_constants_keep_the_digits_of_their_inputs():
    halved = WIC(6, 6).bfloat16()  # its inverse is none of its dtype's numbers
    reverse, y = fuse(halved, "reverse"), torch.randn(2, 6, 3, 3)
    assert {constant.dtype for constant in reverse.buffers()} == {torch.float32}
    assert {constant.dtype for constant in fuse(WIC(6, 6), "forward").buffers()} == {torch.float32}
    require_close(reverse(y), halved.inverse(y))
    mixed, x = Chain(WIC(4, 6), WIC(6, 5, dtype=torch.float64)), torch.randn(2, 4).double()
    assert fuse(mixed, "forward").module[1].there.matrix.dtype == torch.float64
    require_close(fuse(mixed, "forward")(x), mixed(x), 1e-13)


def test_shared_blocks_stay_shared():
    coupling, layer = AffineCoupling(12), WIC(12, 12)
    fused = fuse(Chain(Squeeze(2), coupling, layer, coupling, layer), "forward").module
    assert fused[1] is fused[3]
    assert fused[2] is fused[4]


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("hiding, published", "reverse"),
        ("rescaling x4, naive", "forward"),
        ("rescaling", "reverse"),
    ],
)
@torch.no_grad()
def test_export_with_any_size(name, direction):
    make, shape = NETWORKS[name]
    model = shaken(make()).eval()
    sides = [(2, 24, 16), (3, 40, 72), (1, 8, 88)]
    inputs = [torch.randn(batch, shape[1], height, width) for batch, height, width in sides]
    if direction == "reverse":
        inputs = [model(x) for x in inputs]
    function = exported(fuse(model, direction), inputs[0])
    for x in inputs:
        require_close(function(x), model.inverse(x) if direction == "reverse" else model(x))


@pytest.mark.parametrize("name", packaged_weights())
@torch.no_grad()
def test_weights_of_the_package(name):
    model = from_pretrained(name)
    photo = torch.from_numpy(data.astronaut()[100:132, 200:240]).permute(2, 0, 1)[None].float()
    x = torch.cat([photo / 255] * (model.config["in_channels"] // 3), dim=1)
    y = model(x)
    require_close(fuse(model, "forward")(x), y)
    require_close(fuse(model, "reverse")(y), model.inverse(y))


@torch.no_grad()
def test_other_blocks():
    for block, x in (
        (Haar(mean=True), torch.randn(2, 3, 4, 6)),
        (LearnedSqueeze(3), torch.randn(2, 2, 6, 9)),
        (ChannelMean(3), torch.randn(2, 6, 4)),
        (HiNet(couplings=1, growth=4), torch.randn(1, 6, 4, 8)),
    ):
        shaken(block).eval()
        y = block(x)
        require_close(fuse(block, "forward")(x), y)
        require_close(fuse(block, "reverse")(y), block.inverse(y))


class Doubling(nn.Module):
    """A block of a user's own, with a WIC inside."""

    def __init__(self):
        super().__init__()
        self.mix = WIC(12, 12)

    def forward(self, x):
        return 2 * self.mix(x)

    def inverse(self, y):
        return self.mix.inverse(y / 2)


class Host(nn.Module):
    """A network of another code base."""

    def __init__(self):
        super().__init__()
        self.mix = WIC(12, 12)
        self.turn = nn.Parameter(torch.linalg.qr(torch.randn(12, 12))[0])

    def forward(self, x, rev=False):
        if rev:
            return F.pixel_shuffle(self.mix(self.apply_turn(x, self.turn.T), rev=True), 2)
        return self.apply_turn(self.mix(F.pixel_unshuffle(x, 2)), self.turn)

    @staticmethod
    def apply_turn(x, matrix):
        return torch.einsum("ij,bjhw->bihw", matrix, x)


@torch.no_grad()
def test_blocks_of_other_code():
    chain = Chain(Squeeze(2), Doubling(), WIC(12, 3))
    posed = WellPosed(Host(), 12, 3)
    for model in (chain, posed):
        x = torch.randn(2, 3, 12, 16)
        y = model(x)
        for direction, given_, wanted in (("forward", x, y), ("reverse", y, model.inverse(y))):
            fused = fuse(model, direction)
            require_close(fused(given_), wanted)
            require_close(exported(fused, given_)(given_[..., :4, :]), fused(given_[..., :4, :]))
            assert not any(isinstance(module, WIC) for module in fused.modules())


@torch.no_grad()
def test_own_networks_inside_couplings():
    """Any subnet, even one with a WIC in it that has no inverse to be fused."""

    def subnet(inputs, outputs):
        return nn.Sequential(
            WIC(inputs, 8), WIC(8, 4, completion="gaussian"), nn.Tanh(), nn.Conv2d(4, outputs, 1)
        )

    model = Chain(Squeeze(2), AffineCoupling(12, subnet=subnet), WIC(12, 3))
    x = torch.randn(1, 3, 4, 4)
    y = model(x)
    require_close(fuse(model, "forward")(x), y)
    require_close(fuse(model, "reverse")(y), model.inverse(y))


def freia_graph(**arguments):
    framework = pytest.importorskip("FrEIA.framework")
    modules = pytest.importorskip("FrEIA.modules")
    from wic_layers import freia

    source = framework.InputNode(12, 8, 8)
    condition = framework.ConditionNode(2, 8, 8)
    wide = framework.Node(source, freia.WIC, {"out_channels": 16})
    turn = {"M": torch.linalg.qr(torch.randn(16, 16))[0]}
    turned = framework.Node(wide, modules.Fixed1x1Conv, turn)
    coupled = framework.Node(turned, freia.Coupling, {}, conditions=condition)
    narrow = framework.Node(coupled, freia.WIC, {"out_channels": 3, **arguments})
    end = framework.OutputNode(narrow)
    return framework.GraphINN([source, condition, wide, turned, coupled, narrow, end])


@torch.no_grad()
def test_freia_graph():
    graph = shaken(freia_graph()).eval()
    x, c = torch.randn(2, 12, 8, 8), torch.randn(2, 2, 8, 8)
    y, _ = graph(x, c=c)
    cases = (("forward", x, y), ("reverse", y, graph(y, c=c, rev=True)[0]))
    for direction, given_, wanted in cases:
        fused = fuse(graph, direction)
        require_close(fused(given_, c), wanted)
        assert not any(isinstance(module, WIC) for module in fused.modules())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shapes that are checked once
            traced = torch.jit.trace(fused, (given_, c), check_trace=False)
        require_close(traced(given_[:1], c[:1]), wanted[:1])
    found = graph(x, c=c)
    assert torch.equal(found[0], y)  # the graph itself still has its layers, and its volumes
    assert any(isinstance(module, WIC) for module in graph.modules())


@torch.no_grad()
def test_freia_sequence_is_exported():
    framework = pytest.importorskip("FrEIA.framework")
    modules = pytest.importorskip("FrEIA.modules")
    from wic_layers import freia

    sequence = framework.SequenceINN(12, 8, 8)
    sequence.append(freia.WIC, out_channels=48)
    sequence.append(modules.ActNorm)
    sequence.append(freia.WIC, out_channels=6)
    with pytest.raises(WICArgumentError, match=r"module_list\.1: .*ActNorm still waits"):
        fuse(sequence, "forward")
    x = torch.randn(2, 12, 8, 8)
    y, _ = sequence(x)
    sequence.eval()
    cases = (("forward", x, y), ("reverse", y, sequence(y, rev=True)[0]))
    for direction, given_, wanted in cases:
        fused = fuse(sequence, direction)
        function = exported(fused, given_)
        require_close(function(given_), wanted)
        small = given_[:1, :, :3]
        require_close(function(small), fused(small))


@torch.no_grad()
def test_freia_with_random_numbers():
    graph = shaken(freia_graph(completion="gaussian"))
    x, c = torch.randn(2, 12, 8, 8), torch.randn(2, 2, 8, 8)
    fused = fuse(graph, "forward")
    require_close(fused(x, c), graph(x, c=c)[0])
    with pytest.raises(WICArgumentError, match=r"module_list\.\d\.conv: .*random numbers"):
        fuse(graph, "reverse")
    # whoever calls it the other way all the same gets the sentence
    (shell,) = (m for m in fused.modules() if getattr(m, "refused", ""))
    with pytest.raises(WICArgumentError, match="random numbers"):
        shell.inverse(torch.randn(2, 3, 8, 8))


@torch.no_grad()
def test_normflows_model():
    nf = pytest.importorskip("normflows")
    from wic_layers.normflows import WIC as Flow

    flows = [nf.flows.GlowBlock(12, 16), Flow(in_channels=12, out_channels=12)]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian((12, 8, 8)), flows)
    with pytest.raises(WICArgumentError, match="ActNorm still waits"):
        fuse(model, "forward")
    x = torch.randn(4, 12, 8, 8)
    model.log_prob(x)
    model.eval()
    for direction, wanted in (("forward", model(x)), ("reverse", model.inverse(x))):
        fused = fuse(model, direction)
        require_close(exported(fused, x)(x), wanted)
        small = x[:2, :, :3]
        require_close(exported(fused, x)(small), fused(small))
    assert any(type(module) is nf.flows.ActNorm for module in model.modules())

    flow = Flow(in_channels=7, out_channels=3)
    z, x = torch.randn(5, 3), torch.randn(5, 7)
    require_close(fuse(flow, "forward")(z), flow(z)[0])
    require_close(fuse(flow, "reverse")(x), flow.inverse(x)[0])
    constant = fuse(flow, "forward").module.conv
    images = (False, torch.randn(5, 7, 2, 3)), (True, torch.randn(5, 3, 2, 3))
    for rev, given_ in ((False, x), (True, z), *images):
        found, wanted = (each.with_log_det(given_, rev=rev) for each in (constant, flow.conv))
        require_close(found[0], wanted[0])
        require_close(found[1], wanted[1].to(found[1]))


@torch.no_grad()
def test_narrow_flow_with_random_numbers():
    """What normflows calls forward is the way back of a WIC."""
    nf = pytest.importorskip("normflows")
    from wic_layers.normflows import WIC as Flow

    flow = Flow(in_channels=7, out_channels=3, completion="gaussian", log_det="volume")
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(3), [flow])
    with pytest.raises(WICArgumentError, match=r"flows\.0\.conv: .*random numbers"):
        fuse(model, "forward")
    x = torch.randn(2, 7)
    require_close(fuse(model, "reverse")(x), model.inverse(x))


@torch.no_grad()
def test_what_swap_knows_is_swapped():
    class Turn(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 3))

        def forward(self, x, rev=False):
            return torch.einsum("ij,bjhw->bihw", self.w.inverse() if rev else self.w, x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.turn = Turn()

        def forward(self, x, rev=False):
            return self.turn(x, rev=rev)

    register_1x1(Turn, lambda layer: layer.w)
    net, x = Net(), torch.randn(2, 3, 4, 4)
    require_close(exported(fuse(net, "reverse"), x)(x), net(x, rev=True), 1e-4)
    assert type(net.turn) is Turn


@torch.no_grad()
def test_half_precision_inside_couplings():
    model = shaken(WINNaive(3, 3, scale=2, couplings=2, growth=4))
    x = torch.rand(1, 3, 8, 8)
    fused = lowered(fuse(model, "forward"), torch.bfloat16)
    inside = [part for part in fused.modules() if isinstance(part, DenseBlock)]
    assert len(inside) == 6
    assert {p.dtype for part in inside for p in part.parameters()} == {torch.bfloat16}
    y = fused(x)
    assert y.dtype == torch.float32
    require_close(y, model(x), 0.05)
    learned = lowered(fuse(WIC(6, 3, completion="learned"), "reverse"), torch.bfloat16)
    assert learned(torch.rand(1, 3, 4, 4)).dtype == torch.float32
    shifted = Chain(AffineCoupling(6), WIC(6, 3, completion="shift")).eval()
    y = torch.rand(1, 3, 4, 4)
    last = lowered(fuse(shifted, "reverse"), torch.bfloat16).module[-1]
    require_close(last.inverse(y), shifted[-1].inverse(y))


def test_one_direction_holds_its_own_networks_only():
    model = IICNet(6, 3, couplings=1, growth=4, features=4)
    whole = sum(p.numel() for p in model.parameters())
    one = sum(p.numel() for p in model[0].there.parameters())
    for direction in ("forward", "reverse"):
        fused = fuse(model, direction)
        assert sum(p.numel() for p in fused.parameters()) == whole - one - model[-1].weight.numel()


def test_weights_that_half_precision_cannot_hold_are_refused():
    model = shaken(WINNaive(3, 3, scale=2, couplings=1, growth=4))
    with torch.no_grad():
        next(model[1].F.parameters()).view(-1)[0] = 1e5
    with pytest.raises(WICArgumentError, match=r"at most 65504 .* has 1e\+05. Stay in float32"):
        export_program(model, precision="float16")
    lowered(fuse(model, "forward"), torch.bfloat16)


def test_exports_keep_back_what_torch_says_of_itself_alone(monkeypatch):
    """Warnings of another thread are heard meanwhile, and two exports leave no trace."""
    exports, others_warned = threading.Event(), threading.Event()
    logger = logging.getLogger("torch.onnx")
    before = logger.level, list(warnings.filters)
    program = torch.export.export

    def slow(*args, **keywords):
        exports.set()
        assert others_warned.wait(60)
        warnings.warn("torch's own", stacklevel=1)
        return program(*args, **keywords)

    monkeypatch.setattr(torch.export, "export", slow)
    model = shaken(WINNaive(3, 3, scale=2, couplings=1, growth=4)).eval()
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("always")
        exporting = [pool.submit(export_program, model) for _ in range(2)]
        assert exports.wait(60)
        warnings.warn("of another thread", stacklevel=1)
        others_warned.set()
        for each in exporting:
            each.result()
    assert [str(each.message) for each in caught] == ["of another thread"]
    assert (logger.level, list(warnings.filters)) == before


def test_representations():
    text = repr(fuse(WIC(6, 3, completion="shift"), "reverse"))
    for part in ("Shift(3, 3, order='nearest')", "Matrix(6, 3)"):
        assert part in text
    model = WINNaive(6, 3, couplings=1, growth=4)
    assert repr(model).splitlines()[1:3] == repr(fuse(model, "forward").module).splitlines()[1:3]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fuse(WIC(3, 3), "back"), WICArgumentError, "forward.*reverse.*got 'back'"),
        (lambda: fuse("hiding-1"), TypeError, "a module; got str"),
        (
            lambda: fuse(Chain(Squeeze(2), WIC(12, 3, completion="gaussian")), "reverse"),
            WICArgumentError,
            r"^1: WIC\(12, 3.*random numbers, which have no place",
        ),
        (lambda: fuse(nn.Conv2d(3, 3, 1), "reverse"), WICArgumentError, "backwards.*got Conv2d"),
        (
            lambda: fuse(WIC.from_kernel(torch.zeros(3, 3)), "reverse"),
            IllConditionedError,
            "condition number",
        ),
        (
            lambda: fuse(WIC(12, 3, layout="published"), "reverse")(torch.ones(2, 3)),
            WICShapeError,
            "published order",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_nothing_else_is_loaded():
    code = (
        "import sys, wic_layers.deploy; "
        "heavy = ('onnx', 'onnxscript', 'PIL', 'FrEIA', 'normflows'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@torch.no_grad()
def test_a_fused_learned_completion_in_the_dtype_of_the_model():
    layer = WIC(12, 3, completion="learned").bfloat16()
    nn.init.normal_(layer.completion.layers[-1].weight, std=0.1)
    y = torch.rand(1, 3, 4, 4).bfloat16()
    require_close(fuse(layer, "reverse")(y), layer.inverse(y), tolerance=0.02)
    wide = WIC(12, 3, completion="learned")
    nn.init.normal_(wide.completion.layers[-1].weight, std=0.1)
    y = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    require_close(fuse(wide, "reverse")(y), wide.inverse(y))
    fused = lowered(fuse(Chain(Squeeze(2), wide), "reverse"), torch.float16)
    require_close(fused(y.float()), F.pixel_shuffle(wide.inverse(y.float()), 2), tolerance=0.02)


@torch.no_grad()
def test_what_optimize_set_is_left_behind():
    model = IICNet(6, 3, couplings=1, growth=4, features=4).eval()
    shaken(model)
    x = torch.rand(1, 6, 8, 8)
    expected = fuse(model, "forward")(x)
    assert torch.equal(fuse(model.optimize(torch.bfloat16), "forward")(x), expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_constants_are_where_the_model_is():
    model = Chain(Haar(), AffineCoupling(12), WIC(12, 3, completion="shift")).cuda()
    for direction in ("forward", "reverse"):
        fused = fuse(model, direction)
        assert {value.device.type for value in fused.state_dict().values()} == {"cuda"}


@pytest.mark.parametrize(
    "name", ["dlv-irn-x2", "dlv-hinet", "hcflow", "dlv-hcflow", "iicnet-stereo"]
)
@torch.no_grad()
def test_families_of_other_papers(name):
    small = {"growth": 4}
    if "hcflow" in name:
        small = {"growth": 2, "steps": 1, "conditional_steps": 1, "width": 4, "depth": 1}
    else:
        small["couplings"] = 1
    if "iicnet" in name:
        small["features"] = 4
    preset = PRESETS[name]
    model = shaken(NETWORKS_BY_NAME[preset.network].from_preset(name, **small)).eval()
    x = torch.rand(1, model.config["in_channels"], 16, 24)
    for module in model.modules():
        if hasattr(module, "start"):
            model(x)  # what normalises starts by its first batch
    y = model(x)
    reverse = fuse(model, "reverse")
    require_close(fuse(model, "forward")(x), y, tolerance=1e-4)
    require_close(reverse(y), model.inverse(y), tolerance=1e-4)
    if "hcflow" in name:
        with pytest.raises(WICArgumentError, match="Expected a network of affine couplings"):
            lowered(reverse, torch.float16)
    else:
        halved = lowered(reverse, torch.float16)
        assert {p.dtype for p in halved.parameters()} == {torch.float16}
        require_close(halved(y), model.inverse(y), tolerance=0.02)


@torch.no_grad()
def test_programs_take_small_images_and_round_to_the_same_pixels():
    model = shaken(WINNaive(3, 3, scale=2, couplings=1, growth=4)).eval()
    program = export_program(model)
    for height, width in ((3, 3), (3, 9), (5, 4), (40, 48)):
        image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
        image[20:] = 255 * (image[20:] > 128)  # which makes pixels past black and white
        (small,) = program.module()(image)
        wanted = down(image.permute(2, 0, 1), model=model)
        off = (small.permute(2, 0, 1).int() - wanted.int()).abs()
        assert off.max() <= 1
        assert (off > 0).float().mean() < 0.01
    pixels = image.permute(2, 0, 1)[None] / 255
    assert model(pixels).min() < -0.1
    assert model(pixels).max() > 1.1
