"""Images in memory: ``wic_layers.tasks`` on tensors, arrays and PIL images."""

import numpy as np
import torch
from PIL import Image

from behaviours.keeping import ROUNDING, TEXT
from behaviours.pictures import write_all, write_weights


def run(run):
    from wic_layers import tasks
    from wic_layers.models import from_pretrained

    photographs = run.made_once("photographs", write_all)
    weights = run.made_once("weights", write_weights)

    def picture(name):
        return Image.open(photographs / name).convert("RGB")

    def array(name):
        return np.array(picture(name))

    def tensor(name):
        return torch.from_numpy(array(name)).permute(2, 0, 1).contiguous()

    kinds = {"PIL": picture, "array": array, "tensor": tensor}

    def keep(name, images):
        several = images if isinstance(images, list) else [images]
        run.keep(f"{name}, kind", [type(image).__name__ for image in several])
        run.keep(name, [torch.from_numpy(np.array(image)) for image in several])

    for kind, read in kinds.items():
        with run.case(f"hide and reveal, {kind}"):
            stego = tasks.hide(read("a.png"), [read("c.png")])
            keep("stego", stego)
            keep("secret", tasks.reveal(stego, sizes=[(46, 40)]))
        with run.case(f"down and up, {kind}"):
            small = tasks.down(read("a.png"), model=weights / "x2", tile=32)
            keep("small", small)
            keep("photo", tasks.up(small, model=weights / "x2", size=(97, 71)))
        with run.case(f"gray and color, {kind}"):
            grey = tasks.gray(read("c.png"))
            keep("grey", grey)
            keep("photo", tasks.color(grey))
        with run.case(f"pack and unpack, {kind}"):
            packed = tasks.pack("stereo", [read("a.png"), read("b.jpg")])
            keep("packed", packed)
            keep("views", tasks.unpack(packed, "stereo", size=(97, 71)))

    with run.case("networks, sizes, tiles, steps"):
        network = from_pretrained(weights / "hide2")
        calls = []
        stego = tasks.hide(
            tensor("a.png"), [tensor("c.png"), array("d.png")], model=network, tile=40, refine=1,
            progress=lambda *done: calls.append(done),
        )  # fmt: skip
        keep("stego", stego)
        run.keep("calls of progress", calls, TEXT)
        keep("secrets", tasks.reveal(stego, model=network, sizes=[(46, 40), (41, 33)]))
        fitted = tasks.hide(array("c.png"), [picture("a.png")], fit=True, device="cpu")
        keep("fitted", fitted)
        keep("by 4", tasks.down(array("a.png"), scale=4, model=weights / "x4"))
        keep("refined", tasks.gray(picture("a.png"), refine=2))
        frames = [tensor(f"frames/f{k}.png") for k in range(1, 4)]
        packed = tasks.pack("clip-5", frames)
        keep("clip", packed)
        keep("frames", tasks.unpack(packed, "clip-5", frames=3))
        layer = np.array(Image.open(photographs / "layer.png"))
        packed = tasks.pack("layers", [array("a.png"), layer], model=weights / "three")
        keep("layers", packed)
        keep("unpacked", tasks.unpack(packed, "layers", model=weights / "three"))

    with run.case("files"):
        folder = run.place("files")
        written = tasks.hide_file(photographs / "a.png", [photographs / "c.png"], folder / "s.png")
        known = ("size", "source", "returns", "psnr", "psnr_back", "reduced_from", "weights")
        run.keep("hidden", {name: getattr(written, name) for name in known}, ROUNDING)
        (back,) = tasks.reveal_file(folder / "s.png", folder / "t.png")
        run.keep("revealed", {"size": back.size, "weights": back.weights, "doubt": back.doubt})
        written = tasks.down_file(photographs / "a.png", folder / "d.png")
        run.keep("reduced", {name: getattr(written, name) for name in known}, ROUNDING)
        clips = tasks.pack_clip("clip-3", photographs / "frames", folder / "clip")
        run.keep("clip", [[each.path.name, each.psnr, each.psnr_back] for each in clips], ROUNDING)

    with run.case("tasks"):
        run.keep("names", list(tasks.TASKS))
