"""A WIC where a network drew z: the picture stays, and the way back needs nothing else."""

import copy

import pytest
import torch
from cases import shaken
from torch import nn

from wic_layers import WellPosed, det_loss, record_wic, shift_loss
from wic_layers.blocks import AffineCoupling, Chain, Haar, LearnedSqueeze, Squeeze
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.errors import WICArgumentError, WICShapeError
from wic_layers.hosts import load_optimizer_state

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def small(c_in, c_out):
    return DenseBlock(c_in, c_out, growth=4)


class IRN(nn.Module):
    """The interface of IRN's network: operations by position, LR and z in one tensor."""

    def __init__(self, couplings=2):
        super().__init__()
        blocks = [AffineCoupling(12, split=3, subnet=small) for _ in range(couplings)]
        self.operations = nn.ModuleList([Haar(), *blocks])

    def forward(self, x, rev=False):
        for operation in reversed(self.operations) if rev else self.operations:
            x = operation.forward(x, rev)
        return x


def test_the_picture_does_not_change_and_the_way_back_is_that_of_z_at_zero():
    irn = shaken(IRN())
    net = WellPosed(irn, in_channels=12, out_channels=3)
    x = torch.rand(2, 3, 8, 8)
    lr = net(x)
    assert torch.equal(lr, irn(x)[:, :3])
    assert torch.equal(net(lr, rev=True), net(lr, rev=True))
    zeros = torch.zeros(2, 9, 4, 4)
    torch.testing.assert_close(
        net(lr, rev=True), irn(torch.cat((lr, zeros), 1), rev=True), **CLOSE
    )
    assert torch.equal(net.inverse(lr), net(lr, True))


def test_keys_are_the_networks_own_under_a_prefix():
    irn = IRN()
    net = WellPosed(irn, 12, 3)
    assert set(net.state_dict()) == {f"net.{key}" for key in irn.state_dict()} | {"wic.weight"}
    net.net.load_state_dict(IRN().state_dict())


def test_it_trains_with_both_losses():
    net = WellPosed(IRN(), 12, 3)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    x, target = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 4, 4)
    losses = []
    for _ in range(12):
        with record_wic(net) as records:
            y = net(x)
        loss = (net(y, rev=True) - x).square().mean() + (y - target).square().mean()
        total = loss + 1e-3 * det_loss(net) + 1e-4 * shift_loss(records, target)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert records.names == ("wic",)
    assert losses[-1] < losses[0]
    assert not torch.equal(net.wic.weight, torch.eye(12))
    torch.testing.assert_close(net(net(y, rev=True)), y, atol=1e-4, rtol=1e-4)


def test_another_completion_and_dtype():
    net = WellPosed(IRN().double(), 12, 3, completion="repeat")
    assert net.wic.weight.dtype == torch.float64
    y = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(net(net(y, rev=True)), y)


def test_a_chain_of_this_library_is_a_network_too():
    net = WellPosed(Chain(Squeeze(2), AffineCoupling(12, subnet=small)), 12, 3)
    assert net(torch.rand(1, 3, 4, 4)).shape == (1, 3, 2, 2)


class Nothing(nn.Module):
    def forward(self, x, rev=False):
        return None


WRONG = {
    "no rev": (lambda: WellPosed(nn.Conv2d(3, 3, 1), 3, 1), "runs both ways.*got Conv2d"),
    "no module": (lambda: WellPosed(lambda x, rev: x, 3, 1), "Expected a network"),
    "no channels dropped": (lambda: WellPosed(IRN(), 12, 12), "Expected fewer out_channels"),
    "no tensor": (
        lambda: WellPosed(Nothing(), 3, 1)(torch.ones(1, 3, 2, 2)),
        "Nothing to return one tensor with 3 channels.*got a NoneType without tensors",
    ),
    "another number of channels": (
        lambda: WellPosed(IRN(), 48, 3)(torch.ones(1, 3, 4, 4)),
        r"^wic: WIC\(48, 3.*\(B, 48, \*spatial\).*got \(1, 12, 2, 2\)",
    ),
    "a picture of another width": (
        lambda: WellPosed(IRN(), 12, 3)(torch.ones(1, 4, 4, 4), rev=True),
        r"^wic: .*\(B, 3, \*spatial\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_networks(name):
    call, message = WRONG[name]
    with pytest.raises((WICArgumentError, WICShapeError), match=message):
        call()


def test_compiled():
    net = WellPosed(shaken(IRN()), 12, 3)
    x = torch.rand(1, 3, 8, 8)
    forward = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(forward(x), net(x))


def test_a_state_dict_is_told_from_one_of_the_network_alone():
    """Also where the network's only key is the one that the WIC has."""
    net = WellPosed(LearnedSqueeze(2), 12, 3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    net.load_state_dict(net.state_dict())
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key])
    alone = LearnedSqueeze(2)
    net.load_state_dict(alone.state_dict())
    assert torch.equal(net.net.wic.weight, alone.wic.weight)
    assert torch.equal(net.wic.weight, state["wic.weight"])


def test_the_device_is_the_networks_in_any_precision():
    net = WellPosed(IRN().bfloat16().to("meta"), 12, 3, completion="learned")
    assert {parameter.device.type for parameter in net.parameters()} == {"meta"}
    assert net.wic.weight.dtype == torch.float32


def test_the_rest_is_loaded_where_a_key_is_missing():
    irn, net = shaken(IRN()), WellPosed(IRN(), 12, 3)
    state = irn.state_dict()
    missing = "operations.1.F.conv1.weight"
    assert missing in state
    before = {key: value.clone() for key, value in net.state_dict().items()}
    del state[missing]
    report = net.load_state_dict(state, strict=False)
    assert report.missing_keys == [f"net.{missing}"]
    assert not report.unexpected_keys
    for key, value in net.state_dict().items():
        own = key.removeprefix("net.")
        expected = before[key] if own in (missing, "wic.weight") else state[own]
        assert torch.equal(value, expected), key
    with pytest.raises(RuntimeError, match=f'Missing key.*"net.{missing}"'):
        net.load_state_dict(state)


def test_a_network_with_a_part_called_net():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.gain = IRN(), nn.Parameter(torch.rand(()))
            self.net.gain = nn.Parameter(torch.rand(()))  # net.gain: theirs, and ours of gain

        def forward(self, x, rev=False):
            return self.net(x, rev)

    bare, closed = shaken(Outer()), WellPosed(shaken(Outer()), 12, 3)
    other = WellPosed(Outer(), 12, 3)
    for state, expected in ((bare.state_dict(), bare), (closed.state_dict(), closed.net)):
        other.load_state_dict(state)
        for key, value in expected.state_dict().items():
            assert torch.equal(other.net.state_dict()[key], value)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["net.operations.1.F.conv1.weight", "wic.weight"])
def test_weights_that_are_not_finite_are_refused(wrong, key):
    net = WellPosed(IRN(), 12, 3)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    state[key].view(-1)[1] = wrong
    with pytest.raises(RuntimeError, match=f"1 of [0-9]+ numbers of {key} are NaN or infinite"):
        net.load_state_dict(state)
    if key != "wic.weight":
        bare = {name.removeprefix("net."): v for name, v in state.items() if "wic" not in name}
        with pytest.raises(RuntimeError, match=f"numbers of {key} are NaN"):
            net.load_state_dict(bare)


def trained(net, optimizer, steps=3):
    torch.manual_seed(1)
    for _ in range(steps):
        x = torch.rand(2, 3, 8, 8).to(next(net.parameters()))
        y = net(x)
        y = y if y.shape[1] == 3 else torch.cat((y[:, :3], torch.zeros_like(y[:, 3:])), 1)
        loss = (net(y, rev=True) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


@pytest.mark.parametrize("kind", ["Adam", "SGD", "RMSprop"])
def test_training_goes_on_from_before_it_was_closed(kind):
    """With the kernel kept where it is, the next steps are those of the bare network."""
    options = {"lr": 1e-3} | ({"momentum": 0.9} if kind == "SGD" else {})
    build = getattr(torch.optim, kind)
    bare = shaken(IRN()).double()
    optimizer = build(bare.parameters(), **options)
    trained(bare, optimizer)
    state = copy.deepcopy(optimizer.state_dict())
    net = WellPosed(IRN().double(), 12, 3)
    net.load_state_dict(bare.state_dict())
    closed_optimizer = build(net.parameters(), **{**options, "lr": 1.0})
    load_optimizer_state(closed_optimizer, state)
    assert closed_optimizer.param_groups[0]["lr"] == 1e-3
    trained(bare, optimizer)
    net.wic.requires_grad_(False)
    trained(net, closed_optimizer)
    for key, value in bare.state_dict().items():
        torch.testing.assert_close(net.net.state_dict()[key], value, **CLOSE)
    # and from after it, the kernel's moments too
    net.wic.requires_grad_(True)
    trained(net, closed_optimizer)
    again = build(net.parameters(), **options)
    load_optimizer_state(again, closed_optimizer.state_dict())
    for mine, theirs in zip(again.state.values(), closed_optimizer.state.values(), strict=True):
        for name, value in theirs.items():
            assert torch.equal(torch.as_tensor(mine[name]), torch.as_tensor(value))


def moments(shapes, groups):
    """The state of an optimizer after a step with gradients 1, 2, 3, ...; and its parameters."""
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    optimizer = torch.optim.Adam([{"params": [parameters[i] for i in group]} for group in groups])
    for number, parameter in enumerate(parameters, start=1):
        parameter.grad = torch.full_like(parameter, number)
    optimizer.step()
    return optimizer.state_dict()


def numbers(optimizer):
    return [
        [round(float(optimizer.state[p]["exp_avg"].mean()) * 10) if p in optimizer.state else None
         for p in group["params"]]
        for group in optimizer.param_groups
    ]  # fmt: skip


def fresh(shapes, groups):
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    return torch.optim.Adam([{"params": [parameters[i] for i in group]} for group in groups])


def test_the_kernel_has_its_place_in_every_group():
    state = moments([(3, 2), (3,)], [[0], [], [1]])
    optimizer = fresh([(3, 2), (5, 5), (3,)], [[0], [1], [2]])  # IICNet: a group for each part
    load_optimizer_state(optimizer, state)
    assert numbers(optimizer) == [[1], [None], [2]]
    optimizer = fresh([(5, 5), (3, 2), (3,)], [[0, 1], [], [2]])  # in front
    load_optimizer_state(optimizer, state)
    assert numbers(optimizer) == [[None, 1], [], [2]]
    optimizer = fresh([(3, 2), (3,), (5, 5)], [[0], [], [1], [2]])  # a group of its own
    load_optimizer_state(optimizer, state)
    assert numbers(optimizer) == [[1], [], [2], [None]]


def test_another_optimizers_state_is_refused():
    state = moments([(3, 2), (3,)], [[0, 1]])
    for shapes, groups in (([(3, 2)], [[0]]), ([(3,), (3, 2)], [[0, 1]])):
        with pytest.raises(WICArgumentError, match=r"parameters of group 0.*around the closed"):
            load_optimizer_state(fresh(shapes, groups), state)
    with pytest.raises(WICArgumentError, match=r"at most 1 groups.*got 2"):
        load_optimizer_state(fresh([(3, 2), (3,)], [[0, 1]]), moments([(3, 2), (3,)], [[0], [1]]))


def test_an_optimizer_that_names_its_parameters():
    bare, net = IRN(), WellPosed(IRN(), 12, 3)
    state = torch.optim.Adam(bare.named_parameters(), lr=0.5).state_dict()
    for parameters in (net.named_parameters(), net.parameters()):
        optimizer = torch.optim.Adam(parameters)
        load_optimizer_state(optimizer, state)
        assert optimizer.param_groups[0]["lr"] == 0.5
