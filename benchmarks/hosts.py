"""Why swap at all: flows of three kinds before and after ``swap_1x1``, in one Markdown table.

    python benchmarks/hosts.py
    python benchmarks/hosts.py --sources FOLDER
    python benchmarks/hosts.py --sources FOLDER --all
    taskset -c 0 python benchmarks/hosts.py --hosts Glow --repeats 5 --steps 0

The hosts are a Glow of normflows, and of the stand-ins in ``tests/standins`` a vocoder called as
WaveGlow and a decoder called as Glow-TTS; with ``--sources``, a folder that has the code bases
themselves as OWNER+NAME, those two as they are, or with ``--all`` the times of every case of them
that ``tests/real_flows_cases.py`` knows: small models, in which the calls weigh most. Everything
runs in one process on one thread. Both models of a pair hold the same numbers and run in turn (A
B, B A, ...); a ratio is the median over the repeats of swapped to original, below 1 is faster.
Times are CPU time, which stands still while another process has the core. Errors are relative to
the same model in float64, after a short training on smooth random signals, of which neighbouring
channels know much of each other.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import normflows as nf
import torch
from layer import markdown, surroundings
from torch import Tensor, nn
from torch.nn import functional as F

from wic_layers import det_loss, swap_1x1
from wic_layers.deploy import calling, fuse

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from standins.flows import masked, parts, speech  # noqa: E402

Call = Callable[[], object]

LEVELS, BLOCKS, SIDE = 3, 4, 32
DET_LOSS = 0.01


class Flow(nn.Module):
    """A host's model with one method for each direction.

    Args:
        model: The host's model.
        there: Returns the latent and its log-determinant per sample, or of the batch.
        back: Returns the data.
    """

    def __init__(
        self,
        model: nn.Module,
        there: Callable[[Any, Tensor], tuple[Any, Tensor]],
        back: Callable[[Any, Any], Tensor],
    ) -> None:
        super().__init__()
        self.model, self.there, self.back = model, there, back

    def forward(self, x: Tensor) -> tuple[Any, Tensor]:
        return self.there(self.model, x)

    def inverse(self, z: Any) -> Tensor:
        return self.back(self.model, z)

    def loss(self, x: Tensor) -> Tensor:
        """Negative log-likelihood per dimension, without its constant."""
        z, log_det = self(x)
        square = sum(part.square().sum() for part in (z if isinstance(z, list) else [z]))
        log_det = log_det.sum()
        return (square / 2 - log_det) / x.numel()


@dataclass(frozen=True)
class Host:
    """A kind of flow.

    Attributes:
        name: What it is.
        build: A new one.
        x: A batch of data.
    """

    name: str
    build: Callable[[], Flow]
    x: Callable[[], Tensor]


def smooth(*shape: int) -> Tensor:
    """Noise without high frequencies along all but the first two dimensions, and 1 % of them."""
    x = torch.randn(shape)
    pool = F.avg_pool1d if x.ndim == 3 else F.avg_pool2d
    for _ in range(2):
        x = pool(x, 7, 1, 3, count_include_pad=False)
    return x / x.std() + 0.01 * torch.randn(shape)


def sound(batch: int, group: int, frames: int) -> Tensor:
    """Smooth sound in frames of so many samples: (batch, group, frames)."""
    return smooth(batch, 1, group * frames).view(batch, frames, group).mT.contiguous()


def glow() -> Flow:
    """A Glow of normflows for (3, SIDE, SIDE), LU kernels."""
    q0, flows, merges = [], [], []
    for level in range(LEVELS):
        channels = 3 * 2 ** (LEVELS + 1 - level)
        flows.append([nf.flows.GlowBlock(channels, 64) for _ in range(BLOCKS)])
        flows[-1].append(nf.flows.Squeeze())
        side = SIDE // 2 ** (LEVELS - level)
        if level:
            merges.append(nf.flows.Merge())
        q0.append(
            nf.distributions.DiagGaussian((channels // 2 if level else channels, side, side))
        )
    model = nf.MultiscaleFlow(q0, flows, merges, class_cond=False)
    return Flow(
        model,
        lambda model, x: model.inverse_and_log_det(x),
        lambda model, z: model.forward_and_log_det(z)[0],
    )


def vocoder() -> Flow:
    """As WaveGlow: 8 flows on 8 samples a frame, kernels (n, n, 1)."""
    model = speech.WaveGlow(n_group=8, n_flows=8, n_early_every=4)
    for k, layer in enumerate(model.convinv):
        channels = layer.conv.weight.shape[0]
        model.WN[k] = parts.net(channels // 2, channels, 64, rank=1)
    return Flow(model, speech.of_waveglow, lambda model, z: model.infer(z))


def decoder() -> Flow:
    """As Glow-TTS: 12 blocks on 80 channels, of which 20 groups share a 4 x 4 kernel."""
    model = masked.FlowSpecDecoder(masked.InvConvNear, channels=80)
    for _ in range(10):
        block = masked.ActNorm(80, ddi=True), masked.InvConvNear(80, 4), masked.CouplingBlock(80)
        model.flows.extend(block)
    return Flow(
        model,
        lambda model, x: model(x, torch.ones_like(x[:, :1])),
        lambda model, z: model(z, torch.ones_like(z[:, :1]), reverse=True)[0],
    )


def hosts(sources: Path | None) -> list[Host]:
    images, sounds = partial(smooth, 8, 3, SIDE, SIDE), partial(sound, 4, 8, 250)
    spectra = partial(smooth, 4, 80, 100)
    first = Host("Glow of normflows", glow, images)
    if sources is None:
        return [
            first,
            Host("vocoder as WaveGlow", vocoder, sounds),
            Host("decoder as Glow-TTS", decoder, spectra),
        ]
    return [first, *_real(sources, spectra)]


def _real(sources: Path, spectra: Callable[[], Tensor]) -> Iterator[Host]:
    from real_flows_sources import Source

    tts = Source("jaywalnut310/glow-tts", absent=("librosa", "monotonic_align.monotonic_align"))
    wave = Source("NVIDIA/waveglow")
    for source in (wave, tts):
        if not source.find(sources):
            sys.exit(f"Expected {source.name} in {sources}.")

    def waveglow() -> Flow:
        wave.enter()
        net = {"n_layers": 2, "n_channels": 64, "kernel_size": 3}
        model = wave.load("glow").WaveGlow(4, 12, 8, 4, 2, net)
        return Flow(model, partial(_waveglow, 250), partial(_infer, 250))

    def glow_tts() -> Flow:
        tts.enter()
        model = tts.load("models").FlowSpecDecoder(80, 192, 5, 1, 12, 2)
        return Flow(
            model,
            lambda model, x: model(x, torch.ones_like(x[:, :1])),
            lambda model, z: model(z, torch.ones_like(z[:, :1]), reverse=True)[0],
        )

    yield Host(f"NVIDIA/waveglow {wave.commit}", waveglow, lambda: smooth(4, 1, 2000)[:, 0])
    yield Host(f"jaywalnut310/glow-tts {tts.commit}", glow_tts, spectra)


def _spectrum(batch: int, frames: int, like: Tensor) -> Tensor:
    values = torch.linspace(-1, 1, 4 * (frames * 8 // 256 + 1)).view(1, 4, -1)
    return values.expand(batch, -1, -1).to(like)


def _waveglow(frames: int, model: Any, audio: Tensor) -> tuple[Tensor, Tensor]:
    z, logs, dets = model((_spectrum(len(audio), frames, audio), audio))
    return z, sum(part.sum() for part in logs) + sum(dets)


def _infer(frames: int, model: Any, z: Tensor) -> Tensor:
    """What its ``infer`` does, which draws the latent itself and asks for CUDA."""
    spect = model.upsample(_spectrum(len(z), frames, z))[:, :, : 8 * frames]
    spect = spect.unfold(2, 8, 8).permute(0, 2, 1, 3)
    spect = spect.reshape(*spect.shape[:2], -1).permute(0, 2, 1)
    early, audio = [z[:, :2], z[:, 2:4]], z[:, 4:]
    for k in reversed(range(model.n_flows)):
        half = audio.shape[1] // 2
        out = model.WN[k]((audio[:, :half], spect))
        second = (audio[:, half:] - out[:, :half]) / torch.exp(out[:, half:])
        audio = model.convinv[k](torch.cat([audio[:, :half], second], 1), reverse=True)
        if k and k % model.n_early_every == 0:
            audio = torch.cat([early.pop(), audio], 1)
    return audio.permute(0, 2, 1).reshape(len(z), -1)


def new(host: Host, weights: dict[str, Tensor] | None = None) -> Flow:
    """A flow that has seen a batch; with the same numbers each time."""
    torch.manual_seed(0)
    flow = host.build()
    with torch.no_grad():
        flow(host.x())  # ActNorm takes its start from data
    if weights is not None:
        flow.load_state_dict(weights)
    return flow


def train(host: Host, flow: Flow, steps: int, weight: float = 0.0) -> float:
    """The loss at the end of a short training with so much of det_loss."""
    optimizer = torch.optim.Adam(flow.parameters(), 2e-3)
    flow.train()
    losses = []
    for step in range(steps):
        torch.manual_seed(100 + step)
        optimizer.zero_grad(set_to_none=True)
        loss = flow.loss(host.x())
        (loss + weight * det_loss(flow) if weight else loss).backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimizer.step()
        losses.append(loss.item())
    flow.zero_grad(set_to_none=True)
    return statistics.mean(losses[-10:])


# Times


def timed(call: Call, times: int) -> float:
    """CPU time of one call, in seconds, over several."""
    start = time.process_time_ns()
    for _ in range(times):
        call()
    return (time.process_time_ns() - start) / times / 1e9


def ratio(swapped: Call, original: Call, repeats: int) -> str:
    """Median of the ratios of neighbours in time, and the original's milliseconds."""
    for call in (swapped, original) * 2:
        call()
    times = max(1, round(0.05 / max(timed(original, 1), 1e-6)))
    ours, theirs = [], []
    for repeat in range(repeats):
        pair = [(ours, swapped), (theirs, original)]
        for results, call in pair if repeat % 2 else pair[::-1]:
            results.append(timed(call, times))
    median = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return f"{median:.2f} ({1e3 * statistics.median(theirs):.1f} ms)"


def quietly(call: Call) -> Call:
    """The call with gradients off."""

    def run() -> None:
        with torch.no_grad():
            call()

    return run


def step_of(flow: Flow, x: Tensor) -> Call:
    """One training step of Adam."""
    optimizer = torch.optim.Adam(flow.parameters(), 1e-5)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        flow.loss(x).backward()
        optimizer.step()

    return run


def times(host: Host, swapped: Flow, original: Flow, repeats: int) -> Iterator[tuple[str, str]]:
    x = host.x()
    with torch.no_grad():
        z, _ = original(x)

    def pair(make: Callable[[Flow], Call]) -> str:
        return ratio(make(swapped), make(original), repeats)

    def sampling(flow: Flow) -> Call:
        return quietly(lambda: flow.inverse(z))

    def likelihood(flow: Flow) -> Call:
        return quietly(lambda: flow(x))

    for is_training in (False, True):
        for flow in (swapped, original):
            flow.train(is_training)
        mode = "train()" if is_training else "eval()"
        yield f"sampling, {mode}", pair(sampling)
        yield f"log-likelihood, {mode}", pair(likelihood)
    yield "training step", pair(lambda flow: step_of(flow, x))


# Errors, condition numbers, exports


def worst(value: Any, expected: Any) -> float:
    """Largest error, of the largest value."""
    value, expected = torch.as_tensor(value).double(), torch.as_tensor(expected).double()
    return float((value - expected).abs().max() / expected.abs().max())


def errors(host: Host, flow: Flow, weights: dict[str, Tensor]) -> tuple[str, str]:
    """Of the log-determinant against float64, and of the data that comes back."""
    exact = new(host, weights).double().eval()
    x = host.x()
    with torch.no_grad():
        z, log_det = flow.eval()(x)
        return (
            f"{worst(log_det, exact(x.double())[1]):.0e}",
            f"{worst(flow.inverse(z), x):.0e}",
        )


def conditions(flow: Flow) -> float:
    """The largest condition number of a kernel."""
    with torch.no_grad():
        return max(float(swap.wic.condition_number()) for swap in swap_1x1(flow))


def exports(one_way: nn.Module, x: Any) -> str:
    """Which exports of a module take it."""
    works = []
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for name, export in (("torch.export", _program), ("ONNX", _onnx)):
            try:
                export(one_way.eval(), x)
            except Exception:
                continue
            works.append(name)
    return ", ".join(works) or "nothing"


def _program(module: nn.Module, x: Any) -> None:
    with torch.no_grad():
        torch.export.export(module, (x,))


def _onnx(module: nn.Module, x: Any) -> None:
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = f"{folder}/model.onnx"
        torch.onnx.export(module, (x,), path, dynamo=True, verbose=False)
        import onnxruntime

        onnxruntime.InferenceSession(path)


def column(host: Host, repeats: int, steps: int) -> dict[str, str]:
    """What is measured of a host, by name."""
    original, swapped = new(host), new(host)
    swap_1x1(swapped)
    cells = dict(times(host, swapped, original, repeats))
    if not steps:
        return cells
    results = []
    for weight in (0.0, DET_LOSS):
        flow = new(host)
        swap_1x1(flow)
        start = conditions(flow)
        loss = train(host, flow, steps, weight)
        results.append((flow, conditions(flow), loss))
    weights = results[0][0].state_dict()
    original, swapped = new(host, weights), new(host, weights)
    swap_1x1(swapped)
    pairs = zip(errors(host, original, weights), errors(host, swapped, weights), strict=True)
    for what, (theirs, ours) in zip(("log-determinant", "round trip"), pairs, strict=True):
        cells[f"error of the {what}, original / swapped"] = f"{theirs} / {ours}"
    trained, held = (f"{condition:.3g}" for _, condition, _ in results)
    cells["largest condition number, at the start"] = f"{start:.3g}"
    cells[f"after {steps} steps, without / with det_loss"] = f"{trained} / {held}"
    losses = (f"{loss:.3f}" for _, _, loss in results)
    cells["loss per dimension then"] = " / ".join(losses)
    x = host.x()
    with torch.no_grad():
        z, _ = original(x)
    for what, flow in (("original", original), ("swapped, fuse(model)", fuse(swapped))):
        cells[f"exports of the log-likelihood, {what}"] = exports(calling(flow), x)
        cells[f"exports of sampling, {what}"] = exports(calling(flow, "inverse"), z)
    return cells


def every_case(sources: Path, repeats: int) -> str:
    """The times of all code bases: medians and quartiles over their cases, as a table."""
    from real_flows import all_cases, used_model
    from standins.flows import Case

    def flow_of(case: Case) -> Flow:
        with redirect_stdout(io.StringIO()):
            model = used_model(case)

        def there(model: Any, x: Tensor) -> tuple[Any, Tensor]:
            z, log_det = case.forward(model, x)
            return z, x.new_zeros(()) if log_det is None else log_det

        return Flow(model, there, case.inverse)

    results: dict[str, list[float]] = {}
    for source, case in all_cases(sources):
        if isinstance(case, str):
            print(f"{source.name}: {case}", file=sys.stderr)
            continue
        try:
            original, swapped = flow_of(case), flow_of(case)
            swap_1x1(swapped.model)
            host = Host(case.name, partial(flow_of, case), case.x)
            cells = dict(times(host, swapped, original, repeats))
        except Exception as error:
            print(f"{source.name} | {case.name}: {str(error)[:90]}", file=sys.stderr)
            continue
        print(f"{source.name} | {case.name}: {cells}", file=sys.stderr)
        for name, cell in cells.items():
            results.setdefault(name, []).append(float(cell.split()[0]))
    rows = []
    for name, ratios in results.items():
        quarters = (f"{quarter:.2f}" for quarter in statistics.quantiles(ratios, n=4))
        rows.append((name, *quarters, str(len(ratios))))
    return markdown(("", "a quarter below", "median", "a quarter above", "cases"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=31, help="pairs per ratio (default 31)")
    parser.add_argument("--steps", type=int, default=200, help="of a training; 0 for times alone")
    parser.add_argument("--hosts", default="", help="those whose name has this in it")
    parser.add_argument("--sources", type=Path, help="folder of the code bases themselves")
    parser.add_argument("--all", action="store_true", help="times of every case of the sources")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", "torch.lu is deprecated")  # normflows calls it
    if options.all:
        if options.sources is None:
            parser.error("--all needs --sources")
        print(surroundings(8).splitlines()[0] + "\n")
        print(every_case(options.sources, options.repeats))
        return
    chosen = [host for host in hosts(options.sources) if options.hosts in host.name]
    print(surroundings(8).splitlines()[0] + "\n")
    columns = [column(host, options.repeats, options.steps) for host in chosen]
    rows = [(name, *(cells[name] for cells in columns)) for name in columns[0]]
    print(markdown(("", *(host.name for host in chosen)), rows))


if __name__ == "__main__":
    main()
