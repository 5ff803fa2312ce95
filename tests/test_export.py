"""Networks as ONNX files and torch.export programs: own networks, the command, errors."""

import json
import os
import re
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from exporting import (
    photographs,
    require_agreement,
    require_one_step,
    session,
    to_array,
    to_tensor,
)
from torch import nn

from wic_layers import cli
from wic_layers.codec.running import forward_pixels
from wic_layers.deploy import OPSET, export, export_onnx, export_program, fuse
from wic_layers.errors import WICArgumentError, WICDependencyError, WICError, WICFileError
from wic_layers.models import IRN, WIN, WINNaive
from wic_layers.tasks import TASKS

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("one_registry")


class Tiny:
    """Small networks with random weights, on their way into files."""

    @staticmethod
    def of(kind=WINNaive, **changes):
        arguments = {"scale": 2, "couplings": 1, "growth": 4, **changes}
        return kind(3, 3, **arguments)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_networks_of_ones_own(tmp_path, direction):
    """The paper's completion, memories, copies; a preset needs no name."""
    network = Tiny.of(WIN, width=16, modules=1, copies=2)
    file = export_onnx(network, tmp_path / "a.onnx", direction)
    task = TASKS["rescaling-x2"]
    require_agreement(file, network, task, direction, 1e-2)
    assert (file.metadata["preset"], file.metadata["weights"]) == ("", "")
    assert file.task == "rescaling-x2"
    assert file.inputs == {"photo" if direction == "forward" else "small": ("height", "width", 3)}
    assert network.training


def test_a_scale_of_three(tmp_path):
    network = IRN(3, 3, scale=3, couplings=1, growth=4)
    file = export_onnx(network, tmp_path / "a.onnx", "reverse")
    require_agreement(file, network, TASKS["rescaling-x3"], "reverse", 1e-2)


def test_programs_are_saved_by_torch(tmp_path):
    network = Tiny.of()
    program = export_program(network, "forward", precision="float16")
    torch.export.save(program, tmp_path / "a.pt2")
    loaded = torch.export.load(tmp_path / "a.pt2").module()
    (photo,) = photographs(1, (31, 45), (1, 1))
    (found,) = loaded(torch.from_numpy(photo))
    task = TASKS["rescaling-x2"]
    wanted = forward_pixels(task, network, task.packed(to_tensor(photo)))
    require_one_step(found.numpy(), to_array(wanted), 0.06)


def test_fused_models_of_others_are_exported(tmp_path):
    """What the message says to those whose network is none of ours."""
    framework = pytest.importorskip("FrEIA.framework")
    from wic_layers import freia

    sequence = framework.SequenceINN(12, 8, 8)
    sequence.append(freia.WIC, out_channels=16)
    sequence.append(freia.WIC, out_channels=3)
    x = torch.randn(2, 3, 8, 8)
    dim = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        fuse(sequence.eval(), "reverse"), (x,), tmp_path / "a.onnx", dynamo=True, verbose=False,
        dynamic_shapes=({0: dim, 2: dim, 3: dim},), input_names=["y"],
    )  # fmt: skip
    y = torch.randn(3, 3, 5, 9)
    (found,) = session(tmp_path / "a.onnx").run(None, {"y": y.numpy()})
    with torch.no_grad():
        wanted = sequence(y, rev=True)[0]
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


@pytest.fixture
def wic(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Tiny.of().save_pretrained("weights")

    def run(command):
        try:
            code = cli.main(command.split())
        except SystemExit as error:
            code = error.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_command(wic):
    code, out, err = wic("export weights --direction reverse -o up.onnx")
    assert (code, err) == (0, "")
    first, second, third = out.splitlines()
    assert re.fullmatch(r"up.onnx: 0\.\d\d MB, reverse of rescaling-x2, opset 18", first)
    assert second == "input small: uint8 (height, width, 3)"
    assert third == "output photo: uint8 (height, width, 3)"
    before = os.stat("up.onnx").st_mtime_ns
    assert "up.onnx exists" in wic("export weights --direction forward -o up.onnx")[2]
    assert os.stat("up.onnx").st_mtime_ns == before
    code, out, _ = wic("export weights --direction forward -o up.onnx --force --json")
    found = json.loads(out)
    assert code == 0
    assert (found["path"], found["inputs"]) == ("up.onnx", {"photo": ["height", "width", 3]})
    assert found["metadata"]["direction"] == "forward"
    assert sorted(os.listdir()) == ["up.onnx", "weights"]


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("export weights -o a.onnx", "--direction"),
        ("export weights --direction back -o a.onnx", "invalid choice: 'back'"),
        ("export weights --direction reverse", "-o/--out"),
        ("export weights --direction reverse -o a.png", r"ends in \.onnx; got a\.png"),
        ("export weights --direction reverse -o no/a.onnx", "there is no folder no"),
        ("export weights --direction reverse -o weights", r"ends in \.onnx"),
        ("export hiding-1 --direction reverse -o a.onnx", "Expected a preset with weights"),
        ("export nothing --direction reverse -o a.onnx", "name of a preset"),
    ],
)
def test_errors_of_the_command(wic, command, match):
    code, out, err = wic(command)
    assert (code, out) == (2, "")
    assert re.search(match, err)
    assert err.count("\n") == 1
    assert os.listdir() == ["weights"]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: export_program(Tiny.of(), "back"), WICArgumentError, "got 'back'"),
        (
            lambda: export_program(Tiny.of(), precision="float8"),
            WICArgumentError,
            "float16.*got 'float8'",
        ),
        (lambda: export_program(nn.Conv2d(3, 3, 1)), TypeError, r"Conv2d.*fuse\(model"),
        (
            lambda: export_program(WINNaive(5, 2, couplings=1, growth=4)),
            WICArgumentError,
            "channels 5 to 2, scale 1",
        ),
        (
            lambda: export_program(Tiny.of(completion="gaussian"), "reverse"),
            WICArgumentError,
            "random numbers",
        ),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_nothing_is_left_where_writing_fails(tmp_path, monkeypatch):
    """Whatever was to be written: an empty graph in place of the network's."""

    def full(*_):
        raise OSError(28, "No space left on device")

    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, ["a", "b", 3])
             for name in ("photo", "small")]  # fmt: skip
    node = onnx.helper.make_node("Identity", ["photo"], ["small"])
    graph = onnx.helper.make_graph([node], "graph", ports[:1], ports[1:])
    empty = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    monkeypatch.setattr(export, "_program", lambda *_: None)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: SimpleNamespace(model_proto=empty))
    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(WICFileError, match="cannot be written: No space left"):
        export_onnx(Tiny.of(), tmp_path / "a.onnx")
    assert not os.listdir(tmp_path)


def test_missing_parts_are_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(WICDependencyError, match=r"onnxscript.*wic-layers\[onnx\]"):
            export_onnx(Tiny.of(), tmp_path / "a.onnx")
    with monkeypatch.context() as patch:
        patch.delattr(torch.export.Dim, "DYNAMIC")
        with pytest.raises(WICDependencyError, match=r"torch 2\.6 or newer"):
            export_program(Tiny.of())


def test_linear_algebra_is_refused():
    """It cannot get that far; if it does, no file is written."""
    for node in (("Det", ""), ("Inverse", "com.microsoft"), ("Conv", "com.microsoft")):
        made = onnx.helper.make_node(node[0], ["x"], ["y"], domain=node[1])
        graph = onnx.helper.make_graph([made], "graph", [], [])
        with pytest.raises(WICError, match=f"no linear algebra; got {node[0]}"):
            export._clean(onnx.helper.make_model(graph))
