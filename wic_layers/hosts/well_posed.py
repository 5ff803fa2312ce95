"""WellPosed: a network that runs both ways, closed by a WIC where its author drew z."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from wic_layers.blocks import InvertibleBlock
from wic_layers.blocks.block import as_block, run_named
from wic_layers.errors import WICArgumentError, WICWarning
from wic_layers.hosts.checkpoints import from_before
from wic_layers.hosts.networks import Split, Way, call_of, tensors_in
from wic_layers.layer.completion import Completion, CompletionName
from wic_layers.layer.conv import WIC
from wic_layers.layer.kernel import not_finite
from wic_layers.layer.pointwise import is_transformed
from wic_layers.layer.two_way import has_hooks

__all__ = ["WellPosed", "warn_of_noise"]


class WellPosed(InvertibleBlock):
    r"""Closes a network that runs both ways with a WIC, where its author drew random numbers.

    ``forward(x)`` is the picture alone: the network's output through the WIC. ``inverse(y)``, and
    ``forward(y, rev=True)`` or the network's own flag, need the picture alone. At the start the
    WIC keeps the first ``out_channels`` channels as they are, so that the picture is what it was,
    and puts zeros for the others on the way back; both then train like the rest. Initialise a
    network first and close it then: what sets all parameters to noise sets the kernel to noise.

    How the network is called is decided from its signatures: a flag of ``forward`` (``rev``,
    ``reverse``, ``inverse``, ...) or a method (``inverse``, ``reverse``, ...), one tensor or two
    on the way back. The arguments of a call go on to the network. Of what it returns, the one
    tensor with ``in_channels`` channels is taken, or those that have as many together; on the way
    back what has as many numbers as went in.

    Args:
        net: Any module that runs both ways, such as IRN's, HiNet's or a
            :class:`~wic_layers.blocks.Chain`. The picture must be in the first channels of its
            output; where it is not, ``forward`` and ``inverse`` say where it is.
        in_channels: Channels of the network's output, picture and z together.
        out_channels: Channels of the picture.
        completion: See :class:`~wic_layers.WIC`. Zero is the right one to start from: with the
            paper's shift a training that starts at the identity stays behind.
        rev: The flag of the network's ``forward`` that is true on the way back, or the name of its
            method for it, where it has another name than the usual ones.
        forward: The way forward: a method's name, or a function of the network and its inputs.
        inverse: The way back: a method's name, or a function of the network and a tensor with
            ``in_channels`` channels.
        split: Channels of the tensors that the network returns, and takes back: ``(3, 9)``, or
            ``(3, (3, 6))`` where the second is a list of two.
        pick: Place of the network's output in what it returns: 0, or a key.

    Attributes:
        net: The network; its keys in the state dict are its own behind ``net.``, and its other
            attributes are those of this module too. A state dict of the network alone can be
            loaded as well, such as one from before it was closed; the WIC then stays as it is. For
            an optimizer's, see :func:`~wic_layers.hosts.load_optimizer_state`.
        wic: The :class:`~wic_layers.WIC`.

    Raises:
        WICArgumentError: If the network does not run both ways, no channels are dropped, or the
            network returns something else than its output.
        WICShapeError: If the network's output has another number of channels.
        RuntimeError: By ``load_state_dict``, also if a weight is not finite.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Section 3.3

    Example:
        >>> from wic_layers.blocks import AffineCoupling, Chain, Squeeze
        >>> net = WellPosed(Chain(Squeeze(2), AffineCoupling(12)), 12, 3)
        >>> y = net(torch.rand(1, 3, 8, 8))
        >>> y.shape
        torch.Size([1, 3, 4, 4])
        >>> torch.equal(net(y, rev=True), net(y, rev=True))
        True
    """

    def __init__(
        self,
        net: nn.Module,
        in_channels: int,
        out_channels: int,
        *,
        completion: CompletionName | Completion = "zero",
        rev: str | None = None,
        forward: Way | None = None,
        inverse: Way | None = None,
        split: Split | None = None,
        pick: int | str | None = None,
    ) -> None:
        super().__init__()
        self._call = call_of(
            net,
            (in_channels, out_channels),
            rev=rev,
            forward=forward,
            inverse=inverse,
            split=split,
            pick=pick,
        )
        where: dict[str, Any] = {}
        for parameter in net.parameters():
            where.setdefault("device", parameter.device)
            if parameter.dtype in (torch.float32, torch.float64):
                where["dtype"] = parameter.dtype
                break
        self.net = net
        self.wic = WIC(in_channels, out_channels, completion=completion, **where)
        if out_channels >= in_channels:
            raise WICArgumentError(
                "Expected fewer out_channels (the picture's) than in_channels (the picture's and "
                f"those of z); got {in_channels} and {out_channels}."
            )
        self._looks_for_idle = True
        with torch.no_grad():
            self.wic.weight.copy_(torch.eye(in_channels))

    if TYPE_CHECKING:

        @overload
        def __call__(self, x: Tensor, /) -> Tensor: ...
        @overload
        def __call__(self, *inputs: Any, rev: bool = False, **options: Any) -> Any: ...
        def __call__(self, *inputs: Any, **options: Any) -> Any: ...

    def forward(self, *inputs: Any, rev: bool = False, **options: Any) -> Any:
        """Maps an input to the picture, or a picture back with ``rev=True``.

        Args:
            inputs: Those of the network, by position or by name; on the way back the picture.
            rev: The direction; the network's own flag says it too.
            options: Further arguments of the network.

        Returns:
            The picture; on the way back what the network takes: a tensor, or several.
        """
        rev, named = self._call.bound(inputs, options, rev=rev)
        if rev:
            return self._inverse(named.pop(self._call.picture), **named)
        result = self._call.forward(self.net, named)
        x = self._call.output(self.net, result, self.wic.in_channels, self.wic.out_channels)
        return run_named("wic", self.wic, x)

    def inverse(self, y: Tensor, **options: Any) -> Any:
        """Maps a picture back; see :meth:`forward`."""
        if has_hooks(self):
            return self(y, rev=True, **options)
        return self._inverse(y, **options)

    def _inverse(self, y: Tensor, **named: Any) -> Any:
        whole = run_named("wic", self.wic.inverse, y)
        x = self._call.input(self.net, self._call.back(self.net, whole, named), whole)
        self._watch(x)
        return x

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            net = self.__dict__.get("_modules", {}).get("net")
            if net is None or name.startswith("_") or isinstance(net, WIC):  # no layer itself
                raise
            return getattr(net, name)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,  # noqa: FBT001 - as torch calls it
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        from_before(state_dict, prefix, self.net, self.wic)
        names = (f"{prefix}{name}" for name, _ in self.named_parameters())
        error_msgs += not_finite({name: state_dict[name] for name in names if name in state_dict})
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def _watch(self, x: Any) -> None:
        """Has the first training step say which parameters it left without a gradient."""
        if torch.compiler.is_compiling() or not (self._looks_for_idle and self.training):
            return
        is_inside_backward = torch._C._current_graph_task_id() != -1  # of a checkpoint
        if is_inside_backward or is_transformed():
            return
        for tensor in tensors_in(x):
            if tensor.requires_grad:
                tensor.register_hook(self._look_when_done)

    def _look_when_done(self, _gradient: Tensor) -> None:
        if self._looks_for_idle:
            self._looks_for_idle = False
            engine = torch.autograd.Variable._execution_engine
            engine.queue_callback(self._name_idle)

    def _name_idle(self) -> None:
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        idle = [name for name, parameter in trained if parameter.grad is None]
        if idle and len(idle) < len(trained):
            names = ", ".join(idle[:4]) + (f" and {len(idle) - 4} more" if len(idle) > 4 else "")
            warnings.warn(
                f"{len(idle)} of {len(trained)} parameters of the closed "
                f"{type(self.net).__name__} got no gradient in the first step: {names}. If that "
                "is meant, requires_grad_(False) keeps them out of the optimizer, and "
                "DistributedDataParallel needs it or find_unused_parameters=True.",
                WICWarning,
                stacklevel=2,
            )

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        """See :meth:`~wic_layers.blocks.InvertibleBlock.shape_after`."""
        return self.wic.out_channels, self._side_after(channels, side)

    def _side_after(self, channels: int, side: Fraction) -> Fraction:
        knows = isinstance(self.net, InvertibleBlock) or hasattr(self.net, "shape_after")
        if knows:
            return as_block(self.net).shape_after(channels, side)[1]
        return super().shape_after(channels, side)[1]

    @property
    def reach(self) -> int:
        """None of its own."""
        return 0

    def parts(
        self, channels: int, side: Fraction
    ) -> Iterator[tuple[str, nn.Module, int, Fraction]]:
        """See :meth:`~wic_layers.blocks.InvertibleBlock.parts`."""
        yield "net", self.net, channels, side
        yield "wic", self.wic, self.wic.in_channels, self._side_after(channels, side)

    def keep_one_way(self, *, rev: bool) -> None:
        """Drops what only the other direction needs, from the network."""
        as_block(self.net).keep_one_way(rev=rev)

    @torch.no_grad()
    def _is_noise(self) -> bool:
        """Whether the kernel's diagonal is that of random numbers, by three standard errors."""
        kernel, n = self.wic.weight.double(), self.wic.in_channels
        spread = kernel[~torch.eye(n, dtype=torch.bool, device=kernel.device)].std()
        return n > 2 and bool(kernel.diagonal().mean() < 3 * spread / n**0.5)


def warn_of_noise(model: nn.Module) -> None:
    """Warns of closed networks in a model whose kernel looks like random numbers."""
    for name, module in model.named_modules():
        if isinstance(module, WellPosed) and isinstance(module.wic, WIC) and module._is_noise():
            warnings.warn(
                f"{name + '.' if name else ''}wic: the kernel looks like random numbers, and it "
                "starts as the identity. Was the network initialised after it was closed? "
                "Initialise it first, then close it.",
                WICWarning,
                stacklevel=3,
            )
