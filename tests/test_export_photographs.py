"""Weights of the package as ONNX files: photographs come out as the command line makes them."""

import functools
import itertools
import re

import numpy as np
import onnx
import pytest
from exporting import require_agreement, session

import wic_layers
from wic_layers.deploy import OPSET, export_onnx
from wic_layers.models import PRESETS, from_pretrained, packaged_weights
from wic_layers.tasks import TASKS

pytest.importorskip("onnxruntime")
# the exporter is torch's own Python, which takes twice as long while lines are counted
pytestmark = [pytest.mark.no_cover, pytest.mark.usefixtures("one_registry")]

ALLOWED = {
    "Abs", "Add", "Cast", "Clip", "Concat", "Conv", "DepthToSpace", "Div", "Exp", "Expand",
    "Gather", "LeakyRelu", "Min", "Mod", "Mul", "Neg", "Pad", "Range", "ReduceMean", "Reshape",
    "Round", "Shape", "Sigmoid", "Slice", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip

# bytes of a file at most, by the parameters below which a network has them
SIZES = {380_000: 1_600_000, 620_000: 2_600_000, 700_000: 2_800_000, 3_000_000: 9_600_000}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes a file once, and returns what was written."""
    folder = tmp_path_factory.mktemp("onnx")

    @functools.cache
    def write(preset, direction, precision="float32"):
        path = folder / f"{preset}-{direction}-{precision}.onnx"
        return export_onnx(preset, path, direction, precision=precision)

    return write


def packaged_directions():
    """A packaged network of each kind of network and task, forward or back in turn.

    An export takes seconds, and networks of a kind differ in their numbers only.
    """
    kinds = {}
    for preset in packaged_weights():
        task = PRESETS[preset].task
        kind = re.sub(r"\d", "", task) if "-" in task else ""
        kinds.setdefault((PRESETS[preset].network, kind), preset)
    return list(zip(kinds.values(), itertools.cycle(("reverse", "forward"))))


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "direction"), packaged_directions())
def test_photographs_through_onnxruntime(written, preset, direction):
    file = written(preset, direction)
    network, task = from_pretrained(preset), TASKS[PRESETS[preset].task]
    require_agreement(file, network, task, direction, 1e-3)

    parameters = sum(parameter.numel() for parameter in network.parameters())
    small = preset.endswith(("-small", "-tiny"))
    assert file.bytes == file.path.stat().st_size
    # the graph grows with the couplings, of which the full-size network has more
    assert file.bytes <= 4 * parameters + (60_000 if small else 70_000)
    most = next(most for below, most in SIZES.items() if parameters < below)
    assert file.bytes < most
    model = onnx.load(str(file.path))
    assert {node.op_type for node in model.graph.node} <= ALLOWED
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "library": f"wic-layers {wic_layers.__version__}",
        "task": task.name,
        "preset": preset,
        "weights": network.weights_id,
        "direction": direction,
        "precision": "float32",
        "scale": str(task.scale),
        "multiple": "2" if direction == "reverse" and task.scale == 1 else "1",
        "overlap": file.metadata["overlap"],
        "opset": "18",
    }
    assert int(file.metadata["overlap"]) % task.multiple == 0
    given, wanted = (
        [value.name for value in values] for values in (model.graph.input, model.graph.output)
    )
    images = [*task.image_names]
    if direction == "reverse":
        given, wanted = wanted, given
        images = images[-task.restored_count :]
    assert (given, wanted) == (images, [task.picture_name])
    assert not any(word in file.path.read_bytes() for word in (b".py", b"stack_trace"))


@pytest.mark.slow
def test_float16(written):
    preset, direction = packaged_directions()[0]
    file = written(preset, direction, "float16")
    network, task = from_pretrained(preset), TASKS[PRESETS[preset].task]
    require_agreement(file, network, task, direction, 0.06)
    assert file.bytes < 0.6 * written(preset, direction).bytes
    model = onnx.load(str(file.path))
    (kind,) = {w.data_type for w in model.graph.initializer if w.dims[2:] == [3, 3]}
    assert kind == onnx.TensorProto.FLOAT16
    assert file.metadata["precision"] == "float16"


def test_wrong_sides_are_an_error_of_the_runtime(written):
    run = session(written("decolorization-naive-small", "reverse").path)
    with pytest.raises(Exception, match=r"Reshape|Concat"):
        run.run(None, {"gray": np.zeros((7, 8), np.uint8)})
