"""Weights in the package, weights in folders, and checkpoints of the authors' code."""

import csv
import json
from pathlib import Path

import torch

from behaviours.keeping import ROUNDING, Shell, state_of
from behaviours.pictures import batch, shaken, write_all, write_weights

GOLDENS = Path(__file__).resolve().parents[1] / "data/reference"
SMALL = {"growth": 4, "layout": "published"}
SMALL_X4 = {**SMALL, "scale": 4}
MEAN = {"growth": 4, "features": 2, "channel_squeeze": True}


def official_networks():
    """One network of every format of the authors' checkpoints; with what their code reads."""
    from wic_layers.models import IRN, WIN, HiNet, IICNet, WINNaive

    return {
        "hiding": lambda: WIN(6, 3, width=32, couplings=2, **SMALL),
        "hiding two": lambda: WIN(9, 3, width=48, couplings=1, **SMALL),
        "three modules": lambda: WIN(3, 3, scale=2, width=16, modules=3, couplings=1, **SMALL),
        "one module": lambda: WIN(
            3, 3, scale=2, width=20, split=0.8, modules=1, couplings=3, **SMALL
        ),
        "decolorization": lambda: WIN(3, 1, width=16, couplings=1, **SMALL),
        "hiding, naive": lambda: WINNaive(6, 3, couplings=3, **SMALL),
        "rescaling, naive": lambda: WINNaive(3, 3, scale=2, couplings=2, **SMALL),
        "rescaling x4": lambda: WIN(3, 3, width=16, couplings=1, copies=4, **SMALL_X4),
        "rescaling x4, plain": lambda: WIN(3, 3, width=16, modules=1, couplings=1, **SMALL_X4),
        "rescaling x4, naive": lambda: WINNaive(3, 3, couplings=2, copies=4, **SMALL_X4),
        "IRN x2": lambda: IRN(couplings=2, growth=4, random_z=True),
        "IRN x3": lambda: IRN(scale=3, couplings=3, growth=4, random_z=True),
        "IRN x4": lambda: IRN(scale=4, couplings=1, growth=4, random_z=True),
        "IRN decolorization": lambda: IRN(3, 1, scale=1, couplings=1, growth=4, random_z=True),
        "HiNet": lambda: HiNet(couplings=3, growth=4, random_z=True),
        "HiNet two": lambda: HiNet(9, couplings=1, growth=4, random_z=True),
        "IICNet": lambda: IICNet(9, 3, couplings=2, **MEAN),
        "IICNet without relations": lambda: IICNet(6, 3, couplings=2, **{**MEAN, "features": 0}),
        "IICNet grey": lambda: IICNet(3, 1, couplings=1, **MEAN),
        "IICNet x2": lambda: IICNet(9, 3, scale=2, couplings=1, **MEAN),
        "IICNet x2 of one": lambda: IICNet(3, 3, scale=2, haar=False, couplings=1, **MEAN),
        "IICNet x2 by image": lambda: IICNet(15, 3, scale=2, order="images", couplings=1, **MEAN),
    }


def write_official(folder):
    """A checkpoint of each, with numbers that are not zero."""
    from wic_layers.models import save_official

    for name, make in official_networks().items():
        save_official(shaken(make()), folder / f"{name}.pth")


def run(run):
    photographs = run.made_once("photographs", write_all)
    weights = run.made_once("weights", write_weights)
    _packaged(run, photographs)
    _folders(run, weights)
    _official(run)
    _goldens(run)


@torch.no_grad()
def both_ways(run, network, x):
    """What a network makes of x, as it is and in 8 bits, and what comes back from the 8 bits."""
    torch.manual_seed(0)
    y = network(x)
    pixels = (y.clamp(0, 1) * 255).round()
    back = network.inverse(pixels / 255)
    run.keep("forward", y, ROUNDING)
    run.keep("forward pixels", pixels.byte())
    run.keep("back", back, ROUNDING)
    run.keep("back pixels", (back.clamp(0, 1) * 255).round().byte())


def _packaged(run, photographs):
    from wic_layers.models import from_pretrained, packaged_weights

    with run.case("packaged"):
        run.keep("names", sorted(packaged_weights()))
    shell = Shell(run, run.place("eval"))
    shell.link(p=photographs)
    for name in sorted(packaged_weights()):
        with run.case(f"packaged {name}"):
            network = from_pretrained(name)
            known = ("preset", "task", "weights_id", "card", "config", "training")
            run.keep("known", {each: getattr(network, each) for each in known})
            both_ways(run, network, batch(network.config["in_channels"] // 3, 36, 44))
        shell(f"inspect {name}", f"inspect {name} --json")
        reduce = 2 if name == "zoom-x8-naive-small" else 3
        shell(f"eval {name}", f"eval {name} p/photographs --reduce {reduce} --csv {name}.csv")
        with run.case(f"eval {name}, rows"):
            with (shell.folder / f"{name}.csv").open() as file:
                rows = [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]
            run.keep("rows", rows, ROUNDING)
    shell("eval, refined", "eval hiding-1-naive-small p/left --refine 1")
    shell("eval, fast in tiles", "eval rescaling-x2-naive-small p/left --fast --tile 20")


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text


def _folders(run, weights):
    """Folders that were written before, and what is written now."""
    from wic_layers.models import from_pretrained

    for name in sorted(path.name for path in weights.iterdir()):
        with run.case(f"folder {name}"):
            network = from_pretrained(weights / name)
            known = ("preset", "task", "weights_id", "card", "config")
            run.keep("known", {each: getattr(network, each) for each in known})
            both_ways(run, network, batch(network.config["in_channels"] // 3, 24, 36))
            target = network.save_pretrained(run.place("saved") / name) if name == "x2" else None
            if target is not None:
                run.keep("tensors", (target / "model.safetensors").read_bytes())
                config = json.loads((target / "config.json").read_text())
                run.keep("config", {k: v for k, v in config.items() if k != "version"})
                run.keep("files", sorted(path.name for path in target.iterdir()))


def _official(run):
    from wic_layers.models import load_official, save_official, with_wic

    folder = run.made_once("official", write_official)
    target = run.place("official")
    for path in sorted(folder.iterdir()):
        with run.case(f"official {path.stem}"):
            # the authors' x4 has copies; whoever wants none has to say so
            network = load_official(path, **({"copies": 1} if "plain" in path.stem else {}))
            run.keep("kind", [type(network).__name__, network.config])
            run.keep("state", state_of(network))
            both_ways(run, network, batch(network.config["in_channels"] // 3, 24, 24))
            save_official(network, target / path.name)
            written = torch.load(target / path.name, weights_only=True)
            run.keep("written", dict(written.items()))
            before = torch.load(path, weights_only=True)
            run.keep("keys agree", list(written) == list(before))
            wrapped = {"net": {f"module.{key}": value for key, value in before.items()}}
            run.keep("kind, wrapped", type(load_official(wrapped)).__name__)
            if type(network).__name__ in ("IRN", "HiNet", "IICNet"):
                upgraded = with_wic(network, "repeat" if "x2" in path.stem else None)
                run.keep("upgraded", [upgraded.config, upgraded.preset, state_of(upgraded)])
                y = upgraded(batch(network.config["in_channels"] // 3, 24, 24))
                run.keep("upgraded, forward", y, ROUNDING)
                run.keep("upgraded, back", upgraded.inverse(y), ROUNDING)
    with run.case("official names"):
        for name, make in official_networks().items():
            run.keep(name, state_of(make()))


def _goldens(run):
    """The numbers of the authors' code: their states in, and what comes out."""
    from safetensors.torch import load_file

    from wic_layers import WIC, det_loss, record_wic
    from wic_layers.models import HCFlow, load_official

    for path in sorted(GOLDENS.glob("wic_*.safetensors")):
        with run.case(f"golden {path.stem}"), torch.no_grad():
            numbers = load_file(path)
            layer = WIC(*map(int, path.stem.split("_")[1:]), layout="published").eval()
            layer.load_state_dict({"weight": numbers["state/iConv2d.weight"].flatten(1)})
            with record_wic(layer) as records:
                y, back = layer(numbers["x"]), layer.inverse(numbers["y_in"])
            run.keep("forward", y, ROUNDING)
            run.keep("back", back, ROUNDING)
            run.keep("other rows", [record.extra for record in records], ROUNDING)
            run.keep("det", det_loss(layer), ROUNDING)
            run.keep("errors", [_error(y, numbers["y"]), _error(back, numbers["x_out"])], 1.0)
    with run.case("golden hcflow_x4"), torch.no_grad():
        numbers = load_file(GOLDENS / "hcflow_x4.safetensors")
        small = {"steps": 2, "growth": 4, "conditional_steps": 1, "width": 4, "depth": 3}
        model = HCFlow(**small, z="zero").eval()
        state = {key[6:]: value for key, value in numbers.items() if key.startswith("state/")}
        model.load_state_dict({**model.state_dict(), **state})
        run.keep("forward", model(numbers["x"]), ROUNDING)
        run.keep("back", model.inverse(numbers["y_in"]), ROUNDING)
    larger = sorted(run.reference.glob("*.safetensors")) if run.reference.is_dir() else []
    for path in larger:
        if path.stem.startswith("wic_"):
            continue
        with run.case(f"golden {path.stem}"), torch.no_grad():
            numbers = load_file(path)
            state = {key[6:]: value for key, value in numbers.items() if key.startswith("state/")}
            network = load_official(state)
            run.keep("kind", [type(network).__name__, network.config])
            run.keep("state", state_of(network))
            x = numbers["x"]
            if "cover" in numbers:  # the authors transform outside their network
                x = torch.cat((numbers["cover"], numbers["secret"]), 1)
            with record_wic(network) as records:
                y = network(x)
            run.keep("forward", y, ROUNDING)
            run.keep("other rows", [record.extra for record in records], ROUNDING)
            torch.manual_seed(0)  # of a random z
            run.keep("back", network.inverse(y), ROUNDING)


def _error(value, expected):
    return float((value - expected).abs().max() / expected.abs().max())
