"""Installs the built wheel, or sdist, into empty environments and uses it away from the checkout.

Run by ``make wheel``; no test of pytest's, as it needs what was built and a minute. With
``--extras`` each extra gets an environment of its own, where it has to do what it is for.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

from extras import EXTRAS, WITHOUT

BUDGET = 32_000_000  # bytes of the wheel; the index takes up to 100 MB

PROBE = """
import json, sys, time
import torch, einops
before = time.perf_counter()
import wic_layers
seconds = time.perf_counter() - before
hosts = [name for name in ("FrEIA", "normflows", "PIL", "safetensors") if name in sys.modules]
layer = wic_layers.WIC(3, 12)
x = torch.randn(2, 3, 5, 5)
error = float((layer.inverse(layer(x)) - x).abs().max())
print(json.dumps([wic_layers.__file__, wic_layers.__version__, seconds, hosts, error]))
"""
SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"


class Failed(Exception):
    """What a command wrote before it failed."""


def run(*command: str, cwd: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, check=False, encoding="utf-8",
        # nothing is fetched: what an extra does offline is what it says
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def environment(folder: Path, base: str | None = None) -> str:
    """Makes an environment and returns its Python; with another one's packages if that is told."""
    venv.create(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if base is not None:
        place = Path(run(str(python), "-c", SITE, cwd=str(folder)).strip())
        (place / "base.pth").write_text(run(base, "-c", SITE, cwd=str(folder)), encoding="utf-8")
    return str(python)


def install(python: str, *words: str, cwd: str) -> None:
    """Installs into an environment by the pip of this one."""
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", *words, cwd=cwd)


def check_contents(wheel: Path) -> None:
    """Compares what is in the wheel with what should be."""
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    outside = [name for name in names if not name.startswith(("wic_layers/", "wic_layers-"))]
    assert not outside, f"the wheel holds more than the package: {outside}"
    for needed in (
        "wic_layers/py.typed",
        "wic_layers/models/weights/hiding-1-naive-small/model.safetensors",
        "wic_layers/models/weights/hiding-1-naive-small/config.json",
        "wic_layers/models/weights/rescaling-x2/config.json",
    ):
        assert needed in names, f"the wheel lacks {needed}"
    weights = {name.split("/")[3] for name in names if name.endswith("/model.safetensors")}
    large = [name for name in weights if not name.endswith(("-tiny", "-small"))]
    assert not large, f"the wheel holds weights for checkouts only: {large}"
    size = wheel.stat().st_size
    assert size <= BUDGET, f"the wheel has {size:,} bytes, of {BUDGET:,} that it may have"
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    message = message_from_bytes(archive.read(metadata))
    readme = str(message.get_payload(decode=True), "utf-8")
    assert "](http" in readme
    relative = [part[:40] for part in readme.split("](")[1:] if not part.startswith(("http", "#"))]
    assert not relative, f"the index would show links that lead nowhere: {relative}"
    labels = {address.split(",")[0] for address in message.get_all("Project-URL", [])}
    assert labels >= {"Source", "Documentation", "Changelog", "Issues"}, f"addresses of {labels}"
    print(f"{wheel.name}: {len(names)} files, {size / 1e6:.1f} MB of {BUDGET / 1e6:.0f}")


def check_core(package: Path, python: str, folder: str) -> None:
    """Uses what needs torch and einops only, and asks for what needs more."""
    probes = [json.loads(run(python, "-c", PROBE, cwd=folder)) for _ in range(5)]
    where, version, _, hosts, error = probes[0]
    seconds = sorted(probe[2] for probe in probes)[2]
    assert os.path.realpath(where).startswith(os.path.realpath(folder)), f"imported from {where}"
    assert version in package.name, f"{package.name} says it is {version}"
    assert not hosts, f"importing wic_layers loaded {hosts}"
    assert error < 1e-5, f"round-trip error {error}"
    # asked for 0.1 s beyond torch's own import; the median of five, as the machine may be
    # shared
    assert seconds < 0.1, f"importing wic_layers took {seconds:.3f} s beyond torch"
    run(python, "-c", WITHOUT, cwd=folder)
    print(f"{package.name}: imported in {1000 * seconds:.0f} ms beyond torch; error {error:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="with one wheel, or one sdist")
    parser.add_argument("--torch", required=True, help="as pip takes it, with its options")
    parser.add_argument(
        "--extras", nargs="*", choices=list(EXTRAS), help="each of these, all without a name"
    )
    args = parser.parse_args()
    built = [*args.folder.resolve().glob("*.whl"), *args.folder.resolve().glob("*.tar.gz")]
    (package,) = built
    if package.suffix == ".whl":
        check_contents(package)
    extras = ["cli"] if args.extras is None else args.extras or list(EXTRAS)
    torch, *options = shlex.split(args.torch)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        base = environment(Path(folder) / "torch")
        install(base, torch, *options, cwd=folder)
        install(base, "einops>=0.8", cwd=folder)
        core = environment(Path(folder) / "core", base)
        install(core, str(package), cwd=folder)
        check_core(package, core, folder)
        for extra in extras:
            python = environment(Path(folder) / extra, base)
            work = Path(folder) / f"{extra}-files"
            work.mkdir()
            try:
                # torch is named again, or an extra's newest dependency replaces it
                install(python, f"{package}[{extra}]", torch, cwd=folder)
                print(f"[{extra}]", run(python, "-c", EXTRAS[extra], cwd=str(work)).strip())
            except Failed as error:
                failed.append(extra)
                print(f"[{extra}]", error)
    if failed:
        sys.exit(f"These extras of {package.name} failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
