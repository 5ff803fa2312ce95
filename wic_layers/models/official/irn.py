"""IRNFormat, IRN as its authors' code names it: ``operations.N`` for each block but the last.

And DLVIRNFormat, what that code makes of it with the lines for a second latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from wic_layers.blocks import Haar
from wic_layers.errors import WICArgumentError
from wic_layers.layer.conv import WIC
from wic_layers.models.base import Network, has_wic
from wic_layers.models.dlv import DLVIRN
from wic_layers.models.irn import IRN
from wic_layers.models.official.format import Format, behind_net, haar_kernel

__all__ = ["DLVIRNFormat", "IRNFormat"]

_SQUEEZES = ("haar_weights", "conv_weights")


class IRNFormat(Format):
    """The code of IRN.

    Its data sets read with OpenCV and turn what they read: its networks see red first
    (``data/LQGT_dataset.py``). A network with a WIC is one inside
    :class:`~wic_layers.WellPosed` there.
    """

    networks: ClassVar[tuple[type[Network], ...]] = (IRN,)
    mark = r"^operations\.0\.(haar|conv)_weights$"
    wic = "wic."

    def build(
        self, state: Mapping[str, Tensor], out_channels: int | None, copies: int | None
    ) -> Network:
        """The network that the names and shapes of a state dict are for."""
        self._refuse(out_channels=out_channels, copies=copies)
        squeezes = sorted(int(key.split(".")[1]) for key in state if key.endswith(_SQUEEZES))
        blocks = max(int(k.split(".")[1]) for k in state if k.startswith("operations.")) + 1
        if len(squeezes) > 1 and squeezes[1] == squeezes[0] + 1:
            raise WICArgumentError(
                "it squeezes twice before its couplings (down_first), which is not known here"
            )
        depths = [
            end - start - 1 for start, end in zip(squeezes, [*squeezes[1:], blocks], strict=True)
        ]
        if len(set(depths)) > 1:
            raise WICArgumentError(f"its stages have {depths} couplings, not as many each")
        learned = state.get("operations.0.conv_weights")
        if learned is None:
            in_channels = state["operations.0.haar_weights"].shape[0] // 4
            scale = 2 ** len(squeezes)
        else:
            scale = {3: 1, 9: 3}.get(len(learned), 0)
            in_channels = 3
            if not scale:
                raise WICArgumentError(
                    f"its learned downsampling has {len(learned)} sub-bands; known are 3 (grey) "
                    "and 9 (a scale of 3)"
                )
        return IRN(
            in_channels,
            len(state["operations.1.F.conv5.bias"]),
            scale=scale,
            couplings=depths[0],
            growth=len(state["operations.1.F.conv1.bias"]),
            random_z=True,
        )

    def names(self, model: Network) -> dict[str, str]:
        """Our names of a state dict with theirs."""
        names = {}
        for key in model.state_dict():
            place, _, rest = key.partition(".")
            if int(place) == len(model) - 1:
                if has_wic(model):
                    names[key] = f"{self.wic}{rest}"
                continue
            is_squeeze = int(place) == 0 and isinstance(
                model.get_submodule(key[: -len(".weight")]), WIC
            )
            names[key] = f"operations.{place}.{'conv_weights' if is_squeeze else rest}"
        return names

    def checkpoint(self, model: Network, state: dict[str, Tensor]) -> object:
        """A plain state dict."""
        return behind_net(state, self.wic) if has_wic(model) else state

    def constants(self, model: Network) -> dict[str, Tensor]:
        """The kernels of their Haar transforms."""
        kernels, channels = {}, model.config["in_channels"]
        for index, block in enumerate(model):
            if isinstance(block, Haar):
                kernels[f"operations.{index}.haar_weights"] = haar_kernel(channels)
                channels *= 4
        return kernels


class DLVIRNFormat(IRNFormat):
    """The code of IRN with a latent in front, ``DualLatent(Latent(w), WellPosed(...))``.

    The paper has no code of its own; the lines are those of ``integrations/``. Its networks see
    red first, as IRN's.
    """

    networks = (DLVIRN,)
    mark = r"^1\.wic\."
    wic = "1.wic."

    def build(
        self, state: Mapping[str, Tensor], out_channels: int | None, copies: int | None
    ) -> Network:
        """The network that the names and shapes of a state dict are for; images are RGB."""
        base = super().build(state, out_channels, copies).config
        result = base["out_channels"]
        return DLVIRN(
            result,
            result,
            scale=base["scale"],
            couplings=base["couplings"],
            growth=base["growth"],
            w_channels=base["in_channels"] - result,
            z="zero",
        )

    def check(self, model: Network) -> None:
        """Raises if the network has no WIC: there is no code for one as published."""
        if not has_wic(model):
            raise WICArgumentError(
                "Expected a DLVIRN with a WIC (z=None), for IRN's code with the lines of "
                f"integrations/dlv; got one with z={model.config['z']!r}, for which there is none."
            )

    def names(self, model: Network) -> dict[str, str]:
        """Our names of a state dict with theirs, which count from behind the latent."""
        names = {}
        for key in model.state_dict():
            place, _, rest = key.partition(".")
            is_last = int(place) == len(model) - 1
            names[key] = f"{self.wic}{rest}" if is_last else f"operations.{int(place) - 1}.{rest}"
        return names

    def checkpoint(self, model: Network, state: dict[str, Tensor]) -> object:
        """A plain state dict, the network inside the two modules around it."""
        inner = behind_net(state, self.wic)
        return {f"1.{k}" if k.startswith("net.") else k: value for k, value in inner.items()}

    def constants(self, model: Network) -> dict[str, Tensor]:
        """The kernels of their Haar transforms."""
        config, channels = model.config, model.config["in_channels"] + model.config["w_channels"]
        return {
            f"operations.{stage * (config['couplings'] + 1)}.haar_weights": haar_kernel(
                channels * 4**stage
            )
            for stage in range(config["scale"] // 2)
        }
