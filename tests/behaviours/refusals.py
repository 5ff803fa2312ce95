"""What is refused: exit codes, that nothing is written, and the sentences."""

import shutil

import torch

from behaviours.keeping import TEXT, Shell
from behaviours.pictures import write_all, write_weights

COMMANDS = """
paint p/a.png
hide p/a.png
hide p/a.png p/c.png -o s.png --pre x
hide p/a.png p/c.png -o s.png --preset x --weights w/hide1
hide p/a.png p/c.png -o s.png --preset hidin-1
hide p/a.png p/c.png -o s.png --preset rescaling-x2-naive-small
hide p/a.png p/c.png -o s.png --preset hiding-1
hide p/a.png p/c.png -o s.png --weights nothing
hide p/a.png p/c.png -o s.png --weights p/a.png
hide p/a.png p/c.png -o s.png --weights p
hide p/a.png p/c.png -o s.png --weights w/x2
hide p/a.png p/c.png p/c.png -o s.png --weights w/hide1
hide p/a.png p/c.png p/c.png p/c.png p/c.png p/c.png -o s.png
hide p/c.png p/a.png -o s.png
hide p/a.png p/c.png -o s.jpg
hide p/a.png p/c.png -o s
hide p/a.png p/c.png -o no/s.png
hide p/a.png p/c.png -o there.png
hide there.png p/d.png -o there.png --force
hide p/none.png p/c.png -o s.png
hide p/text.png p/c.png -o s.png
hide p/layer.png p/c.png -o s.png
hide p/a.png p/in -o s.png
hide p/in p/d.png -o s.png
hide p/in p/frames -o s
hide p/a.png p/c.png -o s.png --refine -1
hide p/a.png p/c.png -o s.png --refine x
hide p/a.png p/c.png -o s.png --device nowhere
hide p/a.png p/c.png -o s.png --device cuda:9
reveal p/a.png -o s.png
reveal p/b.jpg -o s.png
reveal p/c.png -o s.png --size 3
reveal p/c.png -o s.png --size 0x3
reveal p/a.png -o s.png --weights w/hide1 --size 6x5
reveal p/c.png -o s.png --weights w/hide1 --size 60x50
reveal m/hide.png -o s.png --size 3x3
reveal m/hide.png -o s.png --preset hiding-2-naive-small
reveal m/hide.png -o s.png --weights w/hide1
reveal m/hide-w.png -o s.png
reveal m/down.png -o s.png
reveal m/hide.png -o there.png
reveal cropped.png -o s.png
reveal edited.png -o s.png
reveal damaged.png -o s.png
down p/a.png p/c.png -o s.png
down p/a.png ./p/a.png -o s --weights w/x2
down p/a.png -o s.png -s 3
down p/a.png -o s.png -s 5
down p/a.png -o s.png -s 4 --weights w/x2
down p/a.png -o s.png --tile 0
down p/text.png -o s.png
up p/a.png -o s.png
up p/a.png -o s.png --size 3x3 --size 4x4 --weights w/x2
up m/gray.png -o s.png
color p/a.png -o s.png --size 3x3
color p/a.png -o s.png --size 3x3 --weights w/grey
pack pair p/a.png p/c.png -o s.png
pack stereo p/a.png -o s.png
pack stereo p/a.png p/c.png -o s.png
pack stereo p/a.png p/layer.png -o s.png
pack stereo p/left p/in -o s.png
pack layers p/a.png p/a.png -o s.png
pack clip-3 p/a.png p/a.png p/a.png p/a.png -o s.png
pack clip-3 p/frames -o s.png
pack clip-3 nothing -o s
pack stereo p/frames -o s
unpack p/a.png -o s.png
unpack m/hide.png -o s.png
unpack m/stereo.png -o s.png --size 3x3
inspect nothing
inspect p
inspect rescaling-x5
eval nothing p/in
eval w/x2 nothing
eval w/x2 p/in --reduce 0
eval w/x2 p/in --reduce 9
eval w/hide1 p/left --csv there.png
train
train rescaling-x2-tiny
train rescaling-x2-tiny --data nowhere -o t
train --data rescaling-x2-tiny -o t
train rescaling-x9 --data p/photographs -o t
train rescaling-x2-tiny --data p/photographs -o t --held-out 9
train rescaling-x2-tiny --data p/photographs -o t --crop 33
train rescaling-x2-tiny --data p/photographs -o t --crop 1000 --held-out 1
train rescaling-x2-tiny --data p/photographs -o t --steps 0
train rescaling-x2-tiny --data p/photographs -o t --lr inf
train rescaling-x2-tiny --data p/photographs -o t --weights 0 0 0 0
train rescaling-x2-tiny --data p/photographs -o t --optimizer sgd
train rescaling-x2-tiny --data p/photographs -o t --forward l3
train rescaling-x2-tiny --data p/photographs -o t --config none.yaml
train rescaling-x2-tiny --data p/photographs -o t --config bad.yaml
train rescaling-x2-tiny --data p/photographs -o t --resume
train rescaling-x2-tiny --data p/photographs -o there.png --held-out 1
train rescaling-x2-tiny --data p/photographs -o p/in --held-out 1
train rescaling-x2-tiny --data p/photographs -o t --start w/hide1 --held-out 1
upgrade irn none.pth -o t
upgrade irn text.pth -o t
upgrade win text.pth -o t
export w/x2 -o s.onnx
export w/x2 -o s.png --direction forward
export nothing -o s.onnx --direction forward
export rescaling-x2-tiny -o s.onnx --direction reverse
export w/x2 -o s.onnx --direction back
""".strip().splitlines()


def run(run):
    photographs = run.made_once("photographs", write_all)
    weights = run.made_once("weights", write_weights)
    shell = Shell(run, run.place("all"))
    shell.link(w=weights, m=run.folder / "files")
    shutil.copytree(photographs, shell.folder / "p")
    _write_odd_files(run, shell.folder)
    shell("no words", "")
    for words in COMMANDS:
        shell(words.replace("/", ":"), words)
    _in_python(run, weights)


def _write_odd_files(run, folder):
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    with Image.open(run.folder / "files/hide.png") as image:
        mark = PngInfo()
        mark.add_text("wic-layers", image.text["wic-layers"])
        image.crop((0, 0, 60, 60)).save(folder / "cropped.png", pnginfo=mark)
        edited = image.copy()
        edited.putpixel((3, 3), (1, 2, 3))
        edited.save(folder / "edited.png", pnginfo=mark)
        damaged = PngInfo()
        damaged.add_text("wic-layers", "{}")
        image.save(folder / "damaged.png", pnginfo=damaged)
    (folder / "there.png").write_bytes((folder / "p/a.png").read_bytes())
    (folder / "text.pth").write_text("no checkpoint")
    (folder / "bad.yaml").write_text("stepps: 3\n")


def _in_python(run, weights):
    import wic_layers
    from wic_layers import WIC, blocks, deploy, functional, models, tasks
    from wic_layers.training import Objective, Settings

    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    narrow = WIC(12, 3)
    calls = {
        "WIC of no channels": lambda: WIC(0, 3),
        "WIC, rows when widening": lambda: WIC(3, 5, rows="m"),
        "WIC, unknown completion": lambda: WIC(5, 3, completion="none"),
        "WIC, rows m with a completion": lambda: WIC(5, 3, rows="m", completion="repeat"),
        "WIC, unknown layout": lambda: WIC(5, 3, layout="old"),
        "WIC, int dtype": lambda: WIC(5, 3, dtype=torch.int32),
        "WIC, other channels": lambda: narrow(torch.zeros(1, 3, 4, 4)),
        "WIC, back from other channels": lambda: narrow.inverse(torch.zeros(1, 12, 4, 4)),
        "WIC, four dimensions": lambda: narrow(torch.zeros(1, 12, 1, 1, 1, 1)),
        "WIC, no inverse": lambda: WIC.from_kernel(torch.zeros(3, 3)).inverse(torch.ones(1, 3)),
        "det_loss of nothing": lambda: wic_layers.det_loss(torch.nn.Conv2d(1, 1, 1)),
        "swap, nothing there": lambda: wic_layers.swap_1x1(
            torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1))
        ),
        "WellPosed without rev": lambda: wic_layers.WellPosed(torch.nn.Conv2d(3, 3, 1), 3, 1),
        "WellPosed that drops nothing": lambda: wic_layers.WellPosed(blocks.Chain(), 3, 3),
        "squeeze of odd sides": lambda: blocks.Squeeze(2)(torch.zeros(1, 3, 5, 4)),
        "chain of what has no inverse": lambda: blocks.Chain(torch.nn.Conv2d(3, 3, 1)),
        "coupling of one channel": lambda: blocks.AffineCoupling(1),
        "inside a chain": lambda: blocks.Chain(blocks.Squeeze(2), WIC(12, 3))(
            torch.zeros(1, 5, 4, 4)
        ),
        "left inverse of a wide kernel": lambda: functional.left_inverse(torch.zeros(2, 3)),
        "no such preset": lambda: models.WIN.from_preset("hiding-7"),
        "preset of another network": lambda: models.WIN.from_preset("hinet"),
        "no such weights": lambda: models.from_pretrained("nowhere/at/all"),
        "no official checkpoint": lambda: models.load_official({"a": torch.zeros(1)}),
        "no official name": lambda: models.save_official(
            models.WIN.from_preset("hiding-1-tiny"), "none.pth"
        ),
        "with_wic twice": lambda: models.with_wic(models.IRN(couplings=1, growth=4)),
        "hide in a float image": lambda: tasks.hide(image.float(), [image]),
        "hide no list": lambda: tasks.hide(image, image),
        "hide a text": lambda: tasks.hide("a.png", [image]),
        "hide, larger": lambda: tasks.hide(image[:, :4], [image]),
        "unpack without a task": lambda: tasks.unpack(image),
        "unpack, too many frames": lambda: tasks.unpack(image, "clip-3", frames=4),
        "network on a device": lambda: tasks.down(
            image, model=models.from_pretrained(weights / "x2"), device="cpu"
        ),
        "no network": lambda: tasks.down(image, model=torch.nn.Conv2d(3, 3, 1)),
        "fuse, no direction": lambda: deploy.fuse(narrow, "back"),
        "fuse, no module": lambda: deploy.fuse("hiding-1"),
        "fuse, random": lambda: deploy.fuse(WIC(12, 3, completion="gaussian"), "reverse"),
        "objective, no weights": lambda: Objective(tasks.TASKS["hiding-1"], (0, 0, 0, 0)),
        "settings, unknown": lambda: Settings.from_dict({"stepps": 1}, "here"),
        "settings, no number": lambda: Settings.from_dict({"steps": "many"}, "here"),
    }
    for name, call in calls.items():
        with run.case(f"in Python: {name}"):
            try:
                kind, text = "no error", str(type(call()).__name__)
            except Exception as error:
                kind, text = type(error).__name__, str(error)
            run.keep("kind", kind)
            run.keep("sentence", text, TEXT)
