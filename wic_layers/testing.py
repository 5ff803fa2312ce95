"""check, the contracts of the library, to run on layers and networks of your own.

:func:`check` runs them all on every WIC of a model and names the layer that fails. Each contract
is a function of one layer. All leave the layer, its mode, its gradients and the global random
numbers as they were.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wic_layers._density import check_density
from wic_layers._probe import (
    condition_of,
    copied,
    inputs,
    is_deterministic,
    is_layer,
    left_as_found,
    pickled,
    relative,
    require_equal,
    require_finite,
    require_state,
    require_within,
    seeded,
    sizes_for,
    state_of,
    title,
)
from wic_layers.blocks.block import run_named
from wic_layers.errors import ContractError, IllConditionedError, WICArgumentError
from wic_layers.hosts.well_posed import warn_of_noise
from wic_layers.layer.conv import WIC
from wic_layers.layer.functional import condition_number, to_algebra
from wic_layers.layer.kernel import CONDITION_LIMIT, kernels_of
from wic_layers.layer.losses import det_loss, is_recording, record_wic, shift_loss

__all__ = [
    "RoundTrip",
    "check",
    "check_autocast",
    "check_condition",
    "check_density",
    "check_losses",
    "check_model",
    "check_modes",
    "check_round_trip",
    "check_shapes",
    "check_state",
    "log_volume_numerical",
    "round_trip_limit",
]

Sizes = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class RoundTrip:
    """How well a layer runs backwards.

    Attributes:
        condition: Condition number of the kernel.
        error: Largest error of a round trip, relative to the largest value that went into it.
        limit: What :func:`round_trip_limit` allows.
        digits: Decimal digits that a round trip in the kernel's dtype has left.
    """

    condition: float
    error: float
    limit: float
    digits: float


def check(
    model: nn.Module, x: Tensor | None = None, *, spatial: Sizes | None = None
) -> dict[str, RoundTrip]:
    """Checks every WIC of a model against all contracts, and the model where an input is given.

    Args:
        model: A layer, or a network with some inside; warns of a random kernel in a WellPosed.
        x: An input of the model's ``forward``; with it :func:`check_model` runs too.
        spatial: Sizes to try the layers with, such as ``[(8, 8), (1, 1)]``; by default of every
            rank that the layer's completion takes, and images for one that is not of this library.

    Returns:
        The round trip of each layer by its name in the model (``""`` for the model itself).

    Raises:
        WICArgumentError: If the model holds no WIC.
        IllConditionedError: If a kernel is not finite or too close to singular.
        ContractError: If a contract is broken. All name the layer and the numbers.

    Example:
        >>> from wic_layers import WIC
        >>> round_trip = check(WIC(12, 3))[""]
        >>> round_trip.error < round_trip.limit
        True
        >>> round(round_trip.digits, 1)
        6.9
    """
    layers = [(name, layer) for name, layer in kernels_of(model) if is_layer(layer)]
    if not layers:
        raise WICArgumentError(
            f"Expected a model with at least one WIC; {type(model).__name__} has none."
        )
    warn_of_noise(model)
    for name, layer in layers:
        run_named(name, check_condition, layer)
    round_trips = {}
    for name, layer in layers:
        for contract in (check_state, check_shapes, check_modes, check_autocast, check_losses):
            run_named(name, contract, layer, spatial)
        round_trips[name] = run_named(name, check_round_trip, layer, spatial)
    if x is not None:
        check_model(model, x)
    return round_trips


def check_condition(layer: WIC) -> float:
    """Contract 4: the kernel can be inverted. Returns its condition number.

    Raises:
        IllConditionedError: If a number of the kernel is not finite, or the condition number is
            past 1/eps of float64, in which it is inverted.
    """
    weight = layer.weight.detach()
    finite = torch.isfinite(weight)
    if not bool(finite.all()):
        raise IllConditionedError(
            f"{title(layer)}: {int((~finite).sum())} of the kernel's {weight.numel()} numbers are "
            "not finite."
        )
    condition = condition_of(layer)
    if not condition <= CONDITION_LIMIT:
        raise IllConditionedError(
            f"{title(layer)}: the kernel's condition number {condition:.3g} is past "
            f"{CONDITION_LIMIT:.3g}: its inverse has no correct digit even in float64."
        )
    return condition


def check_shapes(layer: WIC, spatial: Sizes | None = None) -> None:
    r"""Contract 1: both directions return one tensor (B, C, \*spatial) like the input, but for C.

    Raises:
        ContractError: If a shape, dtype or device is another, of an empty batch too.
    """
    for sizes in sizes_for(layer, spatial):
        for batch in (2, 0):
            x, y = inputs(layer, sizes, batch)
            for name, source, target in (("forward", x, y), ("inverse", y, x)):
                with left_as_found(layer), torch.no_grad():
                    out = getattr(layer, name)(source)
                got = (*out.shape, out.dtype, out.device) if isinstance(out, Tensor) else type(out)
                expected = (*target.shape, target.dtype, target.device)
                if got != expected:
                    raise ContractError(
                        f"{title(layer)}: expected {name} of shape {tuple(source.shape)} to "
                        f"return one tensor {expected}; got {got}."
                    )


def check_modes(layer: WIC, spatial: Sizes | None = None) -> None:
    """Contract 1: ``train()`` and ``eval()`` give the same; ``rev=True`` is ``inverse``.

    Raises:
        ContractError: If they differ.
    """
    for sizes in sizes_for(layer, spatial):
        x, y = inputs(layer, sizes)
        with left_as_found(layer), torch.no_grad():
            trained = layer.train()(x)
            require_equal(layer, "forward in train() and eval()", trained, layer.eval()(x))
            if is_deterministic(layer, y):
                back = layer.inverse(y)
                require_equal(
                    layer, "inverse(y) and forward(y, rev=True)", back, layer(y, rev=True)
                )


def check_round_trip(layer: WIC, spatial: Sizes | None = None) -> RoundTrip:
    """Contract 2: the layer undoes itself, to :func:`round_trip_limit`.

    Widening or square: ``inverse(forward(x)) == x``. Narrowing: ``forward(inverse(y)) == y``; with
    as many rows as input channels and a deterministic completion also ``inverse(forward(x)) == x``
    for the x that ``inverse`` gives. ``layout="published"`` is only measured where M > n.

    Raises:
        ContractError: If the error is past the limit.
    """
    n, m, rows = layer.in_channels, layer.out_channels, layer.rows
    measured_only = rows > n > m and layer.layout == "published"
    limit = round_trip_limit(layer)
    worst = 0.0
    for sizes in sizes_for(layer, spatial):
        x, y = inputs(layer, sizes)
        with left_as_found(layer), torch.no_grad():
            layer.eval()
            if m >= n:
                error = relative(layer.inverse(layer(x)) - x, x)
                require_within(layer, "inverse(forward(x)) == x", error, limit)
                worst = max(worst, error)
                continue
            extra = seeded(layer.complete, y)
            x = seeded(layer.inverse, y)
            again = layer(x)
            error = relative(again - y, torch.cat((y, extra), dim=1))
            if not measured_only:
                require_within(layer, "forward(inverse(y)) == y", error, limit)
            worst = max(worst, error)
            if rows == n and is_deterministic(layer, y):
                # what the completion makes of the rounding in y comes on top
                slope = relative(layer.complete(again) - extra, again - y)
                error = relative(layer.inverse(again) - x, x)
                require_within(layer, "inverse(forward(x)) == x", error, limit * (1 + slope))
    condition = condition_of(layer)
    loss = torch.finfo(layer.weight.dtype).eps * condition
    return RoundTrip(condition, worst, limit, digits=max(0.0, -math.log10(loss)))


def round_trip_limit(layer: WIC, dtype: torch.dtype | None = None) -> float:
    r"""Returns the largest error of a round trip, relative to the largest value that goes into it.

    It is :math:`c \cdot \epsilon \cdot \kappa(K)`, with the precision of the convolution. Up to
    64 channels c was seen to be at most 3.5 where the algebra is more precise than the
    convolution, so it is 8 here; and 8 in float64, so it is 8 plus an eighth of the rows there.
    With ``rows`` above n :math:`\kappa(K) \, \lVert K \rVert \, \lVert W^{+} \rVert` stands for
    :math:`\kappa(K)`.

    Args:
        layer: The layer.
        dtype: Of the input; the kernel's by default.
    """
    weight = layer.weight.detach()
    dtype = weight.dtype if dtype is None else dtype
    n, m, rows = layer.in_channels, layer.out_channels, layer.rows
    factor = 8 + (max(n, rows) / 8 if dtype == torch.float64 else 0)
    condition = condition_of(layer)
    if rows > n > m:
        high = to_algebra(weight)
        norm, exact = (torch.linalg.matrix_norm(k, 2) for k in (high, high[:m]))
        condition *= float(condition_number(high[:m]) * norm / exact)
    return factor * torch.finfo(dtype).eps * condition


def check_state(layer: WIC, spatial: Sizes | None = None) -> None:
    """Contract 3: no call changes the state dict, and a cached inverse is the inverse.

    ``inverse`` works before any ``forward``; a cached one survives ``deepcopy`` and ``pickle`` and
    is forgotten when the kernel is edited or loaded again.

    Raises:
        ContractError: If one of these fails.
    """
    _, y = inputs(layer, sizes_for(layer, spatial)[0])
    if not is_deterministic(layer, y):
        return
    before, fresh = state_of(layer), copied(layer).eval()
    with torch.enable_grad():
        computed = fresh.inverse(y).detach()
    with torch.no_grad():
        first = fresh.inverse(y)
        error = relative(first - computed, computed)
        require_within(layer, "inverse with gradients off as on", error, round_trip_limit(fresh))
        require_equal(layer, "the first and the cached inverse", first, fresh.inverse(y))
        require_state(layer, before, state_of(fresh))
        for what, other in (("deepcopy", copied(fresh)), ("pickle", pickled(fresh))):
            if other is not None:
                require_equal(
                    layer, f"the inverse and that of its {what}", first, other.inverse(y)
                )
        for parameter in fresh.parameters():
            parameter.data.mul_(2)  # an edit that no version counter sees
        if y.device.type != "cpu":
            fresh.clear_cache()
        edited = fresh.inverse(y)
        with torch.enable_grad():
            computed = fresh.inverse(y).detach()
        error = relative(edited - computed, computed)
        require_within(layer, "the inverse of an edited kernel", error, round_trip_limit(fresh))
        fresh.load_state_dict(before)
        require_equal(layer, "the inverse before and after loading", first, fresh.inverse(y))


def check_autocast(layer: WIC, spatial: Sizes | None = None) -> None:
    """Contract 4: the layer's own algebra and convolution take no part in autocast.

    Raises:
        ContractError: If ``forward``, or ``inverse`` without a completion that has weights,
            differs.
    """
    x, y = inputs(layer, sizes_for(layer, spatial)[-1])
    if x.dtype != torch.float32:
        return
    completion = layer.completion
    weights = list(completion.parameters()) if isinstance(completion, nn.Module) else []
    with left_as_found(layer), torch.no_grad():
        layer.eval()
        forward, inverse = layer(x), seeded(layer.inverse, y)
        layer.clear_cache()
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            require_equal(layer, "forward outside and inside autocast", forward, layer(x))
            if not weights:
                inside = seeded(layer.inverse, y)
                require_equal(layer, "inverse outside and inside autocast", inverse, inside)


def check_losses(layer: WIC, spatial: Sizes | None = None) -> None:
    """Contract 5: losses and gradients are finite, and nothing of a recording stays behind.

    Raises:
        ContractError: If a loss or gradient is not finite, recording changes the output, an
            inverse call records, or a recorded tensor outlives its record.
    """
    narrowing = layer.out_channels < layer.in_channels
    x, y = inputs(layer, sizes_for(layer, spatial)[-1])
    with left_as_found(layer), torch.enable_grad():
        require_finite(layer, "det_loss", det_loss(layer))
        plain = layer(x)
        with record_wic(layer) as records:
            recorded = layer(x)
            layer.inverse(y)
        require_equal(layer, "forward with and without record_wic", plain, recorded)
        if len(records) != int(narrowing):
            raise ContractError(
                f"{title(layer)}: expected {int(narrowing)} records of one forward and one "
                f"inverse; got {len(records)}."
            )
        if is_recording():
            raise ContractError(f"{title(layer)}: expected no recording after record_wic closed.")
        if narrowing:
            require_finite(layer, "shift_loss", shift_loss(records))
            extra = weakref.ref(records[0].extra)
            del records, recorded
            if extra() is not None:
                raise ContractError(
                    f"{title(layer)}: expected no tensor of a recording to outlive it; one did."
                )


def check_model(model: nn.Module, x: Tensor) -> None:
    """Contracts 1, 3 and 5 of a whole network, with an input of its ``forward``.

    ``forward`` gives the same in ``train()``, in ``eval()`` and under ``record_wic``; ``inverse``
    gives the shape of ``x``; neither changes the state dict. How close a network comes back to
    ``x`` is a matter of its training and is not checked.

    Raises:
        ContractError: If one of these fails.
    """
    before = state_of(model)
    with left_as_found(model), torch.no_grad():
        trained = seeded(model.train(), x)
        out = seeded(model.eval(), x)
        require_equal(model, "forward in train() and eval()", trained, out)
        with record_wic(model):
            recorded = seeded(model, x)
        require_equal(model, "forward with and without record_wic", out, recorded)
        back = model.inverse(out)  # type: ignore[operator]
    if back.shape != x.shape:
        raise ContractError(
            f"{type(model).__name__}: expected inverse(forward(x)) of x's shape {tuple(x.shape)}; "
            f"got {tuple(back.shape)}."
        )
    require_state(model, before, state_of(model))


def log_volume_numerical(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    r"""Returns the log-volume of a map at x from its Jacobian by autograd, in nats per sample.

    .. math:: \tfrac12 \log\det J^\top J \quad\text{(or } J J^\top \text{ where J is wide)}

    from the singular values of J. It is slow, and there to test what is computed otherwise.

    Args:
        function: A layer, or any function of a batch whose samples do not depend on each other.
        x: Input, shape (B, C, \*spatial).

    Returns:
        Shape (B,).

    Example:
        >>> from wic_layers import WIC
        >>> layer = WIC(3, 5, dtype=torch.float64)
        >>> x = torch.rand(1, 3, 2, 2, dtype=torch.float64)
        >>> torch.allclose(log_volume_numerical(layer, x), 4 * layer.log_volume())
        True
    """
    volumes = []
    for sample in x.detach().split(1):
        jacobian = torch.autograd.functional.jacobian(function, sample)
        volumes.append(torch.linalg.svdvals(jacobian.reshape(-1, sample.numel())).log().sum())
    return torch.stack(volumes)
