"""Muon: orthogonal steps for convolutions, AdamW's for all others, and a state to resume from."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wic_layers import WIC
from wic_layers.errors import WICArgumentError
from wic_layers.training import Muon
from wic_layers.training.optimizers import orthogonalize


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 12, 3, padding=1), WIC(12, 5), nn.Conv2d(5, 2, 1))


def step(model, optimizer, seed=0):
    x = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


@given(
    st.lists(st.integers(1, 3), max_size=2), st.integers(1, 24), st.integers(1, 24),
    st.floats(-6, 6), st.integers(0, 99),
)  # fmt: skip
def test_singular_values_come_near_one_and_their_vectors_stay(batch, rows, columns, size, seed):
    generator = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(*batch, rows, rows, generator=generator))[0]
    v = torch.linalg.qr(torch.randn(*batch, columns, columns, generator=generator))[0]
    least = min(rows, columns)
    u, vt = u[..., :least], v[..., :least].mT
    values = 0.3 + 0.7 * torch.rand(*batch, least, 1, generator=generator)
    given = 10.0**size * (u @ (values * vt))
    found = u.mT @ orthogonalize(given) @ vt.mT
    values = found.diagonal(dim1=-2, dim2=-1)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert (found - torch.diag_embed(values)).abs().max() < 1e-3


def test_zeros_stay_zeros():
    assert torch.equal(orthogonalize(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_an_update_of_a_convolution_is_orthogonal_and_as_large_as_the_rate_says():
    model = network()
    before = copy.deepcopy(model)
    step(model, Muon(Muon.groups(model), lr=1e-2, weight_decay=0.0))
    for index in (0, 2):
        moved = (model[index].weight - before[index].weight).detach().flatten(1)
        # two outputs give the gradient of every weight two singular values
        values = torch.linalg.svdvals(moved / (1e-2 * 0.2 * max(moved.shape) ** 0.5))[:2]
        assert 0.6 < values.min() <= values.max() < 1.3


def test_all_others_are_adamws():
    ours, theirs = network(), network()
    adamw = torch.optim.AdamW(theirs.parameters(), lr=1e-2)
    muon = Muon(Muon.groups(ours), lr=1e-2)
    step(ours, muon)
    step(theirs, adamw)
    weights = {"0.weight", "2.weight"}
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other) is (name not in weights), name


def test_the_gradient_stays_and_weights_decay():
    model = network()
    optimizer = Muon(Muon.groups(model), lr=0.1, weight_decay=0.5)
    weight = model[0].weight
    before = weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 0.1 * 0.5))
    step(model, optimizer)
    x = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    kept = weight.grad.clone()
    optimizer.step()
    assert torch.equal(weight.grad, kept)
    assert model(x).isfinite().all()


def test_kernels_of_one_shape_are_moved_as_each_alone():
    torch.manual_seed(0)
    together = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))
    alone = copy.deepcopy(together)
    optimizers = [Muon(Muon.groups(conv), lr=1e-2) for conv in alone]
    optimizer = Muon(Muon.groups(together), lr=1e-2)
    for seed in range(3):
        for model in (together, alone):
            x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
            model.zero_grad()
            model(x).square().sum().backward()
        optimizer.step()
        for each in optimizers:
            each.step()
    for mine, other in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


def test_its_state_goes_on_to_the_same_steps():
    model = network()
    optimizer = Muon(Muon.groups(model), lr=1e-2)
    step(model, optimizer, 1)
    other = copy.deepcopy(model)
    resumed = Muon(Muon.groups(other), lr=1.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in (2, 3):
        step(model, optimizer, seed)
        step(other, resumed, seed)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_schedule_and_a_closure_work_as_with_every_optimizer():
    model = network()
    optimizer = Muon(Muon.groups(model), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    x = torch.randn(3, 4, 6, 6)

    def loss():
        optimizer.zero_grad()
        value = (model(x) - 1).square().mean()
        value.backward()
        return value

    losses = []
    for _ in range(40):
        losses.append(optimizer.step(loss).item())
        schedule.step()
    assert losses[-1] < 0.8 * losses[0]


def test_a_network_without_convolutions_has_one_group():
    (group,) = Muon.groups(WIC(4, 2))
    assert group["orthogonal"] is False


def test_the_momentum_is_nesterovs():
    """Of the second step, where it is another than the plain one: worked out beside it."""
    conv = nn.Conv2d(2, 3, 1, bias=False)
    optimizer = Muon(Muon.groups(conv), lr=1e-2, weight_decay=0.0, momentum=0.8)
    first, second = torch.randn(2, 3, 2, 1, 1)
    before = conv.weight.detach().clone()
    for gradient in (first, second):
        conv.weight.grad = gradient.clone()
        optimizer.step()
    average = 0.2 * first
    size = 1e-2 * 0.2 * 3**0.5
    expected = before.flatten(1) - size * orthogonalize((0.2 * first + 0.8 * average).flatten(1))
    average = 0.8 * average + 0.2 * second
    nesterov = orthogonalize((0.2 * second + 0.8 * average).flatten(1))
    assert (nesterov - orthogonalize(average.flatten(1))).abs().max() > 0.05
    torch.testing.assert_close(
        conv.weight.detach().flatten(1), expected - size * nesterov, rtol=1e-5, atol=1e-6
    )


def test_parameters_can_be_added():
    """Those of a layer that was frozen: as its groups, or, all AdamW's, as a list."""
    model, late = network(), nn.Conv2d(4, 12, 3, padding=1)
    optimizer = Muon(Muon.groups(model), lr=1e-2)
    step(model, optimizer)
    weight, bias = late.weight.detach().clone(), late.bias.detach().clone()
    for group in Muon.groups(late):
        optimizer.add_param_group(group)
    assert [group["orthogonal"] for group in optimizer.param_groups] == [True, False, True, False]
    plain = nn.Linear(4, 2)
    reference = copy.deepcopy(plain)
    optimizer.add_param_group({"params": plain.parameters(), "lr": 1e-3})
    adamw = torch.optim.AdamW(reference.parameters(), lr=1e-3)
    x = torch.randn(3, 4, 6, 6)
    for _ in range(2):
        optimizer.zero_grad()
        adamw.zero_grad()
        (model(x).square().mean() + late(x).square().mean()).backward()
        for layer in (plain, reference):
            layer(x.mean((2, 3))).square().sum().backward()
        optimizer.step()
        adamw.step()
    assert not torch.equal(late.weight, weight)
    assert not torch.equal(late.bias, bias)
    assert torch.equal(plain.weight, reference.weight)
    resumed = Muon([*Muon.groups(model), *Muon.groups(late)])
    resumed.add_param_group({"params": plain.parameters()})
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.param_groups[4]["lr"] == 1e-3


OUT_OF_RANGE = [
    ({"lr": -1e-3}, "lr of at least 0; got -0.001"),
    ({"lr": math.nan}, "lr of at least 0; got nan"),
    ({"lr": math.inf}, "lr of at least 0; got inf"),
    ({"weight_decay": -0.1}, "weight_decay of at least 0; got -0.1"),
    ({"momentum": 1.5}, r"momentum from 0 to below 1; got 1\.5"),
    ({"momentum": -0.1}, r"momentum from 0 to below 1; got -0\.1"),
]


@pytest.mark.parametrize(("changes", "message"), OUT_OF_RANGE)
def test_numbers_out_of_range_are_refused_wherever_they_come_from(changes, message):
    model = network()
    with pytest.raises(WICArgumentError, match=message):
        Muon(Muon.groups(model), **changes)
    groups = Muon.groups(model)
    groups[1].update(changes)
    with pytest.raises(WICArgumentError, match=message):
        Muon(groups)
    optimizer = Muon(Muon.groups(model))
    added = {"params": nn.Linear(2, 2).parameters(), **changes}
    with pytest.raises(WICArgumentError, match=message):
        optimizer.add_param_group(added)
    assert len(optimizer.param_groups) == 2  # and it goes on without them
    step(model, optimizer)
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][1].update(changes)
    with pytest.raises(WICArgumentError, match=message):
        optimizer.load_state_dict(state)
    step(model, optimizer)


def test_what_is_refused():
    model = network()
    with pytest.raises(WICArgumentError, match=r"Muon\.groups"):
        Muon(list(model.parameters()))
    optimizer = Muon(Muon.groups(model))
    bias = nn.Parameter(torch.zeros(3))
    with pytest.raises(WICArgumentError, match=r"two dimensions or more.* of shape \(3,\)"):
        optimizer.add_param_group({"params": [bias], "orthogonal": True})
    optimizer.add_param_group({"params": [bias]})
    matrices, others = ([p for p in model.parameters() if (p.ndim > 1) is big] for big in (1, 0))
    adamw = torch.optim.AdamW([{"params": each} for each in (matrices, others)])
    with pytest.raises(WICArgumentError, match="state of a Muon with the same groups"):
        Muon(Muon.groups(model)).load_state_dict(adamw.state_dict())


def test_the_groups_may_be_any_iterable():
    model = network()
    step(model, Muon(iter(Muon.groups(model))))
