"""The layer, its losses, its algebra, blocks, and the modules for other people's models."""

import torch
from torch import nn

from behaviours.keeping import ROUNDING, TEXT, state_of
from behaviours.names import at
from behaviours.pictures import shaken

WICS = {
    "square": (12, 12, {}),
    "square, orthogonal": (6, 6, {"parametrization": "orthogonal"}),
    "square, lu": (6, 6, {"parametrization": "lu"}),
    "square, fixed": (6, 6, {"parametrization": "fixed"}),
    "one channel": (1, 1, {}),
    "wider": (3, 12, {}),
    "wider, orthogonal": (3, 12, {"parametrization": "orthogonal"}),
    "wider, lu": (3, 8, {"parametrization": "lu"}),
    "wider, published": (3, 8, {"layout": "published"}),
    "narrower": (12, 3, {}),
    "narrower, zero": (12, 3, {"completion": "zero"}),
    "narrower, repeat": (11, 3, {"completion": "repeat"}),
    "narrower, shift": (11, 3, {"completion": "shift"}),
    "narrower, many shifts": (40, 1, {"completion": "shift"}),
    "narrower, learned": (12, 3, {"completion": "learned"}),
    "narrower, gaussian": (12, 3, {"completion": "gaussian"}),
    "narrower, callable": (6, 3, {"completion": torch.tanh}),
    "narrower, rows m": (7, 3, {"rows": "m"}),
    "narrower, rows above n": (7, 3, {"rows": 10}),
    "narrower, rows above n, shift": (7, 5, {"rows": 9, "completion": "shift"}),
    "narrower, orthogonal": (12, 3, {"parametrization": "orthogonal"}),
    "narrower, lu": (12, 3, {"parametrization": "lu", "completion": "repeat"}),
    "narrower, fixed": (12, 3, {"parametrization": "fixed"}),
    "narrower, published": (12, 3, {"layout": "published"}),
    "narrower, published, more rows": (7, 3, {"layout": "published"}),
    "narrower, published, zero": (7, 3, {"layout": "published", "completion": "zero"}),
    "double": (7, 3, {"dtype": torch.float64}),
    "half": (7, 3, {"dtype": torch.bfloat16}),
}


def small(inputs, outputs):
    return at("DenseBlock")(inputs, outputs, growth=4)


def run(run):
    for name, (inputs, outputs, options) in WICS.items():
        _layer(run, name, inputs, outputs, options)
    _more_of_layers(run)
    _algebra(run)
    _blocks(run)
    for part in (_freia, _normflows, _well_posed, _swapped):
        part(run)
    shell_of_selftest(run)


def _layer(run, name, inputs, outputs, options):
    from wic_layers import WIC, det_loss, record_wic, shift_loss
    from wic_layers.functional import condition_number

    with run.case(f"WIC, {name}"):
        layer = WIC(inputs, outputs, **options)
        dtype = options.get("dtype", torch.float32)
        within = ROUNDING if dtype != torch.bfloat16 else 0.0
        run.keep("state", state_of(layer))
        run.keep("start", dict(layer.state_dict()))
        run.keep("repr", repr(layer), TEXT)
        run.keep("known", [layer.in_channels, layer.out_channels, layer.rows, layer.bijective])
        planes = (
            [(4, 3)] if "learned" in name or "published" in name else [(), (5,), (4, 3), (2, 1, 3)]
        )
        for sizes in planes:
            x = torch.randn(2, inputs, *sizes, dtype=dtype, requires_grad=True)
            y = torch.randn(2, outputs, *sizes, dtype=dtype, requires_grad=True)
            for mode in (True, False):
                layer.train(mode)
                layer.zero_grad()
                torch.manual_seed(1)
                with record_wic(layer) as records:
                    there = layer(x)
                back = layer.inverse(y)
                numbers = {"there": there, "back": back, "rev": layer(y, rev=True)}
                if options.get("parametrization") != "fixed":
                    total = there.square().sum() + back.square().sum() + det_loss(layer)
                    total = total + shift_loss(records) if len(records) else total
                    total.backward()
                    numbers["loss"] = total
                    numbers["gradients"] = [p.grad for p in layer.parameters()]
                    numbers["of the input"] = [x.grad, y.grad]
                    x.grad = y.grad = None
                with torch.no_grad():
                    torch.manual_seed(1)
                    numbers["cached"] = [layer.inverse(y), layer.inverse(y)]
                run.keep(f"{len(sizes)}d, {'train' if mode else 'eval'}", numbers, within)
        with torch.no_grad():
            run.keep("log volume", layer.log_volume(), within)
            run.keep("gram", layer.gram_logdet(), within)
            run.keep("condition", condition_number(layer.weight.double()), ROUNDING)
            try:
                run.keep("with log det", list(layer.with_log_det(x, log_det="volume")), within)
            except ValueError as error:
                run.keep("with log det", type(error).__name__)


def _more_of_layers(run):
    from wic_layers import WIC, charbonnier, quantize, record_wic, shift_loss
    from wic_layers.testing import check

    with run.case("WIC from a kernel"):
        kernel = torch.randn(7, 5)
        for options in ({}, {"out_channels": 3}, {"parametrization": "lu"}):
            if options.get("parametrization"):
                kernel = torch.randn(5, 5)
            layer = WIC.from_kernel(kernel, **options)
            run.keep(f"state {options}", state_of(layer))
            run.keep(f"numbers {options}", dict(layer.state_dict()), ROUNDING)
    with run.case("losses by name"):
        model = nn.Sequential(WIC(12, 5), WIC(5, 3, completion="repeat"), WIC(3, 1))
        with record_wic(model) as records:
            y = model(torch.randn(2, 12, 4, 4))
        run.keep("names", list(records.names))
        target = {
            name: torch.zeros_like(r.output)
            for name, r in zip(records.names, records, strict=True)
        }
        run.keep("loss", [shift_loss(records), shift_loss(records, target)], ROUNDING)
        run.keep("result", y, ROUNDING)
        run.keep("charbonnier", charbonnier(y, y + 1), ROUNDING)
        run.keep("quantized", quantize(y))
    with run.case("checked"):
        for name in ("square", "wider", "narrower, shift", "narrower, rows above n"):
            inputs, outputs, options = WICS[name]
            found = check(WIC(inputs, outputs, **options))
            run.keep(name, [[key, trip.condition] for key, trip in found.items()], ROUNDING)
    with run.case("autocast"):
        layer = WIC(12, 3, completion="repeat")
        x = torch.randn(1, 12, 4, 4)
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
            run.keep("numbers", [y, layer.inverse(y)], ROUNDING)


def _algebra(run):
    from wic_layers import functional

    kernels = {
        "square": torch.randn(5, 5),
        "tall": torch.randn(2, 7, 3),
        "wide": torch.randn(3, 7),
    }
    for name, kernel in kernels.items():
        with run.case(f"algebra, {name}"):
            for function in sorted(functional.__all__):
                more = (3,) if function == "constrained_inverse" else ()
                try:
                    value = getattr(functional, function)(kernel, *more)
                except ValueError as error:
                    value = type(error).__name__
                run.keep(function, value, ROUNDING)


def _blocks(run):
    from wic_layers import WIC, blocks

    cases = {
        "squeeze": (lambda: blocks.Squeeze(2), (2, 3, 4, 6)),
        "squeeze by 3": (lambda: blocks.Squeeze(3), (2, 1, 9, 3)),
        "squeeze in groups": (lambda: blocks.Squeeze(2, 2), (2, 6, 4, 2)),
        "unsqueeze": (lambda: blocks.Unsqueeze(2), (2, 8, 3, 5)),
        "haar": (blocks.Haar, (2, 3, 4, 6)),
        "haar of two images": (lambda: blocks.Haar(2), (2, 6, 2, 4)),
        "haar, mean": (lambda: blocks.Haar(mean=True), (2, 3, 2, 4)),
        "learned squeeze": (lambda: blocks.LearnedSqueeze(3), (2, 2, 3, 6)),
        "inverse haar": (lambda: blocks.InverseHaar(2), (2, 8, 3, 1)),
        "latent": (lambda: blocks.Latent(2), (2, 3, 4, 5)),
        "mean of channels": (lambda: blocks.ChannelMean(3), (2, 9, 4, 4)),
        "coupling": (lambda: blocks.AffineCoupling(7, subnet=small), (2, 7, 3, 5)),
        "coupling, usual": (lambda: blocks.AffineCoupling(12), (1, 12, 6, 4)),
        "coupling, split": (
            lambda: blocks.AffineCoupling(7, split=1, clamp=2.0, subnet=small), (2, 7, 1, 1)
        ),
        "memory": (
            lambda: blocks.LongTermMemory(2, blocks.AffineCoupling(4, subnet=small)), (2, 6, 4, 4)
        ),
        "chain": (lambda: blocks.Chain(blocks.Squeeze(2), WIC(12, 16)), (2, 3, 4, 6)),
        "nested": (
            lambda: blocks.Chain(
                blocks.Chain(blocks.Haar(), WIC(12, 13)),
                blocks.LongTermMemory(
                    5, blocks.Chain(blocks.AffineCoupling(8, subnet=small), WIC(8, 9))
                ),
            ),
            (2, 3, 4, 6),
        ),
    }  # fmt: skip
    for name, (make, shape) in cases.items():
        with run.case(f"block, {name}"):
            block = shaken(make(), 0.1)
            run.keep("state", state_of(block))
            run.keep("repr", repr(block), TEXT)
            x = torch.randn(shape, requires_grad=True)
            y = block(x)
            back = block(y, rev=True)
            (y.square().sum() + back.square().sum()).backward()
            gradients = [p.grad for p in block.parameters()]
            run.keep("numbers", [y, back, x.grad, *gradients], ROUNDING)


def _freia(run):
    import FrEIA.framework as framework
    import FrEIA.modules as modules

    from wic_layers import freia

    with run.case("FrEIA graph"):
        source = framework.InputNode(12, 8, 8)
        condition = framework.ConditionNode(2, 8, 8)
        wide = framework.Node(source, freia.WIC, {"out_channels": 16})
        turn = {"M": torch.linalg.qr(torch.randn(16, 16))[0]}
        turned = framework.Node(wide, modules.Fixed1x1Conv, turn)
        coupled = framework.Node(
            turned, freia.Coupling, {"subnet_constructor": small}, conditions=condition
        )
        narrow = framework.Node(coupled, freia.WIC, {"out_channels": 3, "completion": "shift"})
        end = framework.OutputNode(narrow)
        graph = framework.GraphINN([source, condition, wide, turned, coupled, narrow, end])
        shaken(graph)
        run.keep("state", state_of(graph))
        x, c = torch.randn(2, 12, 8, 8), torch.randn(2, 2, 8, 8)
        with torch.no_grad():
            y, log_det = graph(x, c=c)
            back, log_det_back = graph(y, c=c, rev=True)
        run.keep("numbers", [y, log_det, back, log_det_back], ROUNDING)
        run.keep("dims", [list(node.output_dims) for node in graph.node_list])
    with run.case("FrEIA sequence"):
        sequence = framework.SequenceINN(3, 8, 8)
        sequence.append(modules.HaarDownsampling)
        sequence.append(freia.WIC, out_channels=16)
        sequence.append(freia.Coupling, subnet_constructor=small)
        sequence.append(freia.WIC, out_channels=16, parametrization="lu")
        shaken(sequence)
        run.keep("state", state_of(sequence))
        x = torch.randn(2, 3, 8, 8, requires_grad=True)
        y, log_det = sequence(x)
        (y.square().sum()).backward()
        run.keep("numbers", [y, log_det, x.grad, *sequence(y, rev=True)], ROUNDING)


def _normflows(run):
    import normflows as nf

    from wic_layers.normflows import WIC

    cases = {
        "square": {"in_channels": 4, "out_channels": 4},
        "square, lu": {"in_channels": 4, "out_channels": 4, "parametrization": "lu"},
        "narrower": {"in_channels": 7, "out_channels": 3},
        "narrower, volume": {
            "in_channels": 7, "out_channels": 3, "rows": "n", "completion": "repeat",
            "log_det": "volume",
        },
        "wider, volume": {"in_channels": 3, "out_channels": 5, "log_det": "volume"},
    }  # fmt: skip
    for name, options in cases.items():
        with run.case(f"normflows, {name}"):
            flow = WIC(**options)
            run.keep("state", state_of(flow))
            run.keep("repr", repr(flow), TEXT)
            x = torch.randn(2, options["in_channels"], 4, 4)
            z, log_det = flow.inverse(x)
            run.keep("numbers", [z, log_det, *flow(z)], ROUNDING)
    with run.case("normflows, a model"):
        flows = [nf.flows.GlowBlock(12, 16), WIC(in_channels=12, out_channels=12)]
        model = nf.NormalizingFlow(nf.distributions.DiagGaussian((12, 8, 8)), flows)
        x = torch.randn(4, 12, 8, 8)
        run.keep("log_prob", model.log_prob(x), ROUNDING)
        run.keep("state", state_of(model))
        model.forward_kld(x).backward()
        run.keep("gradient", flows[1].conv.weight.grad, ROUNDING)


def _well_posed(run):
    from wic_layers import WIC, WellPosed, blocks, det_loss, record_wic, shift_loss

    for completion in ("zero", "shift", "learned"):
        with run.case(f"WellPosed, {completion}"):
            inner = blocks.Chain(blocks.Squeeze(2), blocks.AffineCoupling(12, subnet=small))
            net = WellPosed(inner, 12, 3, completion=completion)
            run.keep("state", state_of(net))
            run.keep("start", dict(net.wic.state_dict()))
            shaken(net)
            x = torch.rand(1, 3, 8, 8)
            with record_wic(net) as records:
                y = net(x)
            back = net(y, rev=True)
            loss = (back - x).square().sum() + det_loss(net) + shift_loss(records)
            loss.backward()
            run.keep("numbers", [y, back, loss, *(p.grad for p in net.parameters())], ROUNDING)
            net.load_state_dict(inner.state_dict())  # of the network alone
            net.net = blocks.Chain(WIC(3, 3), inner)
            run.keep("state, another network", state_of(net))


class InvertibleConv1x1(nn.Module):
    """As IICNet's code has it."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])

    def forward(self, x, rev=False):
        weight = self.weight.inverse() if rev else self.weight
        return nn.functional.conv2d(x, weight[..., None, None])


class Turn(nn.Module):
    """Somebody's own."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 3))

    def forward(self, x, rev=False):
        return torch.einsum("ij,bjhw->bihw", self.w.inverse() if rev else self.w, x)


def _swapped(run):
    import FrEIA.framework as framework
    import FrEIA.modules as modules
    import normflows as nf

    from wic_layers import swap_1x1

    def keep(report, model):
        run.keep("names", [list(swap.names) for swap in report])
        run.keep("report", str(report), TEXT)
        run.keep("new parameters", len(report.new_parameters))
        run.keep("state", state_of(model))

    for use_lu in (True, False):
        with run.case(f"swap, normflows, {'lu' if use_lu else 'free'}"):
            flows = [nf.flows.GlowBlock(6, 8, use_lu=use_lu) for _ in range(2)]
            model = nf.NormalizingFlow(nf.distributions.DiagGaussian((6, 4, 4)), flows)
            x = torch.randn(4, 6, 4, 4)
            model.forward_kld(x)  # what normalises starts by its first batch
            keep(swap_1x1(model), model)
            z = model.inverse(x)
            run.keep("numbers", [model.log_prob(x), z, model.forward(z)], ROUNDING)
    with run.case("swap, FrEIA"):
        sequence = framework.SequenceINN(6, 4, 4)
        sequence.append(modules.Fixed1x1Conv, M=torch.linalg.qr(torch.randn(6, 6))[0])
        keep(swap_1x1(sequence), sequence)
        y, log_det = sequence(torch.randn(2, 6, 4, 4))
        run.keep("numbers", [y, log_det, *sequence(y, rev=True)], ROUNDING)
    with run.case("swap, IICNet's and one's own"):
        at("register_1x1")(Turn, lambda layer: layer.w)
        model = nn.ModuleList([InvertibleConv1x1(3), Turn()])
        keep(swap_1x1(model), model)
        y = torch.randn(1, 3, 4, 4)
        run.keep("numbers", [f(y, rev=rev) for f in model for rev in (False, True)], ROUNDING)


def shell_of_selftest(run):
    """``wic selftest``; its figures are errors of rounding."""
    from behaviours.keeping import Shell

    Shell(run, run.place("selftest"))("selftest", "selftest")
