"""Types the three first pages of the site in empty environments, and takes the time.

    python docs/newcomers.py [flow conversion files]

For each page a virtual environment is made and the page's own pip line is run (from this checkout
in place of the index, on torch for CPUs), then its Python and its console lines, in order, in an
empty folder that has the photographs that the page names. What needs somebody's own checkpoint or
folder of photographs is left out, and said. Prints the time to the first result.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
TORCH = os.environ.get("TORCH", "torch==2.13.0")
_BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# what a reader has to bring
_OWN = ("500000_G.pth", "PHOTOGRAPHS", "--weights irn-x2")

PICTURES = """
from PIL import Image
from skimage import data
photographs = {"cover": data.coffee(), "secret": data.chelsea(), "photo": data.astronaut()}
for name, image in photographs.items():
    Image.fromarray(image[:192, :256]).save(f"{name}.png")
"""


def typed(page: str) -> list[tuple[str, str]]:
    """The blocks of a page, in order: their kind and their text."""
    return _BLOCK.findall((DOCS / "start" / f"{page}.md").read_text(encoding="utf-8"))


def local(line: str) -> str:
    """A line with this checkout in place of the package in the index, and fewer words of pip."""
    line = line.replace("pip install ", "pip install -q ")
    return re.sub(r"'wic-layers\[(.*?)\]'", rf"'{ROOT}[\1]'", line)


def walk(page: str) -> float:
    """Types a page, and returns the seconds from the first line to the first result."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("PIP_", "HTTP", "http", "SSL", "NO_PROXY", "no_proxy"))
        }
        path = f"{place}/venv/bin:{os.environ['PATH']}"
        environment |= {"HOME": folder, "PATH": path, "LANG": "C.UTF-8"}

        def run(*words: str) -> None:
            subprocess.run(words, cwd=place / "work", env=environment, check=True)

        (place / "work").mkdir()
        run(sys.executable, "-m", "venv", f"{place}/venv")
        run("pip", "install", "-q", TORCH)
        began, first = time.monotonic(), None
        for kind, text in typed(page):
            if kind == "python":
                script = place / "page.py"
                with script.open("a", encoding="utf-8") as file:
                    file.write(text)
                run("python", f"{script}")
                first = first or time.monotonic() - began
                continue
            for line in text.splitlines():
                command = line.partition("#")[0].strip()
                if not command:
                    continue
                if any(word in line for word in _OWN):
                    print(f"left out, as it needs your own: {command}", flush=True)
                    continue
                print(f"$ {command}", flush=True)
                run("bash", "-c", local(command))
                if command.startswith("pip"):
                    if page == "files":  # which needs photographs to type with
                        stop = time.monotonic()
                        run("pip", "install", "-q", "scikit-image")
                        run("python", "-c", PICTURES)
                        began += time.monotonic() - stop
                else:
                    first = first or time.monotonic() - began
        return first or float("nan")


def main() -> None:
    """Types each page."""
    for page in sys.argv[1:] or ("flow", "conversion", "files"):
        print(f"== {page}", flush=True)
        print(
            f"== {page}: first result after {walk(page):.0f} s, torch's download aside", flush=True
        )


if __name__ == "__main__":
    main()
