"""Whole flows as constants: their own methods go on, and leave Python with their log-dets."""

import re
import sys
from pathlib import Path

import pytest
import torch
from standins.flows import CASES
from torch import nn

from wic_layers import WIC
from wic_layers.cli import main
from wic_layers.deploy import calling, export_model, fuse
from wic_layers.errors import WICArgumentError
from wic_layers.hosts.answering import spec_of

BY_NAME = {case.name: case for case in CASES}
GLOW = "(x, logdet, reverse), LU"
WAVEGLOW = "(z, reverse), log-det of the batch, W_inverse stays"
GLOW_TTS = "(x, x_mask, reverse), groups share a kernel"


def used(case):
    """A model that has seen a batch, with couplings that do something."""
    torch.manual_seed(0)
    model = case.build()
    case.forward(model, case.x())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not name.endswith(case.drifts or ("-",)):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def flat(result):
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, (tuple, list)):
        return [tensor for part in result for tensor in flat(part)]
    return []


def require_close(got, expected, tolerance):
    got, expected = flat(got), flat(expected)
    assert len(got) == len(expected) > 0
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        largest = other.abs().max().clamp(min=1e-6)
        assert (one.double() - other.double()).abs().max() <= tolerance * largest


@pytest.mark.parametrize("case", [case for case in CASES if case.layers], ids=str)
@torch.no_grad()
def test_the_copy_is_the_same_model_without_anything_to_invert(case, monkeypatch):
    model = used(case)
    kind, keys = type(model), list(model.state_dict())
    x = case.x()
    z, log_det = case.forward(model, x)
    back = case.inverse(model, z)
    fused = fuse(model)
    assert type(fused) is kind
    assert not any(spec_of(module) for module in model.modules())
    assert list(model.state_dict()) == keys
    for name in ("inv", "inv_ex", "slogdet", "lu_factor", "qr"):
        monkeypatch.setattr(torch.linalg, name, None)
    got, got_log_det = case.forward(fused, x)
    require_close(got, z, 1e-5)
    if log_det is not None:
        assert (got_log_det - log_det).abs().max() <= 1e-4 * log_det.abs().max().clamp(min=1)
    require_close(case.inverse(fused, z), back, 2e-5)


@torch.no_grad()
def test_our_own_layers_and_hosts_modules_keep_both_directions():
    layer = WIC(6, 3)
    x = torch.randn(2, 6, 3, 4)
    fused = fuse(layer)
    require_close(fused(x), layer(x), 1e-6)
    require_close(fused.inverse(layer(x)), layer.inverse(layer(x)), 1e-6)
    pytest.importorskip("FrEIA", reason="needs the extra freia")
    from FrEIA.framework import SequenceINN

    import wic_layers.freia

    graph = SequenceINN(6, 4, 4)
    graph.append(wic_layers.freia.WIC, out_channels=6)
    x = torch.randn(2, 6, 4, 4)
    require_close(fuse(graph)(x), graph(x), 1e-6)
    require_close(fuse(graph)(x, rev=True), graph(x, rev=True), 1e-6)


def test_a_layer_without_an_inverse_is_named_where_it_is_called():
    model = nn.Sequential(WIC.from_kernel(torch.zeros(3, 3)))
    fused = fuse(model)
    assert not fused(torch.ones(1, 3)).any()
    with pytest.raises(WICArgumentError, match="condition number"):
        fused[0].inverse(torch.ones(1, 3))


def test_what_cannot_be_fused_is_named_with_what_to_write():
    with pytest.raises(WICArgumentError, match=r"flow\.layers\.2: .*condition.*register_1x1"):
        fuse(used(BY_NAME["everything is left"]))


def test_functions_that_hold_a_layer_call_the_copy():
    case = BY_NAME["(x, logdet, reverse) through a lambda of the step, LU"]
    model = used(case)
    fused = fuse(model)
    z, _ = case.forward(fused, case.x())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # what still calls the model's own layers is wrong now
        torch.manual_seed(0)
    other = used(case)
    torch.manual_seed(5)
    x = case.x()
    require_close(case.forward(fused, x)[0], case.forward(other, x)[0], 1e-5)
    assert z.isfinite().all()


def exported(path, model, make, method, arguments, size, precision):
    call = calling(fuse(model), method, **arguments)
    return export_model(call, make(*size), path, precision=precision)


def run(path, inputs, precision):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    halves = [x.half() if precision == "float16" else x for x in inputs]
    names = [node.name for node in session.get_inputs()]
    outputs = session.run(None, {n: x.numpy() for n, x in zip(names, halves, strict=True)})
    return [torch.as_tensor(output) for output in outputs]


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def masked(batch, time):
    mask = torch.ones(batch, 1, time)
    mask[0, :, time - 7 :] = 0
    return randn(batch, 8, time) * mask, mask


DECODERS = {
    "glow, reverse": (GLOW, lambda b, h, w: (randn(b, 12, h, w),), "forward", {"reverse": True},
                      ((2, 6, 10), (3, 4, 8))),
    "glow, log-det": (GLOW, lambda b, h, w: (randn(b, 3, h, w), randn(b)), "forward", {},
                      ((2, 12, 20), (3, 8, 16))),
    "waveglow, infer": (WAVEGLOW, lambda b, t: (randn(b, 8, t),), "infer", {}, ((2, 50), (3, 77))),
    "waveglow, log-det": (WAVEGLOW, lambda b, t: (randn(b, 8, t),), "forward", {},
                          ((2, 50), (3, 77))),
    "glow-tts, reverse": (GLOW_TTS, masked, "forward", {"reverse": True}, ((2, 50), (3, 77))),
    "glow-tts, log-det": (GLOW_TTS, masked, "forward", {}, ((2, 50), (3, 77))),
}  # fmt: skip


@pytest.mark.usefixtures("one_registry")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    [(name, "float32") for name in DECODERS]
    + [(name, "float16") for name in DECODERS if "log-det" not in name],
)
@pytest.mark.no_cover
def test_decoders_run_in_onnxruntime_at_other_lengths(name, precision, tmp_path):
    """1e-5 of the largest value in float32, 1e-2 in float16."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    case, make, method, arguments, sizes = DECODERS[name]
    model = used(BY_NAME[case])
    file = exported(tmp_path / "a.onnx", model, make, method, arguments, sizes[0], precision)
    for size in sizes:
        inputs = make(*size)
        with torch.no_grad():
            expected = flat(getattr(model, method)(*inputs, **arguments))
        got = run(file, inputs, precision)
        for one, other in zip(got, expected, strict=True):
            require_close([one], [other], 1e-5 if precision == "float32" else 1e-2)


@torch.no_grad()
def test_torch_export_takes_a_call_at_other_lengths():
    model = used(BY_NAME[WAVEGLOW])
    call = calling(fuse(model), "infer")
    shapes = {"inputs": ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO},)}
    program = torch.export.export(call, (randn(2, 8, 50),), dynamic_shapes=shapes)
    z = randn(3, 8, 77)
    require_close(program.module()(z), model.infer(z), 1e-5)
    assert not re.search(r"linalg|inverse|slogdet", program.graph_module.code)


def test_a_method_that_is_not_there_is_named():
    model = used(BY_NAME[WAVEGLOW])
    with pytest.raises(WICArgumentError, match=r"method of WaveGlow \(.*infer.*\); got 'decode'"):
        calling(model, "decode")


FILE = """
import torch
from standins.flows import CASES
from wic_layers.deploy import calling

CASE = next(case for case in CASES if case.name == {name!r})

def decoder():
    torch.manual_seed(0)
    model = CASE.build()
    return calling(model.eval(), "infer"), (torch.randn(2, 8, 50),)

def wrong():
    return CASE.build()
"""


@pytest.mark.usefixtures("one_registry")
@pytest.mark.slow
@pytest.mark.no_cover
def test_the_command_exports_a_model_of_a_python_file(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    (tmp_path / "voice.py").write_text(FILE.format(name=WAVEGLOW))
    out = tmp_path / "voice.onnx"
    assert main(["export", f"{tmp_path / 'voice.py'}:decoder", "-o", str(out)]) == 0
    assert "voice.onnx" in capsys.readouterr().out
    torch.manual_seed(0)
    model = BY_NAME[WAVEGLOW].build().eval()
    z = randn(1, 8, 21)
    with torch.no_grad():
        require_close(run(out, (z,), "float32"), [model.infer(z)], 1e-5)
    before = out.read_bytes()
    assert main(["export", f"{tmp_path / 'voice.py'}:decoder", "-o", str(out)]) == 2
    assert out.read_bytes() == before
    assert "--force" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["export", "voice:decoder", "-o", "again.onnx", "--json"]) == 0
    assert Path("again.onnx").is_file()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("voice.py:wrong", "return a model and a tuple of input tensors; got WaveGlow"),
        ("voice.py:absent", "a function absent in voice.py"),
        ("nowhere.py:decoder", "nowhere.py cannot be imported"),
    ],
)
def test_places_that_are_wrong_get_a_sentence(place, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "voice.py").write_text(FILE.format(name=WAVEGLOW))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "voice", raising=False)
    assert main(["export", place, "-o", "a.onnx"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("a.onnx").exists()
