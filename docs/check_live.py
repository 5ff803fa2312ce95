"""The live page in a real Chromium: every direction, and that `wic` reads what it saves.

    python docs/check_live.py SITE [--shots FOLDER]

SITE is the built site, such as ``build/docs``; needs Chromium with its driver.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from test_web import SAVED, Browser  # noqa: E402 - of the tests

from wic_layers import tasks  # noqa: E402

BACK = {"hide": ("reveal", tasks.reveal_file), "down": ("up", tasks.up_file)}
BACK["gray"] = ("color", tasks.color_file)
DROP = """
const done = arguments[arguments.length - 1];
fetch("pictures/coffee.jpg").then((response) => response.blob()).then((blob) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([blob], "dropped.jpg", {type: "image/jpeg"}));
  const place = document.querySelector("#inputs label");
  place.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
}).then(done);
"""
SHOWN = """
const names = [...document.getElementById("file-0").files].map((file) => file.name);
return [...names, document.querySelectorAll("#inputs label canvas").length];
"""
STATUS = "const s = document.getElementById('status'); return [s.className, s.textContent];"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and says nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


def wait(browser: Browser, seconds: float = 300) -> str:
    """What the page says when it has done something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        kind, text = browser.run(STATUS)
        if kind:
            return str(text)
        time.sleep(0.2)
    raise SystemExit("The page said nothing for too long.")


def shoot(browser: Browser, folder: Path | None, name: str) -> None:
    """Writes what the browser shows, with what came back."""
    if folder is not None:
        browser.do("/window/rect", width=900, height=1300)
        browser.run("document.querySelector('figure').scrollIntoView();")
        folder.mkdir(parents=True, exist_ok=True)
        shot = browser("GET", f"/session/{browser.session}/screenshot")
        (folder / f"{name}.png").write_bytes(base64.b64decode(shot))


def check(browser: Browser, address: str, shots: Path | None) -> None:
    """Each forward mode on its example, back on the page, and back by the command line."""
    with tempfile.TemporaryDirectory() as temporary:
        for mode, (reverse, by_command) in BACK.items():
            browser.do("/url", url=address)
            browser.run(f"document.querySelector('#modes [value={mode}]').click();")
            browser.run("document.getElementById('example').click();")
            while browser.run("return document.getElementById('run').disabled;"):
                time.sleep(0.2)
            browser.run("document.getElementById('run').click();")
            said = wait(browser)
            print(f"{mode}: {said}")
            if not said.startswith("Done"):
                raise SystemExit(f"{mode} failed")
            (name, content), *_ = browser.run(SAVED, "async")
            file = Path(temporary) / name
            file.write_bytes(base64.b64decode(content))
            browser.run("s = document.getElementById('status'); s.className = '';"
                        "document.getElementById('back').click();")  # fmt: skip
            print(f"{reverse}: {wait(browser)}")
            print(browser.run("return document.querySelector('figure:last-of-type').innerText;"))
            shoot(browser, shots, f"live-{mode}")
            saved = dict(browser.run(SAVED, "async"))
            (back,) = (base64.b64decode(c) for n, c in saved.items() if n.endswith("-back.png"))
            (Path(temporary) / "page.png").write_bytes(back)
            out = Path(temporary) / f"{mode}-command.png"
            by_command(file, out)
            (there, here) = (
                np.asarray(Image.open(p).convert("RGB")).astype(int)
                for p in (out, Path(temporary) / "page.png")
            )
            off = np.abs(there - here)
            off_in = (off > 0).mean()
            print(f"wic reads it; the page's is off by {off.max()}, in {off_in:.2%}")
            # the reverse mode by itself, with the file chosen
            browser.do("/url", url=address)
            browser.run(f"document.querySelector('#modes [value={reverse}]').click();")
            browser.choose("#file-0", file)
            while browser.run("return document.getElementById('run').disabled;"):
                time.sleep(0.2)
            browser.run("document.getElementById('run').click();")
            said = wait(browser)
            print(f"{reverse} of the file: {said}")
            if not said.startswith("Done") or off.max() > 2:
                raise SystemExit(f"{reverse} failed")


def check_drop(browser: Browser, address: str) -> None:
    """A picture that is dropped is drawn, and named as one that was chosen."""
    browser.do("/url", url=address)
    browser.run("document.querySelector('#modes [value=down]').click();")
    browser.run(DROP, "async")
    end = time.monotonic() + 60
    while (shown := browser.run(SHOWN)) != ["dropped.jpg", 1]:
        if time.monotonic() > end:
            raise SystemExit(f"Of a picture that was dropped the page has {shown}.")
        time.sleep(0.2)
    print("a picture that is dropped is drawn and named")


def main() -> None:
    """Serves the site and tries its live page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("--shots", type=Path, help="folder for screenshots")
    options = parser.parse_args()
    handler = functools.partial(Quiet, directory=options.site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(folder)
        try:
            address = f"http://127.0.0.1:{server.server_port}/live/app/live.html"
            check_drop(browser, address)
            check(browser, address, options.shots)
        finally:
            browser.close()
            server.shutdown()


if __name__ == "__main__":
    main()
