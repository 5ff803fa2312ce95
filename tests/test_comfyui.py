"""The nodes for ComfyUI, run as its executor does: by names, in inference mode, over lists."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from wic_layers import tasks
from wic_layers.errors import WICFileError, WICShapeError
from wic_layers.pictures import psnr, read_layer, write_png

FOLDER = Path(__file__).parents[1] / "integrations" / "comfyui"
TYPES = {"IMAGE", "MASK", "INT", "STRING", "BOOLEAN", "FLOAT", "REVERSIBLE_PNG"}
PHOTO = torch.from_numpy(data.astronaut()[60:125, 180:277].copy())  # 97x65


@pytest.fixture
def comfy(monkeypatch, tmp_path):
    """Its nodes by name, loaded from their folder as a custom node; and what its bar was told."""
    bar = []
    comfy, management, utils, paths = map(
        ModuleType, ("comfy", "comfy.model_management", "comfy.utils", "folder_paths")
    )
    management.get_torch_device = lambda: torch.device("cpu")
    management.throw_exception_if_processing_interrupted = lambda: None
    utils.ProgressBar = lambda total: SimpleNamespace(
        update_absolute=lambda done, total: bar.append((done, total))
    )
    comfy.model_management, comfy.utils = management, utils
    folders = {name: tmp_path / name for name in ("input", "output")}
    for folder in folders.values():
        folder.mkdir()

    def place_of(name):
        name, _, where = name.partition(" [")
        return folders[where.rstrip("]") or "input"] / name

    def place_to_save(prefix, folder, width, height):
        path = Path(folder, prefix)
        path.parent.mkdir(exist_ok=True)
        number = len(list(path.parent.iterdir())) + 1
        return str(path.parent), path.name, number, str(path.parent.relative_to(folder)), prefix

    paths.get_input_directory = lambda: str(folders["input"])
    paths.get_output_directory = lambda: str(folders["output"])
    paths.filter_files_content_types = lambda names, kinds: [
        name for name in names if name.endswith(".png")
    ]
    paths.get_annotated_filepath = lambda name: str(place_of(name))
    paths.exists_annotated_filepath = lambda name: place_of(name).exists()
    paths.get_save_image_path = place_to_save
    for module in (comfy, management, utils, paths):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    spec = importlib.util.spec_from_file_location(
        "custom_nodes.reversible", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    package = importlib.util.module_from_spec(spec)
    for name in [name for name in sys.modules if name.startswith(spec.name)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, spec.name, package)
    spec.loader.exec_module(package)
    return SimpleNamespace(
        nodes=package.NODE_CLASS_MAPPINGS,
        titles=package.NODE_DISPLAY_NAME_MAPPINGS,
        bar=bar,
        **folders,
    )


def run(comfy, name, **inputs):
    """What the executor does with a node: its declared inputs, and one value for each output."""
    node = comfy.nodes[name]
    declared = node.INPUT_TYPES()
    every = {**declared["required"], **declared.get("optional", {})}
    assert set(inputs) <= set(every)
    for key, (kind, *options) in every.items():
        if isinstance(kind, list):
            inputs.setdefault(key, kind[0])
            assert inputs[key] in kind
        else:
            assert kind in TYPES
            if options and "default" in options[0] and key in declared["required"]:
                inputs.setdefault(key, options[0]["default"])
    assert set(declared["required"]) <= set(inputs)
    with torch.inference_mode():
        results = getattr(node(), node.FUNCTION)(**inputs)
    if isinstance(results, dict):  # of a node that shows something
        assert node.OUTPUT_NODE
        return results["ui"]
    assert len(results) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    return results


def image_of(*pixels):
    """An IMAGE of uint8 pixels (H, W, C), made in inference mode as everything is there."""
    with torch.inference_mode():
        return torch.stack(pixels).float() / 255


def saved(image):
    """What SaveImage writes of it: it cuts off what is behind the point."""
    return torch.from_numpy(np.clip(255.0 * image.numpy(), 0, 255).astype(np.uint8))


def test_every_node_says_what_comfyui_asks(comfy):
    assert set(comfy.nodes) == set(comfy.titles)
    for node in comfy.nodes.values():
        assert callable(getattr(node, node.FUNCTION))
        assert node.CATEGORY
        assert set(node.RETURN_TYPES) <= TYPES


def test_example_workflows_fit_the_nodes(comfy):
    flows = [json.loads(path.read_text()) for path in (FOLDER / "example_workflows").iterdir()]
    placed = [node for flow in flows for node in flow["nodes"] if node["type"] in comfy.nodes]
    assert {node["type"] for node in placed} == {"WICHide", "WICDown", "WICSave", "WICBringBack"}
    for node in placed:
        kind = comfy.nodes[node["type"]]
        declared = kind.INPUT_TYPES()
        every = {**declared["required"], **declared.get("optional", {})}
        links = ("IMAGE", "MASK", "REVERSIBLE_PNG")
        linked = {name: each[0] for name, each in every.items() if each[0] in links}
        assert {each["name"]: each["type"] for each in node["inputs"]} == linked
        names = [each["name"] for each in node["outputs"]]
        assert names == list(getattr(kind, "RETURN_NAMES", ()))
        assert tuple(each["type"] for each in node["outputs"]) == kind.RETURN_TYPES
        widgets = [each for name, each in every.items() if name not in linked]
        # its page adds a button for uploads behind all of them
        uploads = [
            "image"
            for each in widgets
            if isinstance(each[-1], dict) and "image_upload" in each[-1]
        ]
        values = node["widgets_values"]
        assert values[len(widgets) :] == uploads
        for value, each in zip(values, widgets, strict=False):
            expected = str if isinstance(each[0], list) else type(each[1]["default"])
            assert type(value) is expected
    for flow in flows:
        types = {node["id"]: node for node in flow["nodes"]}
        for _, source, slot, target, into, kind in flow["links"]:
            assert types[source]["outputs"][slot]["type"] == kind
            assert types[target]["inputs"][into]["type"] == kind


def test_down_and_up_of_a_batch_with_opacity(comfy):
    masks = torch.zeros(2, 65, 97)
    masks[1, :20] = 1
    photos = image_of(PHOTO, PHOTO.flip(0))
    small, mask, _ = run(comfy, "WICDown", image=photos, mask=masks)
    assert (tuple(small.shape), tuple(mask.shape)) == ((2, 33, 49, 3), (2, 33, 49))
    pixels = saved(small)
    assert torch.equal(pixels[0].movedim(2, 0), tasks.down(PHOTO.movedim(2, 0)))
    assert float(mask[0].max()) == 0
    assert float(mask[1, :9].min()) == 1
    back, grown = run(comfy, "WICUp", image=image_of(*pixels), mask=mask, width=97, height=65)
    assert psnr(saved(back)[0], PHOTO) > 30
    assert float((grown - masks).abs().mean()) < 0.02
    assert comfy.bar[-1][0] == comfy.bar[-1][1]
    # Load Image has such a mask for an opaque picture
    opaque = torch.zeros(1, 64, 64)
    assert float(run(comfy, "WICUp", image=small.repeat(1, 3, 3, 1), mask=opaque)[1].max()) == 0
    exact = run(comfy, "WICUp", image=small, mask=masks, width=97, height=65)[1]
    assert torch.equal(exact, masks)
    # a fourth channel is opacity as well, and stays one
    both = torch.cat((photos, 1 - masks[..., None]), dim=3)
    four = run(comfy, "WICDown", image=both)[0]
    assert torch.equal(four[..., :3], small)
    assert torch.equal(1 - four[..., 3], mask)
    assert run(comfy, "WICUp", image=four)[0].shape == (2, 66, 98, 4)


def test_hide_and_reveal_of_several_secrets(comfy):
    cover, secret = image_of(PHOTO[:48, :64]), image_of(PHOTO[16:48, 32:72])
    opaque = torch.ones(1, 48, 64, 1)
    opaque[:, :8] = 0.6
    stego, file = run(
        comfy, "WICHide", cover=torch.cat((cover, opaque), 3), secret=secret, secret_3=secret
    )
    assert stego.shape == (1, 48, 64, 4)
    assert torch.equal(saved(stego)[..., 3:], saved(opaque))
    assert psnr(saved(stego)[0, ..., :3], PHOTO[:48, :64]) > 25
    (secrets,) = run(
        comfy, "WICReveal", stego=image_of(*saved(stego)), secrets=2, width=40, height=32
    )
    # its file shows the cover's opacity, and brings back both secrets by itself
    (name,) = run(comfy, "WICSave", file=file)["images"]
    shown = read_layer(comfy.output / name["filename"])
    assert torch.equal(shown.movedim(0, 2), saved(stego)[0])
    image = f"{name['filename']} [output]"
    from_file, masks, picture = run(comfy, "WICBringBack", image=image)
    assert all(map(torch.equal, from_file, secrets))
    assert [tuple(mask.shape) for mask in masks] == [(1, 32, 40)] * 2
    assert torch.equal(saved(picture), saved(stego)[..., :3])
    for revealed in secrets:
        assert revealed.shape == secret.shape
        assert psnr(saved(revealed)[0], saved(secret)[0]) > 25
    with pytest.raises(WICShapeError, match="secret 1 to be opaque"):
        run(comfy, "WICHide", cover=cover, secret=torch.cat((cover, opaque), 3))
    with pytest.raises(WICShapeError, match="Expected images"):
        run(comfy, "WICReveal", stego=cover[..., :1])


def test_files_bring_back_what_they_were_made_of(comfy):
    masks = torch.zeros(2, 65, 97)
    masks[1, :20, ::2] = 0.5
    photos = image_of(PHOTO, PHOTO.flip(0))
    small, _, file = run(comfy, "WICDown", image=photos, mask=masks)
    saving = {"filename_prefix": "folder/small", "prompt": {"1": "ä"}}
    node = comfy.nodes["WICSave"]
    assert node.INPUT_TYPES()["hidden"] == {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
    for workflow in (False, True):
        shown = node().save(file, workflow=workflow, **saving, extra_pnginfo={"workflow": []})
        names = [each["filename"] for each in shown["ui"]["images"]]
        assert {each["subfolder"] for each in shown["ui"]["images"]} == {"folder"}
        for index, name in enumerate(names):
            path = comfy.output / "folder" / name
            with Image.open(path) as picture:
                assert ("prompt" in picture.info) == workflow
                if workflow:
                    assert json.loads(picture.info["prompt"]) == {"1": "ä"}
            shutil.copy(path, comfy.input / f"{index}.png")
            images, opacities, _ = run(comfy, "WICBringBack", image=f"{index}.png")
            expected = run(comfy, "WICUp", image=small[index : index + 1], width=97, height=65)[0]
            assert torch.equal(images[0], expected)
            assert torch.equal(
                (255 * opacities[0]).round(), (255 * masks[index : index + 1]).round()
            )
    back = comfy.nodes["WICBringBack"]
    assert back.INPUT_TYPES()["required"]["image"][0] == ["0.png", "1.png"]
    before = back.IS_CHANGED("0.png")
    write_png(read_layer(comfy.input / "0.png"), comfy.input / "0.png", force=True)
    assert back.IS_CHANGED("0.png") != before
    with pytest.raises(WICFileError, match="does not say what brings it back"):
        run(comfy, "WICBringBack", image="0.png")
    assert back.VALIDATE_INPUTS("0.png") is True
    assert "there is no 2.png" in back.VALIDATE_INPUTS("2.png")


def test_refining_works_in_inference_mode(comfy):
    photo = image_of(PHOTO[:32, :32])
    plain, better = (
        run(comfy, "WICUp", image=run(comfy, "WICDown", image=photo, refine=steps)[0])[0]
        for steps in (0, 8)
    )
    gain = psnr(saved(better)[0], PHOTO[:32, :32]) - psnr(saved(plain)[0], PHOTO[:32, :32])
    assert gain > 0
