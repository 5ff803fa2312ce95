"""Networks: every preset, every family in both directions, its costs, its losses."""

import torch

from behaviours.keeping import ROUNDING, TEXT, digest, state_of
from behaviours.names import at, preset
from behaviours.pictures import shaken


def families():
    """Small networks of every kind, with the shape of an input."""
    from wic_layers.models import (
        DLVIRN,
        IRN,
        WIN,
        DLVHCFlow,
        DLVHiNet,
        HCFlow,
        HiNet,
        IICNet,
        WINNaive,
    )

    tiny = {"couplings": 1, "growth": 4}
    flow = {"steps": 1, "growth": 2, "conditional_steps": 1, "width": 4, "depth": 1}
    return {
        "WIN": (lambda: WIN(2, 1, width=16, **tiny), (2, 2, 6, 8)),
        "WIN, published": (lambda: WIN(2, 1, width=16, layout="published", **tiny), (2, 2, 6, 8)),
        "WIN x2": (lambda: WIN(3, 3, scale=2, width=16, completion="zero", **tiny), (1, 3, 6, 4)),
        "WIN x4": (
            lambda: WIN(1, 1, scale=4, width=8, modules=1, copies=2, **tiny), (2, 1, 8, 12)
        ),
        "WINNaive": (lambda: WINNaive(2, 1, completion="repeat", **tiny), (2, 2, 4, 4)),
        "WINNaive, haar": (lambda: WINNaive(6, 3, haar=True, **tiny), (1, 6, 8, 8)),
        "WINNaive x2": (lambda: WINNaive(3, 3, scale=2, completion="shift", **tiny), (1, 3, 4, 6)),
        "WINNaive x4": (lambda: WINNaive(1, 1, scale=4, copies=4, **tiny), (1, 1, 8, 4)),
        "IRN": (lambda: IRN(scale=2, **tiny), (1, 3, 4, 6)),
        "IRN x3": (lambda: IRN(1, 1, scale=3, **tiny), (2, 1, 6, 3)),
        "IRN x4, z": (lambda: IRN(scale=4, random_z=True, **tiny), (1, 3, 8, 8)),
        "IRN grey": (lambda: IRN(3, 1, scale=1, **tiny), (1, 3, 2, 4)),
        "HiNet": (lambda: HiNet(2, 1, **tiny), (2, 2, 4, 6)),
        "HiNet, z": (lambda: HiNet(random_z=True, **tiny), (1, 6, 4, 6)),
        "IICNet": (lambda: IICNet(6, 3, features=2, **tiny), (2, 6, 3, 5)),
        "IICNet, squeeze": (lambda: IICNet(6, 3, channel_squeeze=True, **tiny), (1, 6, 4, 4)),
        "IICNet x2": (
            lambda: IICNet(9, 3, scale=2, features=2, order="images", **tiny), (1, 9, 4, 6)
        ),
        "IICNet grey": (lambda: IICNet(3, 1, features=0, **tiny), (1, 3, 4, 3)),
        "DLVIRN": (lambda: DLVIRN(**tiny), (2, 3, 12, 16)),
        "DLVIRN, zero": (lambda: DLVIRN(scale=4, z="zero", **tiny), (1, 3, 16, 24)),
        "DLVHiNet": (lambda: DLVHiNet(**tiny), (2, 6, 8, 12)),
        "HCFlow": (lambda: HCFlow(**flow), (1, 3, 16, 24)),
        "HCFlow, drawn": (lambda: HCFlow(z="drawn", **flow), (1, 3, 8, 8)),
        "DLVHCFlow": (lambda: DLVHCFlow(**flow), (1, 3, 16, 16)),
    }  # fmt: skip


def run(run):
    _presets(run)
    for name, (make, shape) in families().items():
        _family(run, name, make, shape)


def _presets(run):
    from torch.nn.modules.conv import _ConvNd

    from behaviours.names import DERIVED_PRESETS
    from wic_layers.models import PRESETS

    with run.case("presets"):
        run.keep("names", sorted([*PRESETS, *DERIVED_PRESETS]), TEXT)
    start, _ConvNd.reset_parameters = _ConvNd.reset_parameters, lambda self: None  # saves time
    try:
        for name in sorted({*PRESETS, *DERIVED_PRESETS}):
            with run.case(f"preset {name}"):
                network = preset(name)
                rows = state_of(network)
                parameters = sum(each.numel() for each in network.parameters())
                entry = PRESETS[DERIVED_PRESETS.get(name, (name,))[0]]
                run.keep("network", [type(network).__name__, network.task, network.config])
                run.keep("recipe", dict(entry.recipe))
                run.keep("parameters", parameters)
                # a list of all keys would fill the record
                run.keep("state", [len(rows), rows[0], rows[-1], digest(rows)])
    finally:
        _ConvNd.reset_parameters = start


def _family(run, name, make, shape):
    from wic_layers import det_loss, record_wic, shift_loss
    from wic_layers.models import inspect

    with run.case(name):
        network = make()
        run.keep("state", state_of(network))
        run.keep(
            "start", digest([list(network.state_dict()), list(network.state_dict().values())])
        )
        run.keep("config", network.config)
        shaken(network, 0.05)
        run.keep("repr", repr(network), TEXT)
        found = inspect(network)
        run.keep("parameters, field", [found.parameters, found.receptive_field])
        run.keep("operations", list(found.flops), ROUNDING)
        run.keep("conditions", found.conditions, ROUNDING)
        for saves in (False, True):
            at("save_memory")(network, enabled=saves)
            network.train().zero_grad()
            torch.manual_seed(1)
            x = torch.rand(shape, requires_grad=True)
            with record_wic(network) as records:
                y = network(x)
            back = network.inverse(y)
            loss = (back - x).square().sum() + y.square().sum()
            if "squeeze" not in name:  # that has no WIC
                loss = loss + det_loss(network)
            if len(records):
                loss = loss + shift_loss(records)
            loss.backward()
            run.keep("records" if not saves else "records, saving memory", list(records.names))
            numbers = [y, back, loss, x.grad, *(p.grad for p in network.parameters())]
            # inverses are computed again, and round otherwise
            within = 1e-3 if saves else ROUNDING
            run.keep("numbers" if not saves else "numbers, saving memory", numbers, within)
        at("save_memory")(network, enabled=False)
        network.eval()
        with torch.no_grad():
            torch.manual_seed(1)
            y = network(x)
            run.keep("without gradients", [y, network.inverse(y)], ROUNDING)
            network.optimize(torch.bfloat16)
            torch.manual_seed(1)
            run.keep("in bfloat16", [network(x), network.inverse(y)], ROUNDING)
