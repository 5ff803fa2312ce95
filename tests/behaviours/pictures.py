"""scikit-image's photographs, in the sizes and kinds that users have."""

import numpy as np
import torch
from PIL import Image
from skimage import data


def write_all(folder):
    """Small, odd, grey, large, with transparency; folders, views and frames."""
    astronaut, coffee, chelsea, rocket = (
        getattr(data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")
    )

    def save(name, array, **options):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(array)).save(path, **options)

    save("a.png", astronaut[60:131, 190:287])  # 97 x 71
    save("b.jpg", coffee[150:221, 200:297], quality=95)
    save("c.png", chelsea[100:140, 130:176])  # 46 x 40
    save("d.png", rocket[200:233, 300:341])  # 41 x 33
    save("grey.png", data.camera()[100:164, 200:280])
    save("tiny.png", astronaut[80:83, 220:225])
    save("large.png", astronaut[:380, 60:500])
    fading = np.linspace(0, 255, 97, dtype=np.uint8)[None].repeat(71, 0)
    save("layer.png", np.dstack((coffee[150:221, 200:297], fading)))
    save("in/one.png", chelsea[80:120, 100:152])
    save("in/below/two.png", rocket[190:220, 310:350])
    save("secrets/one.png", coffee[100:130, 100:140])
    save("secrets/two.png", coffee[200:230, 300:340])
    for number in range(1, 8):
        save(f"frames/f{number}.png", astronaut[100:136, 60 + 5 * number : 108 + 5 * number])
    for view, shift in (("left", 0), ("right", 4)):
        for number, top in enumerate((40, 120)):
            save(f"{view}/{number}.png", coffee[top : top + 34, 200 + shift : 250 + shift])
    (folder / "text.png").write_text("no image")
    for name, array in (("v", data.rocket()), ("x", astronaut), ("y", coffee), ("z", chelsea)):
        save(f"photographs/{name}.png", array[60:260, 80:300])
    save("photographs/more/w.jpg", rocket[100:300, 200:420], quality=95)


def batch(count, height, width):
    """Photographs next to each other as one input: (1, 3 * count, height, width) in [0, 1]."""
    found = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.retina())
    crops = [
        torch.from_numpy(np.ascontiguousarray(found[k % 5][90 + k :][:height, 150 : 150 + width]))
        for k in range(count)
    ]
    return torch.cat([crop.permute(2, 0, 1) for crop in crops])[None].float() / 255


def shaken(model, amount=0.03):
    """The model with what starts at zero moved away from it, gently: images stay images."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.numel() > 1 and parameter.is_floating_point():
                generator = torch.Generator().manual_seed(len(name) + parameter.numel())
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_((amount * noise).to(parameter))
    return model.eval()


def write_weights(folder):
    """Tiny networks of every task, with random weights, as save_pretrained leaves them."""
    from wic_layers.models import DLVIRN, IRN, WIN, HCFlow, HiNet, IICNet, WINNaive

    tiny = {"couplings": 1, "growth": 4, "completion": "zero"}
    few = {"couplings": 1, "growth": 4, "features": 2}
    networks = {
        "hide1": WIN(6, 3, width=32, modules=1, **tiny),
        "hide2": WIN(9, 3, width=48, modules=1, couplings=1, growth=4, completion="learned"),
        "x2": WIN(3, 3, scale=2, width=16, modules=1, **tiny),
        "x3": IRN(scale=3, couplings=1, growth=4),
        "x4": WINNaive(3, 3, scale=4, copies=4, haar=True, **tiny),
        "x4-plain": WINNaive(3, 3, scale=4, couplings=1, growth=4, completion="shift"),
        "grey": WIN(3, 1, width=16, modules=1, **tiny),
        "hinet": HiNet(couplings=1, growth=4),
        "dlv": DLVIRN(couplings=1, growth=4),
        "hcflow": HCFlow(steps=1, growth=2, conditional_steps=1, width=4, depth=1),
        "pair": IICNet(6, 3, **few),
        "three": IICNet(9, 3, **few),
        "three-x2": IICNet(9, 3, scale=2, **few),
    }
    for name, network in networks.items():
        shaken(network).save_pretrained(folder / name, {"note": "random"})
