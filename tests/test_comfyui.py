"""The nodes for ComfyUI, run as its executor does: by names, in inference mode, over lists."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from skimage import data

from wic_layers import tasks
from wic_layers.errors import WICShapeError
from wic_layers.pictures import psnr

FOLDER = Path(__file__).parents[1] / "integrations" / "comfyui"
TYPES = {"IMAGE", "MASK", "INT", "STRING", "BOOLEAN", "FLOAT"}
PHOTO = torch.from_numpy(data.astronaut()[60:125, 180:277].copy())  # 97x65


@pytest.fixture
def comfy(monkeypatch):
    """Its nodes by name, loaded from their folder as a custom node; and what its bar was told."""
    bar = []
    comfy, management, utils = map(ModuleType, ("comfy", "comfy.model_management", "comfy.utils"))
    management.get_torch_device = lambda: torch.device("cpu")
    management.throw_exception_if_processing_interrupted = lambda: None
    utils.ProgressBar = lambda total: SimpleNamespace(
        update_absolute=lambda done, total: bar.append((done, total))
    )
    comfy.model_management, comfy.utils = management, utils
    for module in (comfy, management, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    spec = importlib.util.spec_from_file_location(
        "custom_nodes.reversible", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    package = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, package)
    monkeypatch.setitem(sys.modules, f"{spec.name}.nodes", None)
    del sys.modules[f"{spec.name}.nodes"]
    spec.loader.exec_module(package)
    return SimpleNamespace(
        nodes=package.NODE_CLASS_MAPPINGS, titles=package.NODE_DISPLAY_NAME_MAPPINGS, bar=bar
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
            if options and key in declared["required"]:
                inputs.setdefault(key, options[0]["default"])
    assert set(declared["required"]) <= set(inputs)
    with torch.inference_mode():
        results = getattr(node(), node.FUNCTION)(**inputs)
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


def test_down_and_up_of_a_batch_with_opacity(comfy):
    masks = torch.zeros(2, 65, 97)
    masks[1, :20] = 1
    photos = image_of(PHOTO, PHOTO.flip(0))
    small, mask = run(comfy, "WICDown", image=photos, mask=masks)
    assert (tuple(small.shape), tuple(mask.shape)) == ((2, 33, 49, 3), (2, 33, 49))
    pixels = saved(small)
    assert torch.equal(pixels[0].movedim(2, 0), tasks.down(PHOTO.movedim(2, 0)))
    assert float(mask[0].max()) == 0
    assert float(mask[1, :9].min()) == 1
    back, grown = run(comfy, "WICUp", image=image_of(*pixels), mask=mask, width=97, height=65)
    assert psnr(saved(back)[0], PHOTO) > 30
    assert float((grown - masks).abs().mean()) < 0.02
    assert comfy.bar[-1][0] == comfy.bar[-1][1]
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
    (stego,) = run(
        comfy, "WICHide", cover=torch.cat((cover, opaque), 3), secret=secret, secret_3=secret
    )
    assert stego.shape == (1, 48, 64, 4)
    assert torch.equal(saved(stego)[..., 3:], saved(opaque))
    assert psnr(saved(stego)[0, ..., :3], PHOTO[:48, :64]) > 25
    (secrets,) = run(
        comfy, "WICReveal", stego=image_of(*saved(stego)), secrets=2, width=40, height=32
    )
    for revealed in secrets:
        assert revealed.shape == secret.shape
        assert psnr(saved(revealed)[0], saved(secret)[0]) > 25
    with pytest.raises(WICShapeError, match="secret 1 to be opaque"):
        run(comfy, "WICHide", cover=cover, secret=torch.cat((cover, opaque), 3))
    with pytest.raises(WICShapeError, match="Expected images"):
        run(comfy, "WICReveal", stego=cover[..., :1])


def test_refining_works_in_inference_mode(comfy):
    photo = image_of(PHOTO[:32, :32])
    plain, better = (
        run(comfy, "WICUp", image=run(comfy, "WICDown", image=photo, refine=steps)[0])[0]
        for steps in (0, 8)
    )
    gain = psnr(saved(better)[0], PHOTO[:32, :32]) - psnr(saved(plain)[0], PHOTO[:32, :32])
    assert gain > 0
