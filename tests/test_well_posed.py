"""A WIC where a network drew z: the picture stays, and the way back needs nothing else."""

import pytest
import torch
from cases import shaken
from torch import nn

from wic_layers import WellPosed, det_loss, record_wic, shift_loss
from wic_layers.blocks import AffineCoupling, Chain, Haar, LearnedSqueeze, Squeeze
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.errors import WICArgumentError, WICShapeError

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


class Pair(nn.Module):
    def forward(self, x, rev=False):
        return x, torch.zeros(())


WRONG = {
    "no rev": (lambda: WellPosed(nn.Conv2d(3, 3, 1), 3, 1), "whose forward takes rev.*Conv2d"),
    "no module": (lambda: WellPosed(lambda x, rev: x, 3, 1), "whose forward takes rev"),
    "no channels dropped": (lambda: WellPosed(IRN(), 12, 12), "Expected fewer out_channels"),
    "a pair": (
        lambda: WellPosed(Pair(), 3, 1)(torch.ones(1, 3, 2, 2)),
        "Pair to return one tensor; got tuple",
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
