"""Stored, a network that a folder holds: its tensors, and a JSON that says what they are of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

import wic_layers
from wic_layers._files import check_regular, read_small, write_whole
from wic_layers.errors import WICArgumentError, WICFileError, named, needing, quoted, shortened
from wic_layers.layer.completion import CompletionName
from wic_layers.layer.conv import WIC
from wic_layers.layer.kernel import not_finite
from wic_layers.models.building import Shapes, differences, outlined, read_header
from wic_layers.models.card import card_of
from wic_layers.models.colours import Colours, check_colours
from wic_layers.models.hub import (
    HUB,
    download,
    download_preset,
    first_lines,
    is_on_hub,
    looks_like,
    upload,
)
from wic_layers.models.packaged import CARD, CONFIG, TENSORS, described_weights, packaged_weights
from wic_layers.models.presets import PRESETS, find_preset

if TYPE_CHECKING:
    from types import ModuleType

    from typing_extensions import Self

__all__ = [
    "CARD",
    "CONFIG",
    "TENSORS",
    "Precision",
    "Stored",
    "describe",
    "read",
]

_Stored = TypeVar("_Stored", bound="Stored")

Precision = Literal["float16", "float32"]
"""How a file holds weights that are no kernels of WIC."""

_FORMAT = 1
_MOST_CONFIG = 1_000_000  # bytes
_KINDS: Mapping[str, tuple[type, ...]] = {
    "network": (str,),
    "arguments": (dict,),
    "preset": (str, type(None)),
    "task": (str, type(None)),
    "sha256": (str,),
    "card": (dict,),
}


def _safetensors() -> ModuleType:
    with needing("Weights are stored as safetensors", "images"):
        import safetensors
        import safetensors.torch
    return safetensors


class Stored(nn.Module):
    """A network that a folder of weights holds; its attributes are those of ``Network``."""

    config: dict[str, Any]

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__(*blocks)
        self.preset: str | None = None
        self.task: str | None = None
        self.weights_id: str | None = None
        self.card: dict[str, str] = {}
        self.colours: Colours = "RGB"
        self.through: tuple[str, ...] = ()

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> Self:
        """Returns a network of this class with trained weights.

        See :func:`wic_layers.models.from_pretrained`, which takes weights of any network.

        Raises:
            WICFileError: Also if the weights are of another network.
        """
        return read(name, {cls.__name__: cls}, revision)

    def save_pretrained(
        self,
        folder: str | Path,
        card: Mapping[str, str] | None = None,
        *,
        precision: Precision = "float16",
    ) -> Path:
        """Writes ``model.safetensors``, ``config.json`` and a model card into a folder.

        WIC kernels keep their dtype. Figures should be measured with the stored file.

        Args:
            folder: Made if there is none; files of these three names are replaced, each at once.
            card: More to say about the weights: data, steps, PSNR with its protocol, licence.
            precision: How everything but the kernels (the networks inside the couplings) is
                stored: ``"float16"``, which halves the file, or ``"float32"``, which changes
                nothing.

        Returns:
            The folder.

        Raises:
            WICArgumentError: If the network holds a completion that is not a name, and so cannot
                be written down, or finite weights that would be infinite as float16; or if
                ``precision`` is another.
            WICFileError: If the files cannot be written.
            WICDependencyError: If safetensors is not installed.
        """
        safetensors = _safetensors()
        if precision not in get_args(Precision):
            raise WICArgumentError(
                f'Expected precision "float16" or "float32"; got {precision!r}.'
            )
        completion = self.config["completion"]
        if completion is not None and not isinstance(completion, str):
            raise WICArgumentError(
                "Expected a network whose completion has a name "
                f"({', '.join(get_args(CompletionName))}); got {type(completion).__name__}. Save "
                "its state_dict with torch.save instead."
            )
        modules = self.named_modules()
        kernels = tuple(f"{name}." for name, module in modules if isinstance(module, WIC))
        state = {
            key: tensor if key.startswith(kernels) else _narrowed(key, tensor, precision)
            for key, tensor in self.state_dict().items()
        }
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
        blob = safetensors.torch.save(state, {"format": "pt"})
        preset = PRESETS.get(self.preset or "")
        config = {
            "format": _FORMAT,
            "version": wic_layers.__version__,
            "preset": self.preset,
            "task": preset.task if preset else self.task,
            "network": type(self).__name__,
            "arguments": self.config,
            "colours": check_colours(self.colours),
            **({"through": list(self.through)} if self.through else {}),
            "sha256": hashlib.sha256(blob).hexdigest(),
            "card": dict(self.card if card is None else card),
        }
        parameters = sum(tensor.numel() for tensor in state.values())
        target = Path(folder)
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WICFileError(
                f"{target} cannot be written: {error.strerror or error}."
            ) from error
        write_whole(target / TENSORS, blob)
        stored = f"{len(blob) / 1e6:.2f} MB: " + (
            "all in float32"
            if precision == "float32"
            else "WIC kernels in float32, all else in float16"
        )
        write_whole(target / CARD, card_of(config, parameters, stored).encode())
        # last, as it tells what is there
        write_whole(target / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
        return target

    def push_to_hub(
        self,
        name: str,
        card: Mapping[str, str] | None = None,
        *,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Writes what :meth:`save_pretrained` does into a repository of the Hugging Face hub.

        Args:
            name: ``"owner/name"``; made if there is none.
            card: See :meth:`save_pretrained`.
            private: Whether a new repository can be seen by its owner only.
            token: The hub's access token; the one that was saved by default.

        Returns:
            The address of the commit.

        Raises:
            WICDependencyError: If huggingface_hub is not installed.
            WICFileError: If the hub refuses.
        """
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, card)
            return upload(name, folder, private=private, token=token)


def _narrowed(key: str, tensor: Tensor, precision: Precision) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    if precision == "float32":
        return tensor.float()
    stored = tensor.half()
    overflows = torch.isinf(stored) & torch.isfinite(tensor)
    if overflows.any():
        raise WICArgumentError(
            f"Expected weights of at most 65504, as they are stored as float16; {key} has "
            f"{tensor[overflows].abs().max():.3g}. Train with smaller weights, or store them with "
            'precision="float32".'
        )
    return stored


def describe(name: str | Path, revision: str | None = None) -> tuple[dict[str, Any], Path]:
    """Returns what is known of weights (their JSON), and where their tensors are.

    Args:
        name: See :func:`wic_layers.models.from_pretrained`.
        revision: Branch, tag or commit on the hub.
    """
    folder, tensors = _locate(name, revision)
    path = folder / CONFIG
    try:
        config = json.loads(read_small(path, _MOST_CONFIG))
    except OSError as error:
        if isinstance(error, WICFileError):
            raise
        raise WICFileError(
            f"Expected weights: a folder with {TENSORS} and {CONFIG}; {path} cannot be read: "
            f"{error.strerror or error}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise WICFileError(f"{path} is damaged: it is no JSON.") from error
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        says = f"says {quoted(config.get('format'))}" if isinstance(config, dict) else "is another"
        raise WICFileError(
            f"Expected weights of format {_FORMAT}, the one known to this version; {path} {says}."
        )
    missing = [key for key in _KINDS if key not in config]
    if missing:
        raise WICFileError(f"{path} is damaged: it lacks {', '.join(missing)}.")
    wrong = [key for key, kinds in _KINDS.items() if not isinstance(config[key], kinds)]
    through = config.get("through", [])
    if not isinstance(through, list) or not all(isinstance(each, str) for each in through):
        wrong.append("through")
    if wrong:
        raise WICFileError(f"{path} is damaged: {', '.join(wrong)} of another kind.")
    return config, tensors


def read(name: str | Path, networks: Mapping[str, type[_Stored]], revision: str | None) -> _Stored:
    """See :func:`wic_layers.models.from_pretrained`."""
    safetensors = _safetensors()
    config, path = describe(name, revision)
    network = networks.get(config["network"])
    if network is None:
        raise WICFileError(
            f"Expected weights of {named(networks, 20)}; {path} is of "
            f"{quoted(config['network'])}, saved by wic-layers {quoted(config.get('version'))}; "
            f"this is {wic_layers.__version__}."
        )
    try:
        check_regular(path)
        with path.open("rb") as file:
            sha256 = _digest(file)
            if sha256 != config["sha256"]:
                raise WICFileError(
                    f"{path} is damaged or not of its {CONFIG}: expected the SHA-256 "
                    f"{shortened(config['sha256'], 64)}; got {sha256}. Fetch it again."
                )
            shapes = read_header(file, path)
            _check_network(network, config["arguments"], shapes, path)
            file.seek(0)
            blob = file.read()
    except OSError as error:
        if isinstance(error, WICFileError):
            raise
        raise WICFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        model = network(**config["arguments"])
        model.colours = check_colours(config.get("colours", "RGB"))
        state = {key: tensor.float() for key, tensor in safetensors.torch.load(blob).items()}
        for wrong in not_finite(state):
            raise WICArgumentError(wrong)
        model.load_state_dict(state)
    except (RuntimeError, WICArgumentError, safetensors.SafetensorError) as error:
        raise WICFileError(
            f"{path} does not hold the weights that its {CONFIG} says: {first_lines(error)}"
        ) from error
    model.preset = config["preset"]
    model.task = config["task"]
    model.weights_id = sha256[:16]
    model.card = {str(key): str(value) for key, value in config["card"].items()}
    model.through = tuple(config.get("through", ()))
    return model.eval()


def _digest(file: IO[bytes]) -> str:
    """The SHA-256 of a file."""
    sha256 = hashlib.sha256()
    while part := file.read(1 << 20):
        sha256.update(part)
    return sha256.hexdigest()


def _check_network(
    network: type[Stored], arguments: Mapping[str, Any], shapes: Shapes, path: Path
) -> None:
    """Raises unless a network of these arguments has tensors of these names and shapes."""
    # one of somebody else may need numbers while it is built
    device = "meta" if network.__module__.startswith(f"{wic_layers.__name__}.") else "cpu"
    try:
        with torch.random.fork_rng(devices=[]):
            outline = outlined(lambda: network(**arguments), shapes, device)
        expected = {key: tuple(value.shape) for key, value in outline.state_dict().items()}
        wrong = differences(expected, shapes)
        if wrong:
            raise WICArgumentError(wrong)
    except Exception as error:  # whatever a constructor says to arguments that are none
        raise WICFileError(
            f"{path} does not hold the weights that its {CONFIG} says: {first_lines(error)}"
        ) from error


def _locate(name: str | Path, revision: str | None) -> tuple[Path, Path]:
    """The folder that holds weights, and the file with their tensors."""
    if is_on_hub(name):
        folder = download(str(name), revision, [TENSORS, CONFIG])
        return folder, folder / TENSORS
    path = Path(name)
    if path.suffix == ".safetensors":
        return path.parent, path
    packaged = packaged_weights()
    if str(name) in packaged:
        folder = packaged[str(name)]
    elif path.is_dir():
        folder = path
    elif str(name) in (described := described_weights()):  # whose digest it is compared with
        fetched = download_preset(str(name), revision, [TENSORS])
        return described[str(name)], fetched / TENSORS
    elif str(name) in PRESETS:
        there = ", ".join(packaged) or "none here"
        raise WICArgumentError(
            f"Expected a preset with weights in the package ({there}); there are none for "
            f"'{name}'. Train it with `wic train {name}`, or pass the folder of its weights."
        )
    elif path.exists():
        raise WICFileError(
            f"Expected a folder of weights or its {TENSORS}; got {path}. Of a checkpoint of other "
            f"code `wic upgrade` makes one: wic upgrade irn {path} -o FOLDER (or hinet, iicnet, "
            f"hcflow, dlv)."
        )
    elif len(path.parts) > 1 or isinstance(name, Path):
        hub = f" Of a name on the hub write {HUB}{name}." if looks_like(str(name)) else ""
        raise WICFileError(f"There is no folder {path}.{hub}")
    else:
        try:
            find_preset(str(name))
        except WICArgumentError as error:
            raise WICArgumentError(f"{error} There is no folder of that name either.") from None
        raise AssertionError  # find_preset has raised
    return folder, folder / TENSORS
