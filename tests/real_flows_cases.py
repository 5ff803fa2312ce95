"""The 1x1 layers of public flow code bases: how each is built and called, as its owner does it.

Every function below belongs to one code base. It gets ``load``, which imports a module of that
code base, and returns the cases; whole models where one is easy to build, so that what stands
around the layers is there too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from real_flows_sources import Source, no_cuda, old_torch, options
from standins.flows.case import Case
from torch import Tensor, nn

Load = Callable[[str], Any]
CODE_BASES: list[tuple[Source, Callable[[Load], list[Case]]]] = []


def code_base(name: str, *folders: str, **needs: tuple[str, ...]) -> Callable[..., Any]:
    """Registers the cases of a code base."""

    def register(cases: Callable[[Load], list[Case]]) -> Callable[[Load], list[Case]]:
        CODE_BASES.append((Source(name, folders or ("",), **needs), cases))
        return cases

    return register


def random(*shape: int) -> Callable[[], Tensor]:
    """A batch of that shape, drawn when it is asked for."""
    return functools.partial(torch.randn, *shape)


def constant(*shape: int) -> Tensor:
    """A condition: the same numbers at every call."""
    return torch.linspace(-1, 1, torch.Size(shape).numel()).sin().view(shape)


IMAGES, STEP, SEQUENCES, VECTORS = (
    random(4, 3, 4, 4),
    random(4, 12, 2, 2),
    random(4, 6, 5),
    random(4, 4),
)
NORM, COUPLING = "diagonal", "coupling"


class Latents:
    """The latents of a multi-scale model as one tensor of (B, D), and back."""

    def pack(self, tensors: Sequence[Tensor]) -> Tensor:
        self.shapes = [tensor.shape[1:] for tensor in tensors]
        return torch.cat([tensor.flatten(1) for tensor in tensors], 1)

    def unpack(self, z: Tensor) -> list[Tensor]:
        parts = z.split([shape.numel() for shape in self.shapes], 1)
        return [
            part.reshape(len(z), *shape) for part, shape in zip(parts, self.shapes, strict=True)
        ]


def where(build: Callable[[], nn.Module], *kinds: Any) -> tuple[str, ...]:
    """The names of the modules of these classes: what a swap has to change."""
    return tuple(name for name, module in build().named_modules() if type(module) in kinds)


# (input, logdet=None, reverse=False)

RUNNING = {
    "forward": lambda layer, x: layer(x),
    "forward, log-det (B,)": lambda layer, x: layer(x, torch.arange(len(x)).float(), False),
    "forward, log-det 0": lambda layer, x: layer(x, logdet=0, reverse=False),
    "reverse": lambda layer, x: layer(x, reverse=True),
    "reverse, by position": lambda layer, x: layer(x, torch.zeros(len(x)), True),
    "reverse, log-det 0": lambda layer, x: layer(x, logdet=0.0, reverse=True),
}
WEIGHTS = {
    "get_weight": lambda layer, x: layer.get_weight(x, False),
    "get_weight, reverse": lambda layer, x: layer.get_weight(x, True),
}


def running(name: str, like: str, build: Any, kind: Any, **changes: Any) -> Case:
    values: dict[str, Any] = {
        "layers": where(build, kind),
        "x": IMAGES,
        "forward": lambda model, x: model(x, logdet=torch.zeros(len(x)), reverse=False),
        "inverse": lambda model, z: _first(model(z, logdet=torch.zeros(len(z)), reverse=True)),
        "layer_x": STEP,
        "layer_calls": RUNNING | WEIGHTS,
    }
    return Case(name=name, like=like, build=build, **(values | changes))


def _first(result: Any) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]


@code_base("chaiyujin/glow-pytorch")
def chaiyujin(load: Load) -> list[Case]:
    models, modules = load("glow.models"), load("glow.modules")
    like = "chaiyujin/glow-pytorch"

    def cases(lu: bool) -> Case:
        build = functools.partial(
            models.FlowNet, (4, 4, 3), 8, K=2, L=1, flow_coupling="affine", LU_decomposed=lu
        )
        left = {"layers.1.actnorm": NORM, "layers.1": COUPLING}
        return running(_named("FlowNet", lu), like, build, modules.InvertibleConv1x1, left=left)

    def shuffle() -> nn.Module:
        kind = {"flow_coupling": "affine", "flow_permutation": "shuffle"}
        return models.FlowNet((4, 4, 3), 8, K=1, L=1, **kind)

    left = {"layers.1.shuffle": "permutation", "layers.1.actnorm": NORM}
    shuffled = running("FlowNet, shuffle", like, shuffle, None, left=left, layer_calls={})
    return [cases(False), cases(True), shuffled]


def _named(name: str, lu: bool) -> str:
    return f"{name}, {'LU' if lu else 'free'}"


@code_base("y0ast/Glow-PyTorch")
def y0ast(load: Load) -> list[Case]:
    model, modules = load("model"), load("modules")
    return [
        running(
            _named("FlowNet", lu),
            "y0ast/Glow-PyTorch",
            functools.partial(model.FlowNet, (4, 4, 3), 8, 2, 1, 1.0, "invconv", "affine", lu),
            modules.InvertibleConv1x1,
            left={"layers.1.actnorm": NORM, "layers.1": COUPLING},
            pickles=False,
        )
        for lu in (False, True)
    ]


@code_base("corenel/pytorch-glow", absent=("cv2", "easydict", "torchvision", "tensorboardX"))
def corenel(load: Load) -> list[Case]:
    model, module = load("network.model"), load("network.module")
    return [
        running(
            "FlowModel, free",
            "corenel/pytorch-glow",
            functools.partial(model.FlowModel, (4, 4, 3), 8, 2, 1, coupling="affine"),
            module.Invertible1x1Conv,
            layer_calls=RUNNING,
            inverse=lambda model, z: model(z.clone(), reverse=True),  # changes its input
            notes="its couplings write into what autograd keeps: no training",
            left={"layers.1.actnorm": NORM, "layers.1": COUPLING},
        )
    ]


SR = ("natsort", "cv2", "torchvision")


def super_resolution(load: Load, like: str, **given: Any) -> list[Case]:
    step, permutations = load("models.modules.FlowStep"), load("models.modules.Permutations")
    features, coupling = constant(1, 320, 2, 2), "CondAffineSeparatedAndCond"

    def run(model: Any, x: Tensor, reverse: bool) -> Any:
        results = features.expand(len(x), -1, -1, -1)
        return model(x, torch.zeros(len(x)), reverse=reverse, rrdbResults=results)

    return [
        running(
            "FlowStep, free",
            like,
            functools.partial(step.FlowStep, 12, 8, flow_coupling=coupling, **given),
            permutations.InvertibleConv1x1,
            x=STEP,
            forward=functools.partial(run, reverse=False),
            inverse=lambda model, z: run(model, z, True)[0],
            left={"actnorm": NORM, "affine": COUPLING},
        )
    ]


@code_base("andreas128/SRFlow", "code", absent=SR)
def srflow(load: Load) -> list[Case]:
    return super_resolution(load, "andreas128/SRFlow")


@code_base("wyf0912/LLFlow", "code", absent=SR)
def llflow(load: Load) -> list[Case]:
    return super_resolution(load, "wyf0912/LLFlow", opt={"le_curve": None})


@code_base("JingyunLiang/HCFlow", "codes", absent=SR)
def hcflow(load: Load) -> list[Case]:
    step, permutations = load("models.modules.FlowStep"), load("models.modules.Permutations")
    return [
        running(
            _named("FlowStep", lu),
            "JingyunLiang/HCFlow",
            functools.partial(step.FlowStep, 12, flow_coupling="Affine", LU_decomposed=lu),
            permutations.InvertibleConv1x1,
            x=STEP,
            left={"actnorm": NORM, "affine": COUPLING},
        )
        for lu in (False, True)
    ]


@code_base("yzxing87/Invertible-ISP")
def invertible_isp(load: Load) -> list[Case]:
    model, modules = load("model.model"), load("model.modules")
    return [
        running(
            "InvISPNet, LU",
            "yzxing87/Invertible-ISP",
            functools.partial(model.InvISPNet, block_num=2),
            modules.InvertibleConv1x1,
            forward=lambda model, x: (model(x), None),
            inverse=lambda model, z: model(z, rev=True),
            layer_x=random(4, 3, 4, 4),
            left={"operations.0": COUPLING},
            pickles=False,
            copies=False,
        )
    ]


@code_base("simonalexanderson/StyleGestures")
def style_gestures(load: Load) -> list[Case]:
    models, modules = load("glow.models"), load("glow.modules")
    condition = constant(1, 4, 5)
    net = {"flow_coupling": "affine", "network_model": "FF"}

    def run(model: Any, x: Tensor, reverse: bool) -> Any:
        given = condition.expand(len(x), -1, -1)
        return model(x, given, logdet=torch.zeros(len(x)), reverse=reverse)

    # it looks for NaN in the log-det of the reverse direction, which must be a tensor
    calls = {
        name: call
        for name, call in (RUNNING | WEIGHTS).items()
        if name not in ("reverse", "reverse, log-det 0")
    }
    return [
        running(
            _named("FlowNet", lu),
            "simonalexanderson/StyleGestures",
            functools.partial(models.FlowNet, 6, 8, 4, K=2, LU_decomposed=lu, **net),
            modules.InvertibleConv1x1,
            x=SEQUENCES,
            forward=functools.partial(run, reverse=False),
            inverse=functools.partial(run, reverse=True),
            layer_x=SEQUENCES,
            layer_calls=calls,
            left={"layers.0.actnorm": NORM, "layers.0": COUPLING},
        )
        for lu in (False, True)
    ]


@code_base("chrischute/glow")
def chrischute(load: Load) -> list[Case]:
    glow, conv = load("models.glow.glow"), load("models.glow.inv_conv")
    return [
        Case(
            name="_Glow, free",
            like="chrischute/glow",
            build=functools.partial(glow._Glow, 12, 8, 2, 1),
            layers=where(functools.partial(glow._Glow, 12, 8, 2, 1), conv.InvConv),
            x=STEP,
            forward=lambda model, x: model(x, torch.zeros(len(x))),
            inverse=lambda model, z: model(z, torch.zeros(len(z)), reverse=True)[0],
            layer_x=STEP,
            layer_calls={
                "forward": lambda layer, x: layer(x, torch.zeros(len(x)), False),
                "forward, by keyword": lambda layer, x: layer(x, sldj=0.0),
                "reverse": lambda layer, x: layer(x, torch.zeros(len(x)), True),
            },
            left={"steps.0.norm": NORM, "steps.0.coup": COUPLING},
        )
    ]


# forward(x) -> (y, log-det), reverse(y)

REVERSE = {
    "forward": lambda layer, x: layer(x),
    "reverse": lambda layer, x: layer.reverse(x),
}
CALC = {"calc_weight": lambda layer, x: layer.calc_weight()}


@code_base("rosinality/glow-pytorch")
def rosinality(load: Load) -> list[Case]:
    module = load("model")
    latents = Latents()

    def forward(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        _, log_det, z = model(x)
        return latents.pack(z), log_det

    def case(lu: bool) -> Case:
        build = functools.partial(module.Glow, 3, 2, 2, conv_lu=lu)
        return Case(
            name=_named("Glow", lu),
            like="rosinality/glow-pytorch",
            build=build,
            layers=where(build, module.InvConv2d, module.InvConv2dLU),
            x=IMAGES,
            forward=forward,
            inverse=lambda model, z: model.reverse(latents.unpack(z), reconstruct=True),
            layer_x=STEP,
            layer_calls=REVERSE | (CALC if lu else {}),
            left={"blocks.0.flows.0.actnorm": NORM, "blocks.0.flows.0.coupling": COUPLING},
        )

    return [case(False), case(True)]


@code_base("calvin-zcx/moflow")
def moflow(load: Load) -> list[Case]:
    basic, glow = load("mflow.models.basic"), load("mflow.models.glow")

    def block(lu: int) -> Case:
        build = functools.partial(glow.Block, 3, 2, 2, (8,), conv_lu=lu)
        return Case(
            name=_named("Block", bool(lu)),
            like="calvin-zcx/moflow",
            build=build,
            layers=where(build, basic.InvConv2d, basic.InvConv2dLU),
            x=IMAGES,
            forward=lambda model, x: model(x),
            inverse=lambda model, z: model.reverse(z),
            layer_x=STEP,
            layer_calls=REVERSE | (CALC if lu else {}),
            left={"flows.0.actnorm": NORM, "flows.0.coupling": COUPLING},
        )

    rotations = [
        alone(kind.__name__, "calvin-zcx/moflow", functools.partial(kind, 6), SEQUENCES, calls)
        for kind, calls in ((basic.InvRotation, REVERSE), (basic.InvRotationLU, REVERSE | CALC))
    ]
    return [block(0), block(1), *rotations]


def alone(
    name: str,
    like: str,
    build: Callable[[], nn.Module],
    x: Callable[[], Tensor],
    calls: Any,
    forward: Any = None,
    inverse: Any = None,
    **changes: Any,
) -> Case:
    """A layer that its owner's models hold in a list, with nothing around it."""
    there = forward or calls["forward"]
    back = inverse or next(
        call for word in ("reverse", "inverse") if (call := calls.get(word)) is not None
    )
    values: dict[str, Any] = {
        "layers": ("0",),
        "x": x,
        "forward": lambda model, x: there(model[0], x),
        "inverse": lambda model, z: _first(back(model[0], z)),
        "layer_x": x,
        "layer_calls": calls,
    }
    return Case(name=name, like=like, build=lambda: nn.Sequential(build()), **(values | changes))


# (z, reverse=False) -> (z, log-det) or z

SOUND = {
    "forward": lambda layer, x: layer(x),
    "forward, by keyword": lambda layer, x: layer(x, reverse=False),
    "reverse": lambda layer, x: layer(x, reverse=True),
}


@code_base("NVIDIA/waveglow")
def waveglow(load: Load) -> list[Case]:
    glow = load("glow")
    spectrum = constant(1, 4, 1)
    net = {"n_layers": 1, "n_channels": 4, "kernel_size": 3}
    build = functools.partial(glow.WaveGlow, 4, 4, 8, 2, 2, net)

    def forward(model: Any, audio: Tensor) -> tuple[Tensor, Tensor]:
        z, log_s, log_det_w = model((spectrum.expand(len(audio), -1, -1), audio))
        return z, sum(part.sum() for part in log_s) + sum(log_det_w)

    def inverse(model: Any, z: Tensor) -> Tensor:
        # what infer does, which asks for CUDA where it draws the latent
        spect = model.upsample(spectrum.expand(len(z), -1, -1))[:, :, : z.shape[1] * z.shape[2]]
        spect = spect.unfold(2, 8, 8).permute(0, 2, 1, 3)
        spect = spect.reshape(*spect.shape[:2], -1).permute(0, 2, 1)
        early, audio = z[:, :2], z[:, 2:]
        for k in reversed(range(4)):
            half = audio.shape[1] // 2
            out = model.WN[k]((audio[:, :half], spect))
            second = (audio[:, half:] - out[:, :half]) / torch.exp(out[:, half:])
            audio = model.convinv[k](torch.cat([audio[:, :half], second], 1), reverse=True)
            if k == 2:
                audio = torch.cat([early, audio], 1)
        return audio.permute(0, 2, 1).reshape(len(z), -1)

    return [
        Case(
            name="WaveGlow",
            like="NVIDIA/waveglow",
            build=build,
            layers=where(build, glow.Invertible1x1Conv),
            x=random(4, 32),
            forward=forward,
            inverse=inverse,
            layer_x=random(4, 8, 5),
            layer_calls=SOUND,
            left={"WN.0": "not square", "upsample": "not square"},
            units="batch",
            copies=False,  # weight_norm keeps its last weight
            nan_below_zero=True,
        )
    ]


@code_base("ANLGBOY/SoftFlow", "pointclouds")
def softflow(load: Load) -> list[Case]:
    glow, af = load("models.glow"), load("models.AF")
    first = functools.partial(glow.Glow, 4, 3, 1, 4, multi_freq=2, multi_out=2)
    second = functools.partial(af.AF, 2, 4, (8, 8))
    std, code = constant(1, 5, 1), constant(1, 4)

    def run(model: Any, x: Tensor, reverse: bool) -> Any:
        return model(x, std.expand(len(x), -1, -1), code.expand(len(x), -1), reverse=reverse)

    def forward(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        z, minus = run(model, x.clone(), False)
        return z, -minus.sum(1)

    return [
        Case(
            name="Glow",
            like="ANLGBOY/SoftFlow",
            build=first,
            layers=where(first, glow.Invertible1x1Conv),
            x=random(4, 24),
            forward=lambda model, x: (lambda z, minus: (z, -minus[:, 0]))(*model(x)),
            inverse=lambda model, z: model(z, reverse=True),
            layer_x=random(4, 4, 6),
            layer_calls=SOUND,
            left={"actnorm.0": NORM, "WN.0": COUPLING},
            copies=False,
            nan_below_zero=True,
        ),
        Case(
            name="AF, channels last",
            like="ANLGBOY/SoftFlow",
            build=second,
            layers=where(second, af.Invertible1x1Conv),
            x=random(4, 5, 3),
            forward=forward,
            inverse=lambda model, z: run(model, z.clone(), True),  # changes its input
            layer_x=random(4, 5, 3),
            layer_calls=SOUND,
            left={"actnorm.0": NORM, "WN.0": COUPLING},
            nan_below_zero=True,
        ),
    ]


@code_base("NVIDIA/radtts", absent=("numba", "librosa"))
def radtts(load: Load) -> list[Case]:
    radtts, common = load("radtts"), load("common")
    context = constant(1, 4, 5)

    def forward(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det_w, log_s = model(x, context.expand(len(x), -1, -1))
        return z, log_det_w * x.shape[2] + log_s.sum((1, 2))  # per position, as its loss counts it

    def case(kind: str, cached: bool) -> Case:
        build = functools.partial(
            radtts.FlowStep, 6, 4, 1, matrix_decomposition=kind, cache_inverse=cached
        )
        return Case(
            name=f"FlowStep, {kind or 'free'}{', cache_inverse' if cached else ''}",
            like="NVIDIA/radtts",
            build=build,
            layers=where(build, common.Invertible1x1Conv, common.Invertible1x1ConvLUS),
            x=SEQUENCES,
            forward=forward,
            inverse=lambda model, z: model(z, context.expand(len(z), -1, -1), inverse=True),
            layer_x=SEQUENCES,
            layer_calls={
                "forward": lambda layer, x: layer(x),
                "inverse": lambda layer, x: layer(x, inverse=True),
                "inverse, by position": lambda layer, x: layer(x, True),
            },
            left={"affine_tfn": COUPLING},
            nan_below_zero=not kind,
        )

    return [case("", False), case("LUS", False), case("LUS", True)]


# (x, x_mask, reverse, **kwargs): a kernel that groups of channels share

SPEECH = {
    "forward": lambda layer, x: layer(x),
    "forward, mask": lambda layer, x: layer(x, _mask(x), g=None, reverse=False),
    "reverse": lambda layer, x: layer(x, reverse=True),
    "reverse, mask": lambda layer, x: layer(x, _mask(x), g=None, reverse=True),
}


def _mask(x: Tensor) -> Tensor:
    """Lengths that differ: every sample is one position shorter than the one before."""
    lengths = x.shape[2] - torch.arange(len(x)) % x.shape[2]
    return (torch.arange(x.shape[2]) < lengths[:, None]).unsqueeze(1).to(x.dtype)


def speech(name: str, like: str, build: Any, kind: Any, **changes: Any) -> Case:
    return Case(
        name=name,
        like=like,
        build=build,
        layers=where(build, kind),
        x=random(4, 4, 6),
        forward=lambda model, x: model(x, torch.ones(len(x), 1, 6)),
        inverse=lambda model, z: model(z, torch.ones(len(z), 1, 6), reverse=True)[0],
        layer_x=random(4, 8, 5),
        layer_calls=SPEECH,
        left={"flows.0": NORM, "flows.2": COUPLING},
        nan_below_zero=True,
        **changes,
    )


@code_base("jaywalnut310/glow-tts", absent=("librosa", "monotonic_align.monotonic_align"))
def glow_tts(load: Load) -> list[Case]:
    models, modules = load("models"), load("modules")
    build = functools.partial(models.FlowSpecDecoder, 4, 8, 3, 1, 2, 1)
    return [
        speech(
            "FlowSpecDecoder", "jaywalnut310/glow-tts", build, modules.InvConvNear, copies=False
        )
    ]


@code_base("coqui-ai/TTS", bare=("TTS", "TTS.tts", "TTS.tts.layers"))
def coqui(load: Load) -> list[Case]:
    decoder, glow = load("TTS.tts.layers.glow_tts.decoder"), load("TTS.tts.layers.glow_tts.glow")
    build = functools.partial(decoder.Decoder, 4, 8, 3, 1, 2, 1)
    return [speech("Decoder", "coqui-ai/TTS", build, glow.InvConvNear, pickles=False)]


# forward(x), inverse(z)

INVERSE = {
    "forward": lambda layer, x: layer(x),
    "inverse": lambda layer, x: layer.inverse(x),
}


@code_base("kamenbliznashki/normalizing_flows", absent=("torchvision", "tensorboardX"))
def kamenbliznashki(load: Load) -> list[Case]:
    glow = load("glow")
    latents = Latents()

    def forward(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        zs, log_det = model(x)
        # its preprocessing counts 256 levels, and only shifts
        return latents.pack(zs), log_det + math.log(256) * x[0].numel()

    def case(lu: bool) -> Case:
        def build() -> nn.Module:
            with old_torch():
                return glow.Glow(8, 2, 1, (3, 8, 8), lu_factorize=lu)

        return Case(
            name=_named("Glow", lu),
            like="kamenbliznashki/normalizing_flows",
            build=build,
            layers=where(build, glow.Invertible1x1Conv),
            x=random(4, 3, 8, 8),
            forward=forward,
            inverse=lambda model, z: model.inverse(latents.unpack(z))[0],
            layer_x=STEP,
            layer_calls=INVERSE,
            left={"flowlevels.0.flowsteps.0.0": NORM, "flowlevels.0.flowsteps.0.2": COUPLING},
            drifts=(".p",) if lu else (),
            copies=not lu,
        )

    return [case(False), case(True)]


@code_base("didriknielsen/survae_flows", absent=("torchvision",))
def survae(load: Load) -> list[Case]:
    survae, layers = load("survae.transforms"), load("survae.nn.layers")
    like = "didriknielsen/survae_flows"

    def build() -> nn.Module:
        def net() -> nn.Module:
            return nn.Sequential(nn.Conv2d(6, 12, 3, padding=1), layers.ElementwiseParams2d(2))

        steps = [survae.Squeeze2d()]
        for _ in range(2):
            steps += [
                survae.ActNormBijection2d(12),
                survae.Conv1x1(12),
                survae.AffineCouplingBijection(net()),
            ]
        return survae.SequentialTransform(steps)

    whole = Case(
        name="SequentialTransform of Conv1x1",
        like=like,
        build=build,
        layers=where(build, survae.Conv1x1),
        x=IMAGES,
        forward=lambda model, x: model(x),
        inverse=lambda model, z: model.inverse(z),
        layer_x=STEP,
        layer_calls=INVERSE,
        left={"transforms.1": NORM, "transforms.3": COUPLING},
        pickles=False,
    )
    others = [
        alone("Conv1x1, not orthogonal, 1D", like,
              functools.partial(survae.Conv1x1, 6, orthogonal_init=False), SEQUENCES, INVERSE),
        alone("Conv1x1, 3D", like,
              functools.partial(survae.Conv1x1, 3), random(4, 3, 2, 2, 2), INVERSE),
        alone("Linear, bias", like,
              functools.partial(survae.Linear, 4, bias=True), VECTORS, INVERSE),
        alone("LinearLU, bias", like,
              functools.partial(survae.LinearLU, 4, identity_init=False, bias=True), VECTORS,
              INVERSE),
    ]  # fmt: skip
    return [whole, *others]


CONTEXT = INVERSE | {
    "forward, context": lambda layer, x: layer(x, context=None),
    "inverse, context": lambda layer, x: layer.inverse(x, None),
}


def nflows_cases(load: Load, like: str, *, naive: bool, pickles: bool) -> list[Case]:
    transforms = load("nflows.transforms")
    conv, nets = load("nflows.transforms.conv"), load("nflows.nn.nets")
    svd, qr = load("nflows.transforms.svd"), load("nflows.transforms.qr")
    linear, lu = load("nflows.transforms.linear"), load("nflows.transforms.lu")
    orthogonal = load("nflows.transforms.orthogonal")

    def build(cached: bool = False) -> nn.Module:
        def net(inputs: int, outputs: int) -> nn.Module:
            return nets.ConvResidualNet(inputs, outputs, 8, num_blocks=1)

        steps = [transforms.SqueezeTransform()]
        for _ in range(2):
            steps += [
                transforms.ActNorm(12),
                conv.OneByOneConvolution(12, using_cache=cached, identity_init=False),
                transforms.AffineCouplingTransform([0, 1] * 6, net),
            ]
        return transforms.CompositeTransform(steps)

    def whole(cached: bool) -> Case:
        return Case(
            name=f"OneByOneConvolution{', cached' if cached else ''}",
            like=like,
            build=functools.partial(build, cached),
            layers=where(build, conv.OneByOneConvolution),
            x=IMAGES,
            forward=lambda model, x: model(x),
            inverse=lambda model, z: model.inverse(z)[0],
            layer_x=STEP,
            layer_calls=CONTEXT,
            left={"_transforms.1": NORM, "_transforms.3": COUPLING},
            pickles=pickles,
            copies=not cached,
        )

    rows: list[tuple[str, Any, Any]] = [
        ("LULinear", lu.LULinear, {"identity_init": False}),
        ("LULinear, cached", lu.LULinear, {"identity_init": False, "using_cache": True}),
        ("QRLinear", qr.QRLinear, {"num_householder": 4}),
        ("SVDLinear", svd.SVDLinear, {"num_householder": 4, "identity_init": False}),
        ("SVDLinear, cached", svd.SVDLinear, {"num_householder": 4, "using_cache": True}),
        ("NaiveLinear", linear.NaiveLinear, {}),
        ("HouseholderSequence", orthogonal.HouseholderSequence, {"num_transforms": 3}),
    ]
    return [
        whole(False),
        whole(True),
        *(alone(name, like, functools.partial(kind, 4, **given), VECTORS, CONTEXT,
                copies="using_cache" not in given)
          for name, kind, given in rows if naive or kind is not linear.NaiveLinear),
    ]  # fmt: skip


@code_base("bayesiains/nflows", absent=("UMNN",))
def nflows(load: Load) -> list[Case]:
    return nflows_cases(load, "bayesiains/nflows", naive=True, pickles=False)


@code_base("registry: nflows", absent=("UMNN",))
def nflows_0_14(load: Load) -> list[Case]:
    # its NaiveLinear inverts with torch.solve, which is gone
    return nflows_cases(load, "nflows 0.14 of the registry", naive=False, pickles=True)


@code_base("unknownue/puflow")
def puflow(load: Load) -> list[Case]:
    permutate = load("modules.flows.permutate")

    def case(dim: int, x: Callable[[], Tensor]) -> Case:
        return Case(
            name=f"Permutation('inv1x1', dim={dim})",
            like="unknownue/puflow",
            build=functools.partial(permutate.Permutation, "inv1x1", 6, dim),
            layers=("permutater",),
            x=x,
            forward=lambda model, x: model(x, None),
            inverse=lambda model, z: model.inverse(z, None)[0],
            layer_x=x,
            layer_calls=INVERSE,
        )

    last = random(4, 5, 6)
    return [case(1, SEQUENCES), case(2, last), case(-1, last)]


def normflows_cases(load: Load, like: str) -> list[Case]:
    nf = load("normflows")
    mixing = load("normflows.flows.mixing")

    def flow(flows: Callable[[], list[nn.Module]], shape: Any) -> Callable[[], nn.Module]:
        return lambda: nf.NormalizingFlow(nf.distributions.DiagGaussian(shape), flows())

    def case(name: str, build: Any, kinds: Any, x: Any, calls: Any, **changes: Any) -> Case:
        return Case(
            name=name,
            like=like,
            build=build,
            layers=where(build, *kinds),
            x=x,
            forward=lambda model, x: model.inverse_and_log_det(x),
            inverse=lambda model, z: model.forward_and_log_det(z)[0],
            layer_x=x,
            layer_calls=calls,
            **changes,
        )

    def glow(lu: bool) -> Any:
        return lambda: [nf.flows.GlowBlock(12, 8, use_lu=lu) for _ in range(2)]

    def affine(lu: bool) -> Any:
        return lambda: [nf.flows.ActNorm(4), nf.flows.InvertibleAffine(4, use_lu=lu)]

    def permuted() -> list[nn.Module]:
        return [nf.flows.LULinearPermute(4, identity_init=False), nf.flows.ActNorm(4)]

    kinds = (nf.flows.Invertible1x1Conv, nf.flows.InvertibleAffine)
    blocks = [
        case(_named("GlowBlock", lu), flow(glow(lu), (12, 2, 2)), kinds, STEP, INVERSE,
             left={"flows.0.flows.0": COUPLING})
        for lu in (False, True)
    ]  # fmt: skip
    affines = [
        case(_named("InvertibleAffine", lu), flow(affine(lu), 4), kinds, VECTORS, CONTEXT)
        for lu in (False, True)
    ]
    linear = case("LULinearPermute", flow(permuted, 4), (mixing._LULinear,), VECTORS, CONTEXT,
                  left={"flows.0.permutation": "permutation"})  # fmt: skip
    return [*blocks, *affines, linear]


@code_base("VincentStimper/normalizing-flows")
def normflows(load: Load) -> list[Case]:
    return normflows_cases(load, "VincentStimper/normalizing-flows")


@code_base("registry: normflows")
def normflows_1_7(load: Load) -> list[Case]:
    return normflows_cases(load, "normflows of the registry")


@code_base("felixcheng97/IICNet", "codes", bare=("models", "models.modules"))
def iicnet(load: Load) -> list[Case]:
    module = load("models.modules.InvDownscaling")
    given = {"use_down": True, "in_nc": 3, "order": "ref", "scale": 2, "use_conv1x1": True}
    return [
        Case(
            name=f"InvDownscaling, {kind}",
            like="felixcheng97/IICNet",
            build=functools.partial(module.InvDownscaling, {**given, "type": kind}),
            layers=("operations.1",),
            x=IMAGES,
            forward=lambda model, x: (model(x), None),
            inverse=lambda model, z: model(z, rev=True),
            layer_x=STEP,
            layer_calls={
                "forward": lambda layer, x: layer(x),
                "reverse": lambda layer, x: layer(x, rev=True),
                "reverse, by position": lambda layer, x: layer.forward(x, True),
            },
            left={"operations.0": "not square"},
        )
        for kind in ("haar", "squeeze")
    ]


# forward, backward

BACKWARD = {
    "forward": lambda layer, x: layer(x),
    "forward, as a method": lambda layer, x: layer.forward(x),
    "backward": lambda layer, x: layer.backward(x),
}


@code_base("karpathy/pytorch-normalizing-flows")
def karpathy(load: Load) -> list[Case]:
    flows = load("nflib.flows")

    def build() -> nn.Module:
        steps: list[nn.Module] = []
        for k in range(2):
            steps += [
                flows.ActNorm(4),
                flows.Invertible1x1Conv(4),
                flows.MAF(4, parity=k % 2),  # the couplings undo themselves for 2 channels only
            ]
        return flows.NormalizingFlow(steps)

    return [
        Case(
            name="NormalizingFlow",
            like="karpathy/pytorch-normalizing-flows",
            build=build,
            layers=where(build, flows.Invertible1x1Conv),
            x=VECTORS,
            forward=lambda model, x: (lambda zs, log_det: (zs[-1], log_det))(*model(x)),
            inverse=lambda model, z: model.backward(z)[0][-1],
            layer_x=VECTORS,
            layer_calls=BACKWARD,
            left={"flows.0": NORM, "flows.2": COUPLING},
        )
    ]


@code_base("tatsy/normalizing-flows-pytorch", absent=("torchdiffeq",))
def tatsy(load: Load) -> list[Case]:
    glow, modules = load("flows.glow"), load("flows.modules")
    settings = options(layers=2)

    def case(name: str, dims: tuple[int, ...], kind: str | None, x: Any, layer_x: Any) -> Case:
        build = functools.partial(glow.Glow, dims, kind, settings)
        return Case(
            name=name,
            like="tatsy/normalizing-flows-pytorch",
            build=build,
            layers=where(build, modules.InvertibleConv1x1),
            x=x,
            forward=lambda model, x: model(x),
            inverse=lambda model, z: model.backward(z)[0],
            layer_x=layer_x,
            layer_calls={
                "forward": lambda layer, x: layer(x, torch.zeros(len(x))),
                "forward, by keyword": lambda layer, x: layer(x, log_df_dz=torch.ones(len(x))),
                "backward": lambda layer, x: layer.backward(x, torch.zeros(len(x))),
            },
            left={"net.layers.0": NORM, "net.layers.2": COUPLING},
            pickles=False,
            copies=False,
            notes="backward runs without gradients",
        )

    def bright() -> Tensor:
        return torch.rand(4, 3, 4, 4) * 0.8 + 0.1

    return [
        case("Glow, vectors", (4,), None, VECTORS, VECTORS),
        case("Glow, images", (3, 4, 4), "image", bright, IMAGES),
    ]


@code_base("ikostrikov/pytorch-flows")
def ikostrikov(load: Load) -> list[Case]:
    flows = load("flows")

    def case(kind: Any, conditioned: bool = False) -> Case:
        condition = constant(4, 2) if conditioned else None

        def build() -> nn.Module:
            mask, inputs = torch.arange(4) % 2, 2 if conditioned else None
            steps = []
            for k in range(2):
                coupling = flows.CouplingLayer(4, 8, 1 - mask if k else mask, inputs)
                steps += [flows.ActNorm(4), kind(4), coupling]
            return flows.FlowSequential(*steps)

        def run(model: Any, x: Tensor, mode: str) -> tuple[Tensor, Tensor]:
            given = None if condition is None else condition[:1].expand(len(x), -1)
            z, log_det = model(x, given, mode)
            return z, log_det[:, 0]

        return Case(
            name=f"FlowSequential of {kind.__name__}{', with a condition' if conditioned else ''}",
            like="ikostrikov/pytorch-flows",
            build=build,
            layers=where(build, kind),
            x=VECTORS,
            forward=lambda model, x: run(model, x, "direct"),
            inverse=lambda model, z: run(model, z, "inverse")[0],
            layer_x=VECTORS,
            layer_calls={
                "forward": lambda layer, x: layer(x),
                "forward, mode": lambda layer, x: layer(x, None, "direct"),
                "forward, condition": lambda layer, x: layer(x, torch.ones(len(x), 2)),
                "inverse": lambda layer, x: layer(x, None, "inverse"),
                "inverse, by keyword": lambda layer, x: layer(x, mode="inverse"),
            },
            left={"0": NORM, "2": COUPLING},
        )

    return [case(flows.InvertibleMM), case(flows.LUInvertibleMM), case(flows.LUInvertibleMM, True)]


# torch.distributions' transforms

TRANSFORM = {
    "forward": lambda layer, x: layer(x),
    "_call": lambda layer, x: layer._call(x),
    "inverse": lambda layer, x: layer.inv(x),
    "_inverse": lambda layer, x: layer._inverse(x),
    "log_abs_det_jacobian": lambda layer, x: layer.log_abs_det_jacobian(x, layer(x)),
}


def pyro_cases(load: Load, like: str) -> list[Case]:
    module = load("pyro.distributions.transforms.generalized_channel_permute")
    spline = load("pyro.distributions.transforms")

    def forward(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det: Any = 0
        for transform in model:
            z = transform(x)
            term = transform.log_abs_det_jacobian(x, z)
            log_det = log_det + (term if term.dim() == 1 else term.flatten(1).sum(1))
            x = z
        return x, log_det

    def inverse(model: Any, z: Tensor) -> Tensor:
        for transform in reversed(model):
            z = transform.inv(z.clone())  # a transform remembers its last pair by identity
        return z

    def build() -> nn.Module:
        kind = module.GeneralizedChannelPermute
        return nn.ModuleList([kind(12), spline.Spline(2, count_bins=2), kind(12)])

    def conditional() -> nn.Module:
        transform = module.conditional_generalized_channel_permute(2, 12)
        transform.nn.layers[-1].bias.data += torch.eye(12).flatten()  # so that it has an inverse
        return nn.ModuleList([transform])

    def conditioned(model: Any) -> Any:
        return model[0].condition(constant(2))

    def per_condition(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        transform = conditioned(model)
        z = transform(x)
        return z, transform.log_abs_det_jacobian(x, z)

    return [
        Case(
            name="ConditionalGeneralizedChannelPermute",
            like=like,
            build=conditional,
            layers=(),
            x=STEP,
            forward=per_condition,
            inverse=lambda model, z: conditioned(model).inv(z),
            layer_x=STEP,
            layer_calls={},
            left={"0": "a kernel per"},
        ),
        Case(
            name="GeneralizedChannelPermute",
            like=like,
            build=build,
            layers=where(build, module.GeneralizedChannelPermute),
            x=STEP,
            forward=forward,
            inverse=inverse,
            layer_x=STEP,
            layer_calls=TRANSFORM,
            copies=False,  # a transform keeps its last pair
        ),
    ]


@code_base("pyro-ppl/pyro", absent=("opt_einsum", "pyroapi"))
def pyro(load: Load) -> list[Case]:
    return pyro_cases(load, "pyro-ppl/pyro")


@code_base("registry: pyro", absent=("opt_einsum", "pyroapi"))
def pyro_1_9(load: Load) -> list[Case]:
    return pyro_cases(load, "pyro-ppl of the registry")


def zuko_cases(load: Load, like: str) -> list[Case]:
    zuko, lazy, transforms = load("zuko"), load("zuko.lazy"), load("zuko.transforms")

    def build(kind: Any) -> nn.Module:
        base = lazy.UnconditionalDistribution(
            zuko.distributions.DiagNormal, torch.zeros(4), torch.ones(4), buffer=True
        )
        matrix = torch.eye(4) + 0.3 * torch.randn(4, 4)
        steps = [
            lazy.UnconditionalTransform(kind, matrix),
            zuko.flows.MaskedAutoregressiveTransform(4, hidden_features=(8,)),
        ]
        return lazy.Flow(steps, base)

    def forward(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return model().transform.call_and_ladj(x)

    return [
        Case(
            name=f"UnconditionalTransform({kind.__name__})",
            like=like,
            build=functools.partial(build, kind),
            layers=("transform.transforms.0",),
            x=VECTORS,
            forward=forward,
            inverse=lambda model, z: model().transform.inv(z),
            layer_x=VECTORS,
            layer_calls={
                "forward": lambda layer, x: layer()(x),
                "inverse": lambda layer, x: layer().inv(x),
                "call_and_ladj": lambda layer, x: layer().call_and_ladj(x),
            },
            notes="forward() of the module returns the transform; the numbers pass through that",
        )
        for kind in (transforms.LULinearTransform, transforms.RotationTransform)
    ]


@code_base("probabilists/zuko")
def zuko(load: Load) -> list[Case]:
    return zuko_cases(load, "probabilists/zuko")


@code_base("registry: zuko")
def zuko_1_6(load: Load) -> list[Case]:
    return zuko_cases(load, "zuko of the registry")


# (x,), rev, jac

FREIA = {
    "forward": lambda layer, x: layer((x,)),
    "forward, jac": lambda layer, x: layer([x], rev=False, jac=True),
    "reverse": lambda layer, x: layer((x,), rev=True),
    "reverse, no jac": lambda layer, x: layer((x,), rev=True, jac=False),
}


def dense(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, outputs))


def convolutions(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def freia_cases(load: Load, like: str, *, picklable: bool) -> list[Case]:
    ff, fm = load("FrEIA.framework"), load("FrEIA.modules")

    def sequence(dims: Any, x: Any, name: str, kind: Any, **given: Any) -> Case:
        hard = kind is fm.AllInOneBlock and not given.get("permute_soft")
        permutations = {"module_list.0": "permutation"} if hard else {}

        def build() -> nn.Module:
            inn = ff.SequenceINN(*dims)
            for _ in range(2):
                values = {
                    key: value() if key in ("M", "b") else value for key, value in given.items()
                }
                inn.append(kind, **values)
            if picklable:  # 0.2 cannot save its own ActNorm
                inn.append(fm.ActNorm)
            return inn

        return Case(
            name=name,
            like=like,
            build=build,
            layers=() if hard else ("module_list.0", "module_list.1"),
            x=x,
            forward=lambda model, x: model(x),
            inverse=lambda model, z: model(z, rev=True)[0],
            layer_x=x,
            layer_calls=FREIA,
            left={**permutations, **({"module_list.2": NORM} if picklable else {})},
            pickles=kind is not fm.AllInOneBlock or (picklable and "permute_soft" in given),
            copies="learned_householder_permutation" not in given,
            # the host undoes it with its transpose, and counts no log-det of it
            drifts=(".weights",) if kind is fm.OrthogonalTransform else (),
        )

    def matrix(n: int) -> Any:
        return lambda: torch.eye(n) + 0.3 * torch.randn(n, n)

    soft = {"permute_soft": True}  # without it main's Householder has no matrix to start from
    learned = {"learned_householder_permutation": 2, **soft}
    images, vectors = (12, 2, 2), (4,)
    block = fm.AllInOneBlock
    return [
        sequence(images, STEP, "Fixed1x1Conv", fm.Fixed1x1Conv, M=matrix(12)),
        sequence(vectors, VECTORS, "FixedLinearTransform", fm.FixedLinearTransform, M=matrix(4),
                 b=lambda: torch.randn(4)),
        sequence(vectors, VECTORS, "OrthogonalTransform", fm.OrthogonalTransform),
        sequence(vectors, VECTORS, "HouseholderPerm", fm.HouseholderPerm, n_reflections=2),
        sequence(images, STEP, "AllInOneBlock, hard", block, subnet_constructor=convolutions),
        sequence(images, STEP, "AllInOneBlock, soft", block, subnet_constructor=convolutions,
                 **soft),
        sequence(images, STEP, "AllInOneBlock, Householder", block,
                 subnet_constructor=convolutions, **learned),
        sequence(images, STEP, "AllInOneBlock, soft, reverse_permutation", block,
                 subnet_constructor=convolutions, reverse_permutation=True, **soft),
        sequence(vectors, VECTORS, "AllInOneBlock, soft, vectors", block, subnet_constructor=dense,
                 **soft),
    ]  # fmt: skip


@code_base("vislearn/FrEIA")
def freia(load: Load) -> list[Case]:
    return freia_cases(load, "vislearn/FrEIA", picklable=True)


@code_base("registry: FrEIA")
def freia_0_2(load: Load) -> list[Case]:
    return freia_cases(load, "FrEIA 0.2 of the registry", picklable=False)


@code_base(
    "open-edge-platform/anomalib",
    "src",
    bare=(
        "anomalib",
        "anomalib.models",
        "anomalib.models.components",
        "anomalib.models.components.flow",
    ),
)
def anomalib(load: Load) -> list[Case]:
    block = load("anomalib.models.components.flow.all_in_one_block").AllInOneBlock
    ff = load("FrEIA.framework")

    def case(name: str, **given: Any) -> Case:
        def build() -> nn.Module:
            inn = ff.SequenceINN(12, 2, 2)
            for _ in range(2):
                inn.append(block, subnet_constructor=convolutions, **given)
            return inn

        return Case(
            name=f"AllInOneBlock, {name}",
            like="open-edge-platform/anomalib",
            build=build,
            layers=("module_list.0", "module_list.1") if given else (),
            x=STEP,
            forward=lambda model, x: model(x),
            inverse=lambda model, z: model(z, rev=True)[0],
            layer_x=STEP,
            layer_calls=FREIA,
            left={} if given else {"module_list.0": "permutation"},
            copies="learned_householder_permutation" not in given,
        )

    return [
        case("hard"),
        case("soft", permute_soft=True),
        case("Householder", learned_householder_permutation=2),
    ]


# _forward_and_log_det_jacobian(x), _inverse(z)


@code_base("SamsungLabs/Noise2NoiseFlow", bare=("model", "model.flow_layers"))
def noise2noise(load: Load) -> list[Case]:
    module = load("model.flow_layers.conv2d1x1")
    like = "SamsungLabs/Noise2NoiseFlow"

    def back(layer: Any, z: Tensor) -> Any:
        with no_cuda():
            return layer._inverse(z)

    def chosen(layer: Any, x: Tensor, reverse: bool = False) -> Any:
        condition = torch.arange(25) == 3
        with no_cuda():
            return layer(x, reverse=reverse, iso_cam=condition)

    calls = {
        "forward": lambda layer, x: layer._forward_and_log_det_jacobian(x, iso=None),
        "forward(x)": lambda layer, x: layer(x),
        "inverse": back,
    }
    conditional = {
        "forward": chosen,
        "inverse": functools.partial(chosen, reverse=True),
    }
    cases = []
    for lu in (False, True):
        cases.append(
            alone(_named("Conv2d1x1", lu), like,
                  functools.partial(module.Conv2d1x1, 4, LU_decomposed=lu),
                  random(4, 4, 3, 3), calls)
        )  # fmt: skip
        cases.append(
            alone(_named("ConditionalConv2d1x1", lu), like,
                  functools.partial(module.ConditionalConv2d1x1, 4, LU_decomposed=lu),
                  random(4, 4, 3, 3), conditional, layers=(), left={"0": "a kernel per"})
        )  # fmt: skip
    return cases
