"""WellPosed around every kind of interface: ``tests/standins/networks.py``."""

import copy
import warnings

import pytest
import torch
from standins import networks
from standins.networks import NETWORKS

from wic_layers import WellPosed
from wic_layers.blocks import Chain
from wic_layers.deploy import fuse
from wic_layers.errors import WICArgumentError, WICWarning
from wic_layers.models.inspection import flow
from wic_layers.testing import check

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def flat(x):
    return torch.cat([flat(part) for part in x]) if isinstance(x, (list, tuple)) else x.flatten()


def closed(case):
    torch.manual_seed(0)
    net = case.build()
    return net, WellPosed(net, *case.channels, **case.said), case.inputs()


@pytest.mark.filterwarnings("ignore:.*and another one with")
@pytest.mark.parametrize("case", NETWORKS, ids=str)
class TestEveryKind:
    def test_the_picture_is_what_it_was(self, case):
        net, posed, inputs = closed(case)
        assert torch.equal(posed(*inputs, **case.options), case.there(net, *inputs)[:, :3])

    def test_the_way_back_needs_the_picture_alone(self, case):
        net, posed, inputs = closed(case)
        y = posed(*inputs, **case.options)
        zeros = y.new_zeros(2, case.channels[0] - 3, *y.shape[2:])
        expected = flat(case.back(net, torch.cat((y, zeros), 1)))
        calls = (
            lambda: posed.inverse(y, **case.options),
            lambda: posed(y, rev=True, **case.options),
            lambda: posed(y, **{case.flag: True}, **case.options),
            lambda: posed(y, rev=True, **case.options),
        )
        for call in calls:
            back = flat(call())
            torch.testing.assert_close(back, expected[: len(back)], **CLOSE)
        assert torch.equal(flat(calls[0]()), flat(calls[1]()))

    @pytest.mark.filterwarnings("ignore:.*got no gradient")
    def test_it_trains(self, case):
        _, posed, inputs = closed(case)
        optimizer = torch.optim.Adam(posed.parameters(), 1e-2)
        target = posed(*inputs, **case.options).detach() + 0.1
        losses = []
        for _ in range(4):
            y = posed(*inputs, **case.options)
            back = flat(posed(y, rev=True, **case.options))
            loss = (y - target).square().mean() + (back - flat(inputs)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]
        assert not torch.equal(posed.wic.weight, torch.eye(case.channels[0]))

    def test_state_dicts_of_both(self, case):
        net, posed, inputs = closed(case)
        other = WellPosed(case.build(), *case.channels, **case.said)
        other.load_state_dict(net.state_dict())
        first, again = (p(*inputs, **case.options) for p in (posed, other))
        assert torch.equal(first, again)
        third = WellPosed(case.build(), *case.channels, **case.said)
        third.load_state_dict(posed.state_dict())
        assert torch.equal(third(*inputs, **case.options), first)

    def test_copies(self, case):
        _, posed, inputs = closed(case)
        y = posed(*inputs, **case.options)
        assert torch.equal(copy.deepcopy(posed)(*inputs, **case.options), y)


SINGLE = [case for case in NETWORKS if not case.options and case.channels == (12, 3)]


@pytest.mark.parametrize("case", SINGLE, ids=str)
def test_inspected_and_fused(case):
    _, posed, (x,) = closed(case)
    steps = flow(Chain(posed), 3)
    assert [step.channels for step in steps][-1] == (12, 3)
    assert steps[-1].sizes[1] * 2 == 1
    y = posed(x).detach()
    torch.testing.assert_close(fuse(posed, "forward")(x), y, **CLOSE)
    torch.testing.assert_close(fuse(posed, "reverse")(y), posed.inverse(y).detach(), **CLOSE)


def test_attributes_of_the_network_are_at_hand():
    posed = WellPosed(networks.Enhancing(), 12, 3)
    assert posed.pre_enhance is posed.net.pre_enhance
    assert posed.scale == 2
    assert not any("pre_enhance" in key and "net." not in key for key in posed.state_dict())
    with pytest.raises(AttributeError, match="post_enhance"):
        _ = posed.post_enhance


def test_a_list_that_the_network_takes_back_is_asked_for():
    posed = WellPosed(networks.ListOfTwo(), 6, 3)
    with pytest.raises(WICArgumentError, match=r"takes on the way back.*split=\(3, 3\)"):
        posed([torch.rand(1, 3, 4, 4)] * 2)


def test_two_tensors_as_the_signature_says_and_no_others():
    class Three(networks.CoarseAndDetails):
        def forward(self, inpt):
            y = self._there(inpt)
            return y[:, :3], y[:, 3:6], y[:, 6:]

    with pytest.raises(WICArgumentError, match=r"split=\(3, 3, 6\)"):
        WellPosed(Three(), 12, 3)(torch.rand(1, 3, 4, 4))


def test_a_method_that_is_named():
    posed = WellPosed(Upscaling(), 12, 3, rev="upscale")
    x = torch.rand(1, 3, 4, 4)
    assert posed.inverse(posed(x)).shape == x.shape


def test_a_function_of_two_tensors():
    net = networks.CoarseAndDetails()
    posed = WellPosed(net, 12, 3, inverse=lambda net, a, b: net.inverse(a, b) + 1)
    x = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(
        posed.inverse(posed(x)), WellPosed(net, 12, 3).inverse(posed(x)) + 1
    )


def refused(net, *inputs, channels=(12, 3), **said):
    with pytest.raises(WICArgumentError) as caught:
        WellPosed(net, *channels, **said)(*inputs)
    return str(caught.value)


class Upscaling(networks.Base):
    def forward(self, x):
        return self._there(x)

    def upscale(self, y):
        return self._back(y)


def test_refusals_propose_the_argument():
    x = torch.rand(2, 3, 4, 4)
    assert "OddFlag with forward(x, undo)" in refused(networks.OddFlag())
    assert 'rev="undo"' in refused(networks.OddFlag())
    message = refused(networks.OddMethods())
    assert "no forward and the methods decode, encode" in message
    assert "rev=" not in message.partition("methods")[2]
    assert 'rev="upscale"' in refused(Upscaling())
    message = refused(networks.OneWay())
    assert "forward(x, scale, precalculated_lr) and the methods benchmark" in message
    assert "forward=lambda" in message
    assert "not 'backwards'" in refused(networks.OddFlag(), rev="backwards")
    assert "pick=" in refused(networks.InADict(), x)
    assert "pick='y'" in refused(networks.InADict(), x, pick="y")
    assert "12 channels together" in refused(networks.ListOfTwo(), split=(3, 3))
    assert "name of a method" in refused(networks.OddFlag(), inverse="none")
    assert "Expected rev=, or inverse=" in refused(networks.OddFlag(), forward="forward")
    assert "torch.nn.Module" in refused(torch.sin)


def test_what_no_kernel_can_close_is_named():
    x = torch.rand(2, 3, 4, 4)
    message = refused(networks.Bits(), [x, torch.rand(2, 64)], channels=(67, 3))
    assert "(2, 3, 4, 4), (2, 64)" in message
    assert "sizes differ" in message
    message = refused(networks.TwoSizes(), x)
    assert "sizes differ" in message
    assert "TwoSizes" in message


def test_the_picture_must_come_first():
    class Last(networks.CoarseAndDetails):
        def forward(self, inpt):
            return super().forward(inpt)[::-1]

    assert "the picture's 3 first" in refused(Last(), torch.rand(1, 3, 4, 4))


def test_a_tensor_and_others_that_are_as_many_together_leave_it_open():
    class Both(networks.Base):
        def forward(self, x, rev=False):
            y = self._there(x)
            return y, y[:, :3], y[:, 3:]

    assert "pick=" in refused(Both(), torch.rand(1, 3, 4, 4))
    assert WellPosed(Both(), 12, 3, pick=0)(torch.rand(1, 3, 4, 4)).shape == (1, 3, 2, 2)


def test_another_picture_beside_the_tensor_is_pointed_at():
    x = torch.rand(1, 3, 4, 4)
    with pytest.warns(WICWarning, match=r"WithPicture returns .* 12 .* another one with 3.*pick="):
        y = WellPosed(networks.WithPicture(), 12, 3)(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WellPosed(networks.WithPicture(), 12, 3, pick=0)(x)
        WellPosed(networks.Jacobian(), 12, 3)(x, cal_jacobian=True)
    assert y.shape == (1, 3, 2, 2)


@pytest.mark.skipif(not hasattr(Exception, "add_note"), reason="Python 3.11")
def test_a_way_back_that_fails_says_what_it_was_given():
    posed = WellPosed(networks.Predicting(), 12, 3)
    with pytest.raises((ValueError, RuntimeError)) as caught:
        posed(torch.rand(3, 3, 2, 2), rev=True)
    assert "Predicting was given x, rev" in caught.value.__notes__[0]
    assert "x of shape (3, 12, 2, 2)" in caught.value.__notes__[0]


def test_the_way_back_returns_as_many_numbers_as_go_in():
    class Less(networks.Base):
        def forward(self, x, rev=False):
            return [self._back(x)[:, :1]] * 2 if rev else self._there(x)

    posed = WellPosed(Less(), 12, 3)
    with pytest.raises(WICArgumentError, match=r"Less to return 48 numbers.*\(1, 1, 4, 4\)"):
        posed(torch.rand(1, 3, 2, 2), rev=True)


def test_calls_like_the_networks_own():
    posed = WellPosed(networks.Jacobian(), 12, 3)
    x = torch.rand(1, 3, 4, 4)
    y = posed(x=x)
    for other in (posed(x, False), posed(x, rev=False), posed(x, False, True)):
        assert torch.equal(other, y)
    back = posed(y, rev=True)
    for other in (posed(y, True), posed(x=y, rev=True), posed(y, True, False), posed.inverse(y)):
        assert torch.equal(other, back)
    with pytest.raises(TypeError, match="4 by position"):
        posed(x, False, False, 1)
    with pytest.raises(TypeError, match="x twice"):
        posed(x, x=x)
    methods = WellPosed(networks.ReverseMethod(), 12, 3)
    y = methods(x)
    assert torch.equal(methods(y, True), methods.inverse(y))
    assert torch.equal(methods(y, rev=True, clip=True), methods.inverse(y).clamp(0, 1))
    with pytest.raises(TypeError, match="the picture as z"):
        methods(rev=True)
    assert torch.equal(methods(z=y, rev=True), methods.inverse(y))


def test_nothing_is_run_when_it_is_built():
    class Fails(networks.Base):
        def forward(self, x, rev=False):
            raise AssertionError

    WellPosed(Fails(), 12, 3)


def test_wrapped_networks():
    x = torch.rand(2, 3, 4, 4)
    net = networks.ReverseFlag()
    for wrapped in (torch.nn.DataParallel(net), torch.compile(net, backend="eager")):
        posed = WellPosed(wrapped, 12, 3)
        assert torch.equal(posed(x), net(x)[:, :3])
        assert posed(posed(x), reverse=True).shape == x.shape


@pytest.mark.parametrize("kind", [networks.CoarseAndDetails, networks.HighAndLow])
def test_compiled(kind):
    posed = WellPosed(kind(), 12, 3)
    compiled = torch.compile(posed, fullgraph=True, backend="aot_eager")
    y = posed(torch.rand(1, 3, 8, 8))
    torch.testing.assert_close(compiled(y, rev=True), posed.inverse(y), **CLOSE)


def step(posed, x):
    posed(posed(x), rev=True).sum().backward()


def test_parameters_without_a_gradient_are_named_once():
    posed = WellPosed(networks.Enhancing(), 12, 3)
    x = torch.rand(1, 3, 4, 4)
    with pytest.warns(WICWarning, match=r"2 of 15 .*Enhancing.*: net.pre_enhance.weight, net.pre"):
        step(posed, x)
    lists = WellPosed(networks.ListOfTwo(), 6, 3, split=(3, 3))
    lists.net.extra = torch.nn.Parameter(torch.zeros(()))
    with pytest.warns(WICWarning, match=r"1 of 14 .*: net.extra\. If"):
        lists(lists([x, x]), rev=True)[1].sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(posed, x)
        partly = WellPosed(networks.Enhancing(), 12, 3)  # what is in front has its gradient later
        y = partly.pre_enhance(x)
        run = torch.utils.checkpoint.checkpoint
        run(lambda y: partly(partly(y), rev=True), y, use_reentrant=True).sum().backward()
        step(WellPosed(networks.Jacobian(), 12, 3), x)
        frozen = WellPosed(networks.Enhancing(), 12, 3)
        frozen.pre_enhance.requires_grad_(False)
        step(frozen, x)
        outside = WellPosed(networks.Enhancing(), 12, 3)
        y = outside(outside.pre_enhance(x))
        torch.autograd.grad(outside(y, rev=True).sum(), y)
        outside.eval()(y, rev=True).sum().backward()


def test_a_network_initialised_after_it_was_closed():
    """As PRIS and HiNet do it, with noise in every parameter."""
    posed = WellPosed(networks.Enhancing(), 12, 3)
    optimizer = torch.optim.SGD(posed.parameters(), 0.05)
    for _ in range(5):
        step(posed, torch.rand(1, 3, 4, 4))
        torch.nn.utils.clip_grad_norm_(posed.parameters(), 1.0)
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(Chain(posed))
    for parameter in posed.parameters():
        parameter.data = 0.01 * torch.randn_like(parameter)
    with pytest.warns(WICWarning, match=r"^0\.wic: .*looks like random.*then close it"):
        check(Chain(posed))
