"""Trainings: the same result, also from checkpoints of earlier code; and ``wic upgrade``."""

import json
import os
import shutil

import torch

from behaviours.keeping import ROUNDING, TEXT, call, copied
from behaviours.pictures import write_all
from behaviours.stored import write_official

SHARED = "--data p/photographs --batch 1 --crop 32 --held-out 2 --warmup 1 --accelerator cpu"

# stopped after two steps and gone on with
RESUMED = {
    "WIN": "rescaling-x2-tiny --steps 4 --every 2 --ema 0.9 --lr 1e-3",
    "Muon": (
        "hiding-1-naive-tiny --steps 4 --every 2 --optimizer muon --save-memory --completion shift"
    ),
    "IICNet": "iicnet-stereo-small --steps 3 --every 1 --crop 32",
}
# for their settings, losses and networks
WHOLE = {
    "HiNet": "hinet-small --steps 2 --every 2",
    "DLV": "dlv-irn-x2-small --steps 2 --every 1 --rounding noise",
    "DLV, published": "dlv-hinet-z-small --steps 2 --every 2 --w zero",
    "HCFlow": "hcflow-small --steps 2 --every 2",
    "clip": "clip-3-x2-naive-tiny --steps 2 --every 2 --saturate 0.5 --candidates 2",
    "grey": (
        "decolorization-naive-tiny --steps 2 --every 2 --forward l2 --reverse l2 --low 0.5 "
        "--frequency 0.1 --shift-target output --completion learned"
    ),
    "x4": "rescaling-x4-naive-tiny --steps 2 --every 2 --weights 1 2 0.5 0.25 --reduce 2 --bf16",
    "start": "rescaling-x2-naive-small --steps 2 --every 2 --start w --returned wanted",
}
UPGRADED = {
    "irn": ("IRN x2", ""),
    "hinet": ("HiNet", ""),
    "iicnet": ("IICNet x2", "--task clip-3-x2"),
}


def run(run):
    photographs = run.made_once("photographs", write_all)
    official = run.made_once("official", write_official)
    folder = run.place("all")
    (folder / "p").symlink_to(photographs)
    (folder / "official").symlink_to(official)
    _start(folder)
    for name, words in RESUMED.items():
        out = name.replace(" ", "-")
        words = f"train {words.split()[0]} {SHARED} {words.partition(' ')[2]}"
        with run.case(f"uninterrupted, {name}"):
            _keep(run, folder, f"{words} -o {out}", out)
        stopped = run.folder / "trainings" / out
        if run.records:
            _stop(folder, f"{words} -o {out}-stopped", saves=3 if "every 1" in words else 2)
            shutil.copytree(folder / f"{out}-stopped", stopped)
        with run.case(f"resumed, {name}"):
            copied(stopped, folder / f"{out}-resumed")
            _keep(
                run,
                folder,
                f"train -o {out}-resumed --resume --data p/photographs",
                f"{out}-resumed",
            )
            run.keep("as uninterrupted", _same(folder / out, folder / f"{out}-resumed"))
        with run.case(f"resumed with other settings, {name}"):
            copied(stopped, folder / f"{out}-other")
            code, _, err = call(f"train -o {out}-other --resume --seed 7", folder)
            run.keep("exit code", code)
            run.keep("errors", err, TEXT)
    for name, words in WHOLE.items():
        out = name.replace(" ", "-").replace(",", "")
        with run.case(f"trained, {name}"):
            words = f"train {words.split()[0]} {SHARED} {words.partition(' ')[2]}"
            _keep(run, folder, f"{words} -o {out}", out)
    for kind, (name, more) in UPGRADED.items():
        checkpoint = folder / f"{kind}.pth"
        shutil.copyfile(official / f"{name}.pth", checkpoint)
        with run.case(f"upgraded, {kind}"):
            _keep(
                run, folder, f"upgrade {kind} {kind}.pth -o {kind}-as-is {more}", f"{kind}-as-is"
            )
        with run.case(f"upgraded and tuned, {kind}"):
            tuned = f"upgrade {kind} {kind}.pth {SHARED} --steps 2 -o {kind}-tuned {more}"
            _keep(run, folder, tuned, f"{kind}-tuned")


def _start(folder):
    from wic_layers.models import from_pretrained

    from_pretrained("rescaling-x2-naive-small").save_pretrained(folder / "w")


def _keep(run, folder, words, out):
    """Runs a training, and keeps what it printed and what is in its folder."""
    code, printed, errors = call(words, folder)
    run.keep("exit code", code)
    run.keep("printed", printed, TEXT)
    run.keep("errors", errors, TEXT)
    if code:
        raise RuntimeError(f"{words}: {errors}")
    left = folder / out
    run.keep("files", sorted(path.name for path in left.iterdir()))
    run.keep("weights", _weights(left), ROUNDING)
    config = json.loads((left / "config.json").read_text())
    run.keep("config", {k: v for k, v in config.items() if k not in ("version", "sha256")})
    if (left / "log.jsonl").exists():
        rows = [json.loads(line) for line in (left / "log.jsonl").read_text().splitlines()]
        for row in rows:
            row.pop("seconds", None)
        run.keep("log", rows, ROUNDING)
    if (left / "settings.yaml").exists():
        import yaml

        settings = yaml.safe_load((left / "settings.yaml").read_text())
        run.keep("settings", {k: v for k, v in settings.items() if k != "data"})


def _weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def _same(one, other):
    first, second = _weights(one), _weights(other)
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) for key in first
    )


class Stopped(KeyboardInterrupt):
    """As Ctrl-C."""


def _stop(folder, words, saves):
    """Runs a training and stops it after so many checkpoints, the first before any step."""
    replace, count = os.replace, 0

    def counted(source, target, **options):
        nonlocal count
        replace(source, target, **options)
        if os.path.basename(target) == "checkpoint.pt":
            count += 1
            if count == saves:
                raise Stopped

    os.replace = counted
    try:
        code, _, errors = call(words, folder)
    finally:
        os.replace = replace
    if code != 130:
        raise RuntimeError(f"{words} was not stopped: {code} {errors}")
