"""What each extra has to do in an environment that holds nothing else: see ``check_wheel.py``."""

PHOTOGRAPH = """
import numpy as np
from PIL import Image
rows, columns = np.mgrid[:64, :96]
photo = np.stack((rows * 3, columns * 2, rows + columns), -1).astype(np.uint8)
Image.fromarray(photo).save("photo.png")
"""
OTHER = 'Image.fromarray(photo[:, ::-1]).save("other.png")\n'
# the command as it is installed, and not as a module
COMMAND = """
import os, subprocess, sys
from pathlib import Path
def wic(*words):
    command = [str(Path(sys.executable).with_name("wic" + (".exe" if os.name == "nt" else "")))]
    done = subprocess.run(command + list(words), capture_output=True, encoding="utf-8")
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout
"""
WITHOUT = """
from wic_layers.errors import WICDependencyError, WICError
from wic_layers.models import from_pretrained
def sentence(function):
    try:
        function()
    except WICDependencyError as error:
        return str(error)
    raise SystemExit("it should say what is missing")
assert "wic-layers[images]" in sentence(lambda: from_pretrained("hiding-1-naive-small"))
def host(name):
    return sentence(lambda: __import__(f"wic_layers.{name}"))
assert "wic-layers[freia]" in host("freia")
assert "wic-layers[normflows]" in host("normflows")
"""

EXTRAS = {
    "freia": """
import torch
from FrEIA.framework import SequenceINN
from wic_layers.freia import WIC
inn = SequenceINN(3, 8, 8)
inn.append(WIC, out_channels=12)
x = torch.randn(2, 3, 8, 8)
y, _ = inn(x)
assert torch.allclose(inn(y, rev=True)[0], x, atol=1e-4)
print("3 channels became 12 and came back")
""",
    "normflows": """
import torch
from wic_layers.normflows import WIC
flow = WIC(in_channels=3, out_channels=3)
z = torch.randn(2, 3, 8, 8)
assert torch.allclose(flow.inverse(flow(z)[0])[0], z, atol=1e-4)
print("there and back")
""",
    "images": PHOTOGRAPH
    + """
from wic_layers import tasks
small = tasks.down(photo)
tasks.hide_file("photo.png", ["photo.png"], "stego.png")
(written,) = tasks.reveal_file("stego.png", "secret.png")
assert small.shape == (32, 48, 3) and written.path.exists()
print("hidden and revealed, halved")
""",
    "video": PHOTOGRAPH
    + """
import av
from wic_layers.pictures import read_frames
with av.open("clip.mp4", "w") as file:
    stream = file.add_stream("mpeg4", rate=25)
    stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
    for _ in range(4):
        file.mux(stream.encode(av.VideoFrame.from_ndarray(photo, "rgb24")))
    file.mux(stream.encode())
print(len(list(read_frames("clip.mp4"))), "frames")
""",
    "heic": PHOTOGRAPH
    + """
import pillow_heif
from wic_layers.pictures import read_image
pillow_heif.register_heif_opener()
Image.fromarray(photo).save("photo.heic")
print(tuple(read_image("photo.heic").shape))
""",
    "cli": COMMAND
    + """
print(wic("selftest").strip().splitlines()[-1])
""",
    "train": PHOTOGRAPH
    + OTHER
    + COMMAND
    + """
wic("train", "rescaling-x2-naive-tiny", "--data", ".", "--steps", "2", "--batch", "1",
    "--crop", "16", "--held-out", "1", "--through", "jpeg:80-95", "-o", "run")
assert Path("run/model.safetensors").exists(), list(Path("run").iterdir())
print("two steps through JPEG, and weights")
""",
    "hub": """
from wic_layers.errors import WICFileError
from wic_layers.models import from_pretrained
import huggingface_hub
for name in ("hub:wic-layers/nothing", "rescaling-x2"):
    try:
        from_pretrained(name)
    except WICFileError as error:
        print(f"{str(error)[:60]}...", end=" ")
    else:
        raise SystemExit("there are no weights without a connection")
""",
    "onnx": """
from wic_layers.deploy import export_onnx
from wic_layers.models import from_pretrained
exported = export_onnx(from_pretrained("rescaling-x2-naive-small"), "down.onnx")
print(exported.path)
""",
    # its torchvision has to be built for the same torch, with CUDA or without
    "spandrel": """
import spandrel, torch
from wic_layers.deploy.spandrel import install
from wic_layers.models import packaged_weights
install()
weights = packaged_weights()["rescaling-x2-naive-small"] / "model.safetensors"
model = spandrel.ModelLoader().load_from_file(weights)
print(type(model).__name__, tuple(model(torch.rand(1, 3, 16, 16)).shape))
""",
    "all": """
import av, FrEIA, huggingface_hub, normflows, onnx, pillow_heif, tensorboard
print("all of them")
""",
}
