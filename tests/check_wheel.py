"""Installs the built wheel into an empty environment and uses it away from the checkout.

Run by ``make wheel``; no test of pytest's, as it needs the built wheel and a minute.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

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


def run(*command: str, cwd: str) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--torch", required=True)
    args = parser.parse_args()
    (wheel,) = args.folder.resolve().glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    outside = [name for name in names if not name.startswith(("wic_layers/", "wic_layers-"))]
    assert not outside, f"the wheel holds more than the package: {outside}"
    for needed in (
        "wic_layers/py.typed",
        "wic_layers/models/weights/hiding-1-naive-small/model.safetensors",
        "wic_layers/models/weights/hiding-1-naive-small/config.json",
    ):
        assert needed in names, f"the wheel lacks {needed}"
    weights = {name.split("/")[3] for name in names if name.endswith("/model.safetensors")}
    large = [name for name in weights if not name.endswith(("-tiny", "-small"))]
    assert not large, f"the wheel holds weights for checkouts only: {large}"
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder) / "env", with_pip=True)
        python = str(Path(folder) / "env" / "bin" / "python")
        run(python, "-m", "pip", "install", "-q", args.torch, cwd=folder)
        run(python, "-m", "pip", "install", "-q", str(wheel), cwd=folder)
        probes = [json.loads(run(python, "-c", PROBE, cwd=folder)) for _ in range(5)]
        where, version, _, hosts, error = probes[0]
        seconds = sorted(probe[2] for probe in probes)[2]
        assert where.startswith(folder), f"imported from {where}, not from the wheel"
        assert version in wheel.name, f"{wheel.name} says it is {version}"
        assert not hosts, f"importing wic_layers loaded {hosts}"
        assert error < 1e-5, f"round-trip error {error}"
        # asked for 0.1 s beyond torch's own import; the median of five, as the machine may be
        # shared
        assert seconds < 0.1, f"importing wic_layers took {seconds:.3f} s beyond torch"
        wic = str(Path(python).with_name("wic"))
        print(run(wic, "selftest", cwd=folder))
    print(f"{wheel.name}: imported in {1000 * seconds:.0f} ms beyond torch; error {error:.1e}")


if __name__ == "__main__":
    main()
