"""Commands that turn files into files; what was written before is brought back by later code."""

import json
import os
import subprocess
import sys

from behaviours.keeping import EXACT, Shell, png
from behaviours.names import WHOLE_CHECK
from behaviours.pictures import write_all, write_weights

# case, words: photographs are in p, tiny weights in w
FORWARD = {
    "hide": "hide p/a.png p/c.png -o hide.png --json",
    "hide, told in words": "hide p/a.png p/c.png -o hide.png --force",
    "hide two": "hide p/a.png p/c.png p/d.png -o hide2.png --json",
    "hide three": "hide p/a.png p/c.png p/d.png p/grey.png -o hide3.png --json",
    "hide four": "hide p/a.png p/c.png p/d.png p/grey.png p/b.jpg -o hide4.png --json",
    "hide in grey": "hide p/grey.png p/d.png -o hide-grey.png --json",
    "hide in a JPEG": "hide p/b.jpg p/a.png -o hide-jpeg.png --json --tile 40",
    "hide, unmarked": "hide p/a.png p/c.png -o unmarked.png --unmarked",
    "hide, fitted": "hide p/c.png p/a.png p/d.png -o fitted.png --fit",
    "hide, refined": "hide p/a.png p/c.png -o hide-refined.png --refine 2 --json",
    "hide, fast": "hide p/a.png p/c.png -o hide-fast.png --fast --json",
    "hide in a folder": "hide p/in p/d.png -o hide-folder --weights w/hide1 --fit",
    "hide folder in folder": "hide p/in p/secrets -o hide-folders --json --fit",
    "hide, tiny weights": "hide p/a.png p/c.png -o hide-w.png --weights w/hide1 --json",
    "hide two, tiny weights": "hide p/a.png p/c.png p/d.png -o hide2-w.png --weights w/hide2",
    "hide, HiNet": "hide p/a.png p/c.png -o hide-hinet.png --weights w/hinet --json",
    "hide, three pixels": "hide p/tiny.png p/tiny.png -o hide-tiny.png --json",
    "hide, preset": "hide p/c.png p/d.png -o hide-preset.png --preset hiding-1-naive-small",
    "down": "down p/a.png -o down.png --json",
    "down, told in words": "down p/a.png -o down.png --force",
    "down by 2": "down p/b.jpg -o down2.png -s 2 --json",
    "down by 3": "down p/a.png -o down3.png -s 3 --weights w/x3 --json",
    "down by 4": "down p/a.png -o down4.png --preset rescaling-x4-plain-naive-small --json",
    "down by 4, copies": "down p/a.png -o down4-w.png -s 4 --weights w/x4 --json",
    "down by 4, shift": "down p/a.png -o down4-shift.png --weights w/x4-plain --json",
    "down by 4, HCFlow": "down p/a.png -o down4-hcflow.png --weights w/hcflow --json",
    "down, DLV": "down p/a.png -o down-dlv.png --weights w/dlv --json",
    "down, WIN": "down p/c.png -o down-win.png --preset rescaling-x2 --json",
    "down, tiny WIN": "down p/a.png -o down-w.png --weights w/x2 --json",
    "down, refined": "down p/a.png -o down-refined.png --refine 2 --json",
    "down, refined in tiles": "down p/a.png -o down-refined-tiles.png --refine 1 --tile 48 --json",
    "down, fast": "down p/a.png -o down-fast.png --fast --json",
    "down, large": "down p/large.png -o down-large.png --tile 128",
    "down, large, by the memory": "down p/large.png -o down-large-auto.png",
    "down, several": "down p/in p/c.png -o down-folder --weights w/x2 --json",
    "down, one of them bad": "down p/c.png p/text.png p/d.png -o down-bad --weights w/x2",
    "gray": "gray p/a.png -o gray.png --json",
    "gray, of grey": "gray p/grey.png -o gray-grey.png",
    "gray, refined": "gray p/a.png -o gray-refined.png --refine 2 --json",
    "gray, tiles": "gray p/large.png -o gray-large.png --tile 200",
    "gray, fast": "gray p/c.png -o gray-fast.png --fast --json",
    "gray, tiny weights": "gray p/in -o gray-folder --weights w/grey --json",
    "pack stereo": "pack stereo p/a.png p/b.jpg -o stereo.png --json",
    "pack stereo, refined": "pack stereo p/a.png p/b.jpg -o stereo-refined.png --refine 1 --json",
    "pack stereo, folders": "pack stereo p/left p/right -o stereo-folder --weights w/pair --json",
    "pack zoom-x2": "pack zoom-x2 p/a.png p/b.jpg -o zoom2.png --json",
    "pack zoom-x4": "pack zoom-x4 p/a.png p/b.jpg -o zoom4.png --json",
    "pack zoom-x8": "pack zoom-x8 p/a.png p/b.jpg -o zoom8.png",
    "pack layers": "pack layers p/a.png p/layer.png -o layers.png --json",
    "pack layers, tiny weights": (
        "pack layers p/a.png p/layer.png -o layers-w.png --weights w/three"
    ),
    "pack clip-3": "pack clip-3 p/frames -o clip3 --json",
    "pack clip-5": "pack clip-5 p/frames -o clip5",
    "pack clip-7": "pack clip-7 p/frames -o clip7.png --json",
    "pack clip-9": "pack clip-9 p/frames -o clip9.png --json",
    "pack clip-3-x2": "pack clip-3-x2 p/frames -o clip3-x2 --json",
    "pack clip-5-x2": "pack clip-5-x2 p/frames -o clip5-x2 --fast",
    "pack clip-3 of files": (
        "pack clip-3 p/frames/f1.png p/frames/f2.png -o clip3-files.png --json"
    ),
    "pack clip-3-x2, tiny weights": (
        "pack clip-3-x2 p/frames -o clip3-x2-w --weights w/three-x2 --tile 16 --json"
    ),
}

# files that the commands above wrote are in m
BACK = {
    "reveal": "reveal m/hide.png -o r.png --json",
    "reveal, told in words": "reveal m/hide.png -o r.png --force",
    "reveal with what the file says": (
        "reveal m/hide.png -o r2.png --preset hiding-1-naive-small --size 46x40 --json"
    ),
    "reveal two": "reveal m/hide2.png -o r-two.png",
    "reveal three": "reveal m/hide3.png -o r-three.png --json",
    "reveal four": "reveal m/hide4.png -o r-four.png --json",
    "reveal from grey": "reveal m/hide-grey.png -o r-grey.png",
    "reveal in tiles": "reveal m/hide-jpeg.png -o r-jpeg.png --tile 40 --json",
    "reveal unmarked": (
        "reveal m/unmarked.png -o r-unmarked.png --preset hiding-1-naive-small --size 46x40 --json"
    ),
    "reveal, nothing there": (
        "reveal p/grey.png -o r-none.png --preset hiding-1-naive-small --size 80x64 --json"
    ),
    "reveal fitted": "reveal m/fitted.png -o r-fitted.png --json",
    "reveal refined": "reveal m/hide-refined.png -o r-refined.png --fast --json",
    "reveal fast": "reveal m/hide-fast.png -o r-fast.png --json",
    "reveal a folder": "reveal m/hide-folders -o r-folder",
    "reveal, tiny weights": "reveal m/hide-w.png -o r-w.png --weights w/hide1 --json",
    "reveal, folder, tiny weights": "reveal m/hide-folder -o r-folder-w --weights w/hide1 --json",
    "reveal two, tiny weights": "reveal m/hide2-w.png -o r-two-w.png --weights w/hide2 --json",
    "reveal, HiNet": "reveal m/hide-hinet.png -o r-hinet.png --weights w/hinet --json",
    "reveal three pixels": "reveal m/hide-tiny.png -o r-tiny.png --json",
    "up": "up m/down.png -o u.png --json",
    "up, told in words": "up m/down2.png -o u2.png",
    "up by 3": "up m/down3.png -o u3.png --weights w/x3 --json",
    "up by 4": "up m/down4.png -o u4.png --json",
    "up by 4, copies": "up m/down4-w.png -o u4-w.png --weights w/x4 --json",
    "up by 4, shift": "up m/down4-shift.png -o u4-shift.png --weights w/x4-plain --json",
    "up by 4, HCFlow": "up m/down4-hcflow.png -o u4-hcflow.png --weights w/hcflow --json",
    "up, DLV": "up m/down-dlv.png -o u-dlv.png --weights w/dlv --json",
    "up, WIN": "up m/down-win.png -o u-win.png --fast --json",
    "up, tiny WIN": "up m/down-w.png -o u-w.png --weights w/x2 --json",
    "up, refined": "up m/down-refined.png -o u-refined.png --json",
    "up, large": "up m/down-large.png -o u-large.png --tile 128 --json",
    "up, folder": "up m/down-folder -o u-folder --weights w/x2 --json",
    "color": "color m/gray.png -o c.png --json",
    "color, told in words": "color m/gray-grey.png -o c-grey.png",
    "color refined": "color m/gray-refined.png -o c-refined.png --json",
    "color, tiles": "color m/gray-large.png -o c-large.png --tile 200 --json",
    "color, fast": "color m/gray-fast.png -o c-fast.png --fast --json",
    "color, folder": "color m/gray-folder -o c-folder --weights w/grey --json",
    "unpack stereo": "unpack m/stereo.png -o stereo.png --json",
    "unpack stereo, refined": "unpack m/stereo-refined.png -o stereo-refined.png",
    "unpack stereo, folder": "unpack m/stereo-folder -o stereo-folder --weights w/pair --json",
    "unpack zoom-x2": "unpack m/zoom2.png -o zoom2.png --json",
    "unpack zoom-x4": "unpack m/zoom4.png -o zoom4.png --json",
    "unpack zoom-x8": "unpack m/zoom8.png -o zoom8.png --json",
    "unpack layers": "unpack m/layers.png -o layers.png --json",
    "unpack layers, tiny weights": (
        "unpack m/layers-w.png -o layers-w.png --weights w/three --json"
    ),
    "unpack clip-3": "unpack m/clip3 -o clip3 --json",
    "unpack clip-5": "unpack m/clip5 -o clip5 --json",
    "unpack clip-7": "unpack m/clip7.png -o clip7.png --json",
    "unpack clip-9": "unpack m/clip9.png -o clip9.png --json",
    "unpack clip-3-x2": "unpack m/clip3-x2 -o clip3-x2 --json",
    "unpack clip-5-x2": "unpack m/clip5-x2 -o clip5-x2 --tile 16 --json",
    "unpack clip-3 of files": "unpack m/clip3-files.png -o clip3-files.png --json",
    "unpack clip-3-x2, tiny weights": (
        "unpack m/clip3-x2-w -o clip3-x2-w --weights w/three-x2 --json"
    ),
}

COMMANDS = "hide reveal down up gray color pack unpack inspect eval train upgrade export selftest"


def run(run):
    photographs = run.made_once("photographs", write_all)
    weights = run.made_once("weights", write_weights)
    files = run.folder / "files"
    shell = Shell(run, run.place("forward"))
    shell.link(p=photographs, w=weights)
    whole = _whole_check(shell)
    for name, words in FORWARD.items():
        shell(name, f"{words}{whole if 'large' in words else ''}")
    if run.records:
        files.mkdir()
        for path in shell.files():
            target = files / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((shell.folder / path).read_bytes())

    shell = Shell(run, run.place("back"))
    shell.link(p=photographs, w=weights, m=files)
    for name, words in BACK.items():
        shell(name, words)

    for name in ("", *COMMANDS.split()):
        shell(f"help of {name or 'all'}", f"{name} --help".strip())
    shell("version", "--version", told=EXACT)
    for name in ("hiding-1-naive-small", "w/hcflow", "rescaling-x2-tiny"):
        shell(f"inspect {name}", f"inspect {name}")
    _as_a_process(run, photographs)


def _whole_check(shell):
    """The words that make a command judge large pictures whole, where it knows them."""
    from behaviours.keeping import call

    _, out, _ = call("hide --help", shell.folder)
    return f" {' '.join(WHOLE_CHECK)}" if WHOLE_CHECK[0] in out else ""


def _as_a_process(run, photographs):
    """``python -m wic_layers`` in a process of its own, as users type it."""
    folder = run.place("process")
    (folder / "p").symlink_to(photographs)
    with run.case("as a process"):
        for words in (
            "hide p/c.png p/d.png -o s.png --json",
            "reveal s.png -o t.png --json",
            "up p/b.jpg -o no.png",
        ):
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "wic_layers", *words.split()],
                cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False,
            )  # fmt: skip
            verb = words.split()[0]
            printed = json.loads(done.stdout) if done.stdout else None
            run.keep(verb, {"exit code": done.returncode, "printed": printed})
            run.keep(f"{verb}, errors", done.stderr, float("inf"))
        run.keep("s.png", png(folder / "s.png"))
        run.keep("t.png", png(folder / "t.png"))
