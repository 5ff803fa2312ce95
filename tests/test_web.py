"""The page in examples/web: its parts in Node, and the page itself in a real Chromium.

The second needs Chromium with its driver, and a copy of onnxruntime-web in examples/web/vendor, as
the README there says.
"""

import base64
import functools
import http.server
import io
import json
import shutil
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from skimage import data

from wic_layers import tasks
from wic_layers.codec.mark import Mark
from wic_layers.codec.parts import Part, join, split
from wic_layers.pictures import CHUNK, encode_png, read_carrier, write_png
from wic_layers.tasks import TASKS

PAGE = Path(__file__).parents[1] / "examples" / "web"
RUNTIME = PAGE / "vendor" / "ort.wasm.min.js"
NODE, DRIVER = shutil.which("node"), shutil.which("chromedriver")


def mark_in(path):
    return json.loads(split(read_carrier(path)[1])["mark"])


def in_node(script, *arguments):
    command = [NODE, "-e", script, PAGE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


READ = """
const {decodePng, digest, encodePng} = require(process.argv[1] + "/pictures.js");
(async () => {
  const found = [];
  for (const path of process.argv.slice(2)) {
    try {
      const image = await decodePng(new Uint8Array(require("fs").readFileSync(path)));
      const three = {length: 3 * image.pixels.length};
      const rgb = {...image, channels: 3, pixels: image.channels === 3 ? image.pixels
        : Uint8Array.from(three, (_, index) => image.pixels[Math.floor(index / 3)])};
      const written = Buffer.from(await (await encodePng(rgb)).arrayBuffer()).toString("base64");
      found.push({...image, pixels: Buffer.from(image.pixels).toString("base64"), written,
        digest: await digest(image)});
    } catch (error) {
      found.push({error: error.message});
    }
  }
  console.log(JSON.stringify(found));
})();
"""


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_pictures_are_read_and_written_exactly(tmp_path):
    """Every way in which Pillow stores 8 bits, and what the command line writes."""
    photo = Image.fromarray(data.chelsea()[:37, :53])
    stored = {
        "rgb": photo,
        "grey": photo.convert("L"),
        "palette": photo.quantize(200),
        "alpha": photo.convert("RGBA"),
        "grey alpha": photo.convert("LA"),
        "noise": Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)),
        "one": Image.new("RGB", (1, 1), (1, 2, 3)),
    }
    for name, image in stored.items():
        image.save(tmp_path / f"{name}.png")
    found = in_node(READ, *(tmp_path / f"{name}.png" for name in stored))
    for (name, image), read in zip(stored.items(), found, strict=True):
        assert "error" not in read, (name, read)
        mode = "L" if "grey" in name else "RGB"
        assert base64.b64decode(read["pixels"]) == image.convert(mode).tobytes(), name
        assert read["mark"] is None
        written = Image.open(io.BytesIO(base64.b64decode(read["written"])))
        assert written.mode == "RGB"
        assert written.tobytes() == image.convert("RGB").tobytes(), name

    photo.save(tmp_path / "photo.png")
    tasks.down_file(tmp_path / "photo.png", tmp_path / "small.png")
    (read,) = in_node(READ, tmp_path / "small.png")
    mark = mark_in(tmp_path / "small.png")
    assert read["mark"] == mark
    assert read["digest"] == mark["digest"]


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_other_pictures_are_refused(tmp_path):
    photo = Image.fromarray(data.chelsea()[:8, :9])
    photo.save(tmp_path / "a.jpg")
    Image.fromarray(np.full((4, 4), 700, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (4, 4), (1, 2, 3, 254)).save(tmp_path / "clear.png")
    photo.save(tmp_path / "b.png")
    (tmp_path / "short.png").write_bytes((tmp_path / "b.png").read_bytes()[:-20])
    names = ("a.jpg", "deep.png", "clear.png", "short.png")
    found = [read["error"] for read in in_node(READ, *(tmp_path / name for name in names))]
    wanted = ("Expected a PNG as", "8 bits", "partly transparent", "damaged or cut short")
    for error, want in zip(found, wanted, strict=True):
        assert want in error


def png_of(width, height, content):
    """A grey PNG whose pixels are unpacked to other than its header says."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(content, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_a_png_is_inflated_to_the_size_in_its_header_alone(tmp_path):
    """One of 200 kB that would become 200 MB, and one that says so, take no memory to speak of."""
    (tmp_path / "bomb.png").write_bytes(png_of(4, 4, bytes(2 * 10**8)))
    (tmp_path / "short.png").write_bytes(png_of(4, 4, bytes(19)))
    (tmp_path / "large.png").write_bytes(png_of(20_000, 20_000, b""))
    found = [
        read["error"]
        for read in in_node(READ, *(tmp_path / f"{n}.png" for n in ("bomb", "short", "large")))
    ]
    assert ["unpacked" in error for error in found] == [True, True, False]
    assert "20000x20000; this page takes up to 100 megapixels" in found[2]


class Browser:
    """Chromium by WebDriver, which is JSON over HTTP."""

    def __init__(self, folder):
        with socket_free() as port:
            self.address = f"http://127.0.0.1:{port}"
        self.driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL)
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage"]
        arguments.append(f"--user-data-dir={folder}")
        options = {"goog:chromeOptions": {"args": arguments}}
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", **options}}}
        for _ in range(100):
            try:
                self.session = self("POST", "/session", wanted)["sessionId"]
                break
            except urllib.error.URLError:
                time.sleep(0.1)

    def __call__(self, method, path, body=None):
        request = urllib.request.Request(
            self.address + path, method=method, data=json.dumps(body or {}).encode()
        )
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.loads(response.read())["value"]

    def do(self, path, **body):
        return self("POST", f"/session/{self.session}{path}", body)

    def choose(self, element, path):
        found = self.do("/element", using="css selector", value=element)
        self.do(f"/element/{next(iter(found.values()))}/value", text=str(path))

    def run(self, script, kind="sync"):
        return self.do(f"/execute/{kind}", script=script, args=[])

    def close(self):
        try:
            self("DELETE", f"/session/{self.session}")
        finally:
            self.driver.terminate()
            self.driver.wait(30)


def socket_free():
    import contextlib
    import socket

    @contextlib.contextmanager
    def port():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            yield free.getsockname()[1]

    return port()


SHOWN = """
return [...document.querySelectorAll("canvas")].map((canvas) => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let text = "";
  for (const byte of data) text += String.fromCharCode(byte);
  return [canvas.width, canvas.height, btoa(text)];
});
"""
SAVED = """
const done = arguments[arguments.length - 1];
Promise.all([...document.querySelectorAll("figure a")].map(async (link) => {
  const bytes = new Uint8Array(await (await fetch(link.href)).arrayBuffer());
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return [link.download, btoa(text)];
})).then(done);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if DRIVER is None or not RUNTIME.is_file():
        pytest.skip("needs chromedriver, and onnxruntime-web in examples/web/vendor")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=PAGE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser, f"http://127.0.0.1:{server.server_port}/index.html"
    browser.close()
    server.shutdown()


def brought_back(page, network, picture):
    """What the page says, shows and saves."""
    browser, address = page
    browser.do("/url", url=address)
    browser.choose("#network", network)
    browser.choose("#picture", picture)
    status = {"className": ""}
    end = time.monotonic() + 120
    while not status["className"] and time.monotonic() < end:
        time.sleep(0.1)
        status = browser.run("const s = document.getElementById('status'); return "
                             "{className: s.className, text: s.textContent};")  # fmt: skip
    shown = [
        np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(height, width, 4)
        for width, height, pixels in browser.run(SHOWN)
    ]
    saved = {
        name: np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
        for name, content in browser.run(SAVED, "async")
    }
    return status["text"], shown, saved


@pytest.mark.slow
def test_chromium_refuses_another_runtime(page):
    """Each of its files is checked, not the script alone."""
    browser, address = page
    browser.do("/url", url=address)
    for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        said = browser.run(
            f"const [done] = arguments, name = '{name}', own = RUNTIME[name];"
            f"RUNTIME[name] = 'sha384-{'A' * 64}';"
            "runtime().then(() => 'loaded', (error) => error.message)"
            ".then((said) => { RUNTIME[name] = own; started = null; done(said); });",
            "async",
        )
        assert "cannot be loaded" in said, name


@pytest.mark.slow
def test_chromium_shows_what_the_command_line_writes(page, tmp_path):
    from wic_layers.deploy import export_onnx

    Image.fromarray(data.astronaut()[:201, :255]).save(tmp_path / "cover.png")
    Image.fromarray(data.coffee()[:181, :233]).save(tmp_path / "secret.png")
    Image.fromarray(data.chelsea()[:299, :451]).save(tmp_path / "photo.png")
    covers = [tmp_path / "secret.png"] * 2
    tasks.hide_file(tmp_path / "cover.png", covers, tmp_path / "stego.png")
    tasks.down_file(tmp_path / "photo.png", tmp_path / "small.png", scale=4)
    tasks.gray_file(tmp_path / "photo.png", tmp_path / "grey.png")
    back = {
        "stego": ("hiding-2-naive-small", tasks.reveal_file, "stego-secret-1.png"),
        "small": ("rescaling-x4-plain-naive-small", tasks.up_file, "small-photo.png"),
        "grey": ("decolorization-naive-small", tasks.color_file, "grey-photo.png"),
    }
    for picture, (preset, bring_back, name) in back.items():
        network = export_onnx(preset, tmp_path / f"{picture}.onnx", "reverse").path
        written = bring_back(tmp_path / f"{picture}.png", tmp_path / f"{picture}-back.png")
        paths = [one.path for one in written] if isinstance(written, list) else [written.path]
        text, shown, saved = brought_back(page, network, tmp_path / f"{picture}.png")
        assert text.startswith("Done"), text
        assert name in saved
        for image, pixels, path in zip(shown, saved.values(), paths, strict=True):
            assert np.array_equal(image[..., :3], pixels)
            assert (image[..., 3] == 255).all()
            wanted = np.asarray(Image.open(path)).astype(int)
            difference = np.abs(pixels - wanted)
            assert difference.max() <= 1
            assert (difference > 0).mean() < 1e-3

    network = tmp_path / "small.onnx"
    text, shown, _ = brought_back(page, network, tmp_path / "stego.png")
    assert "The picture was made for hiding-2; this network is for rescaling-x4" in text
    assert not shown


CHECK = """
const {decodePng, encodePng} = require(process.argv[1] + "/pictures.js");
const {restore} = require(process.argv[1] + "/reverse.js");
(async () => {
  const [path, network, changes, outputs] = process.argv.slice(2, 6).map((text, index) =>
    index ? JSON.parse(text) : text);
  class Tensor { constructor(type, data, dims) { Object.assign(this, {data, dims}); } }
  globalThis.ort = {Tensor};
  const image = await decodePng(new Uint8Array(require("fs").readFileSync(path)));
  Object.assign(image.mark, changes);
  const session = {
    inputNames: ["picture"], outputNames: outputs,
    inputMetadata: [{shape: network.grey ? ["h", "w"] : ["h", "w", 3]}],
    run: async ({picture}) => {
      const pixels = picture.dims[0] * picture.dims[1] * network.scale ** 2;
      const data = new Uint8Array(3 * pixels).fill(7);
      return Object.fromEntries(outputs.map((name) => [name, {data}]));
    },
  };
  try {
    const found = await restore(session, network, image);
    const written = Buffer.from(await (await encodePng(found[0])).arrayBuffer());
    if (process.argv[6]) require("fs").writeFileSync(process.argv[6], written);
    console.log(JSON.stringify(found.map(({name, width, height}) => [name, width, height])));
  } catch (error) {
    console.log(JSON.stringify({error: error.message, kind: error.constructor.name}));
  }
})();
"""


def restored(path, changes=None, outputs=("photo",), scale=2, multiple=1, out="", **network):
    mark = mark_in(path)
    said = {"task": mark["task"], "weights": mark["weights"], "direction": "reverse", **network}
    said |= {"scale": str(scale), "multiple": str(multiple), "overlap": "8"}
    return in_node(CHECK, path, *map(json.dumps, (said, changes or {}, outputs)), out)


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_marks_are_judged_as_the_command_line_judges_them(tmp_path):
    small, grey = tmp_path / "small.png", tmp_path / "grey.png"
    Image.fromarray(data.chelsea()[:37, :53]).save(tmp_path / "photo.png")
    tasks.down_file(tmp_path / "photo.png", small)
    assert restored(small) == [["photo", 53, 37]]
    for changes, message in (
        ({"sizes": [[99, 37]]}, "says sizes that cannot come back"),
        ({"sizes": [[53, 37]] * 2}, "says sizes that cannot come back"),
        ({"digest": "0" * 16}, "edited or went through lossy"),
    ):
        found = restored(small, changes)
        assert message in found["error"]
        assert found["kind"] == "Refusal"
    # a clip may be short of frames
    assert restored(small, outputs=["frame_1", "frame_2"]) == [["frame_1", 53, 37]]

    # the same grey pixels, stored as RGB by a program that keeps them
    tasks.gray_file(tmp_path / "photo.png", grey)
    with Image.open(grey) as image:
        chunk = PngInfo()
        chunk.add(CHUNK, read_carrier(grey)[1])
        image.convert("RGB").save(tmp_path / "rgb.png", pnginfo=chunk)
    tasks.color_file(tmp_path / "rgb.png", tmp_path / "back.png")
    for path in (grey, tmp_path / "rgb.png"):
        assert restored(path, scale=1, multiple=1, grey=True) == [["photo", 53, 37]]


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_parts_are_read_as_the_command_line_reads_them(tmp_path):
    photo = Image.fromarray(data.chelsea()[:37, :53])
    opacity = Image.fromarray(np.arange(37 * 53, dtype=np.uint16).reshape(37, 53).astype(np.uint8))
    photo.convert("L").save(tmp_path / "grey.png")
    photo.putalpha(opacity)
    photo.save(tmp_path / "fading.png")
    out = tmp_path / "out.png"
    grey, fading = (tmp_path / f"small-{name}.png" for name in ("grey", "fading"))
    tasks.down_file(tmp_path / "grey.png", grey)
    tasks.down_file(tmp_path / "fading.png", fading)
    assert restored(grey, out=out) == [["photo", 53, 37]]
    assert Image.open(out).mode == "L"
    assert restored(fading, out=out) == [["photo", 53, 37]]
    with Image.open(out) as image:
        assert (image.mode, image.getpixel((9, 9))[:3]) == ("RGBA", (7, 7, 7))
        assert image.getchannel("A").tobytes() == opacity.tobytes()
    # the photograph itself, not what the network makes of it
    tasks.gray_file(tmp_path / "grey.png", tmp_path / "stored.png")
    restored(tmp_path / "stored.png", scale=1, grey=True, out=out)
    with Image.open(out) as image:
        assert image.tobytes() == Image.open(tmp_path / "grey.png").tobytes()

    pixels, chunk = read_carrier(grey)
    mark = Part.of("mark", split(chunk)["mark"])
    new = Part("residual", b"1", 1, is_required=False)
    for parts, message in (
        ([mark, new], None),
        ([mark, replace(new, is_required=True)], "holds residual of version 1"),
        ([mark, Part.of("alpha", encode_png(pixels[:1]))], "chunk of the PNG is damaged"),
        ([mark, mark], "chunk of the PNG is damaged"),
        ([new], "chunk of the PNG is damaged"),
    ):
        write_png(pixels, out, chunk=join(parts), force=True)
        if parts[-1].name == "alpha":
            assert message in restored(out)["error"]
        else:
            (read,) = in_node(READ, out)
            assert message is None or message in read["error"]


CONVERT = """
const {encodePng} = require(process.argv[1] + "/pictures.js");
const {convert} = require(process.argv[1] + "/forward.js");
(async () => {
  const [out, network, sizes] = process.argv.slice(2, 5).map((text, index) =>
    index ? JSON.parse(text) : text);
  class Tensor { constructor(type, data, dims) { Object.assign(this, {data, dims}); } }
  globalThis.ort = {Tensor};
  const images = sizes.map(([width, height], image) => ({width, height, channels: 3,
    pixels: Uint8Array.from({length: 3 * width * height}, (_, index) => (image + index) * 37)}));
  const grey = network.task === "decolorization";
  const session = {
    inputNames: images.map((_, index) => `image_${index}`), outputNames: ["picture"],
    run: async (feeds) => {
      const [height, width] = feeds.image_0.dims;
      const length = width * height * (grey ? 1 : 3);
      const pixels = Uint8Array.from({length}, (_, index) => index * 11);
      return {picture: {data: pixels, dims: grey ? [height, width] : [height, width, 3]}};
    },
  };
  try {
    const picture = await convert(session, network, images);
    require("fs").writeFileSync(out, Buffer.from(await (await encodePng(picture)).arrayBuffer()));
    console.log(JSON.stringify(picture.mark));
  } catch (error) {
    console.log(JSON.stringify({error: error.message, kind: error.constructor.name}));
  }
})();
"""


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_what_the_page_writes_is_marked_as_the_command_line_marks_it(tmp_path):
    """Its files are read by the command line: parts, sizes and the digest of the pixels."""
    out = tmp_path / "out.png"
    said = {
        "direction": "forward",
        "preset": "hiding-1-naive-small",
        "weights": "0123456789abcdef",
    }
    for task, sizes in (("hiding-1", [[6, 4], [5, 3]]), ("decolorization", [[6, 4]])):
        network = json.dumps({**said, "task": task})
        written = in_node(CONVERT, out, network, json.dumps(sizes))
        pixels, chunk = read_carrier(out)
        mark = Mark.loads(split(chunk)["mark"])
        assert json.loads(mark.dumps()) == written
        mark.check(TASKS[task], pixels, out)
        assert (mark.sizes, mark.pixels, mark.grey) == (
            tuple(map(tuple, sizes[-1:])),
            (6, 4),
            (False,),
        )
    network = json.dumps({**said, "task": "hiding-1"})
    refused = in_node(CONVERT, out, network, json.dumps([[5, 4], [6, 4]]))
    assert "no larger than the cover" in refused["error"]
    assert refused["kind"] == "Refusal"
