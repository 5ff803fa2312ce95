"""One direction alone: fused, exported by torch, and as ONNX files."""

import json
import shutil

import numpy as np
import torch

from behaviours.keeping import EXACT, ROUNDING, TEXT, Shell
from behaviours.networks import families
from behaviours.pictures import batch, shaken, write_all, write_weights

# weights and direction
ONNX = (
    ("hide2", "forward"),
    ("hide2", "reverse"),
    ("x2", "reverse"),
    ("x4-plain", "reverse"),
    ("grey", "forward"),
    ("three-x2", "reverse"),
)
IN_HALF = "x2"
PROGRAMS = (("pair", "forward"), ("hcflow", "reverse"))


def run(run):
    write = run.made_once("photographs", write_all), run.made_once("weights", write_weights)
    _fused(run)
    _programs(run, write[1])
    _files(run, *write)


@torch.no_grad()
def _fused(run):
    """In 8 bits: a constant rounds otherwise than what it stands for."""
    from wic_layers import WIC, WellPosed, blocks
    from wic_layers.deploy import fuse
    from wic_layers.models import from_pretrained

    def well_posed():
        inner = blocks.Chain(blocks.Squeeze(2), blocks.AffineCoupling(12))
        return WellPosed(inner, 12, 3, completion="shift")

    networks = {
        name: (lambda make=make: shaken(make(), 0.05), (shape[1], *shape[2:]))
        for name, (make, shape) in families().items()
        if name not in ("IRN x4, z", "HiNet, z", "HCFlow, drawn")
    }
    networks |= {
        f"packaged {name}": (lambda name=name: from_pretrained(name), (channels, 32, 40))
        for name, channels in (
            ("hiding-1-naive-small", 6), ("rescaling-x2-naive-small", 3),
            ("decolorization-naive-small", 3), ("stereo-naive-small", 6),
            ("clip-3-x2-naive-tiny", 9),
        )
    }  # fmt: skip
    networks["WellPosed"] = (lambda: shaken(well_posed()), (3, 8, 8))
    networks["learned"] = (lambda: shaken(WIC(12, 3, completion="learned")), (12, 8, 8))
    for name, (make, (channels, height, width)) in networks.items():
        with run.case(f"fused {name}"):
            network = make().eval()
            x = batch(-(-channels // 3), height, width)[:, :channels]
            y = network(x).clamp(0, 1)
            for direction, image, whole in (
                ("forward", x, network),
                ("reverse", y, network.inverse),
            ):
                torch.manual_seed(0)
                found = fuse(network, direction)(image)
                run.keep(f"{direction}, pixels", (found.clamp(0, 1) * 255).round().byte())
                run.keep(direction, found, 10 * ROUNDING)
                torch.manual_seed(0)
                run.keep(f"{direction}, error", float((found - whole(image)).abs().max()) < 1e-4)


@torch.no_grad()
def _programs(run, weights):
    from wic_layers.deploy import export_program

    for name, direction in PROGRAMS:
        with run.case(f"program {name}, {direction}"):
            program = export_program(weights / name, direction)
            inputs = len(program.graph_signature.user_inputs)
            for height, width in ((32, 48), (20, 24)):
                images = _images(inputs, height, width)
                found = program.module()(*images)
                run.keep(f"{height}x{width}", list(found))


def _images(count, height, width):
    stack = (batch(count, height, width)[0] * 255).round().byte()
    return [each.permute(1, 2, 0).contiguous() for each in stack.split(3)]


def _files(run, photographs, weights):
    """Written by ``wic export``, and run by onnxruntime."""
    shell = Shell(run, run.place("onnx"))
    shell.link(w=weights, p=photographs)
    for name, direction in ONNX:
        file = f"{name}-{direction}.onnx"
        half = " --precision float16" if name == IN_HALF else ""
        with run.case(f"export {name}, {direction}"):
            _exported(
                run, shell.folder, f"export w/{name} --direction {direction} -o {file}{half}"
            )
            _run_file(run, shell.folder / file)
    shutil.rmtree(shell.folder)


def _exported(run, folder, words):
    from behaviours.keeping import call

    code, out, err = call(f"{words} --json", folder)
    run.keep("exit code", code)
    run.keep("errors", err, TEXT)
    printed = json.loads(out)
    size, metadata = printed.pop("bytes"), printed.pop("metadata")
    run.keep("printed", printed)
    run.keep("bytes", size, TEXT)
    run.keep("metadata", {key: value for key, value in metadata.items() if key != "library"})


def _run_file(run, path):
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    operators = sorted({node.op_type for node in onnx.load(path).graph.node})
    run.keep("operators", operators, TEXT)
    named = [[each.name, list(each.shape), each.type] for each in session.get_inputs()]
    named += [[each.name, list(each.shape), each.type] for each in session.get_outputs()]
    run.keep("inputs and outputs", named, EXACT)
    for height, width in ((32, 48), (20, 24)):
        given = {}
        images = _images(len(session.get_inputs()), height, width)
        for entry, image in zip(session.get_inputs(), images, strict=True):
            array = image.numpy()
            given[entry.name] = np.ascontiguousarray(
                array if len(entry.shape) == 3 else array[..., 0]
            )
        found = session.run(None, given)
        run.keep(f"{height}x{width}", [torch.from_numpy(each) for each in found])
