"""What comparisons set beside networks with a WIC: a plain network, and zeros for z."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from wic_layers.models import IRN, HiNet, IICNet, WINNaive


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import plain

    return plain


OTHERS = {
    "smaller picture": (lambda: IRN(couplings=3, growth=8), 3, {"scale": 2}),
    "hidden": (lambda: HiNet(couplings=3, growth=8), 6, {"scale": 1}),
    "packed": (
        lambda: IICNet(6, 3, couplings=2, growth=8, features=4), 6, {"scale": 1, "copies": 2}
    ),
    "squeezed inside": (
        lambda: WINNaive(3, 3, scale=2, couplings=5, squeezed=64, haar=True), 3, {"scale": 2}
    ),
    "hidden, squeezed inside": (
        lambda: WINNaive(6, 3, couplings=3, squeezed=48, haar=True), 6, {"scale": 1}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_as_large_as_another_network(name, plain):
    make, channels, shape = OTHERS[name]
    wanted = plain.costs(make(), channels)
    model = plain.sized(wanted, channels, 3, **shape)
    costs = plain.costs(model, channels)
    for one, other in zip(costs, wanted, strict=True):
        assert one == pytest.approx(other, rel=0.06)
    # it starts as the first image and its copies, and both ends have the other's shapes
    x = torch.rand(2, channels, 24, 32)
    y = model(x)
    scale, copies = shape["scale"], shape.get("copies", 1)
    size = (24 // scale, 32 // scale)
    expected = F.interpolate(x[:, :3], size=size, mode="bicubic", antialias=True)
    torch.testing.assert_close(y, expected)
    back = model(y, rev=True)
    assert back.shape == x.shape
    assert torch.equal(back, model.inverse(y))
    larger = F.interpolate(y, size=(24, 32), mode="bicubic", antialias=True)
    torch.testing.assert_close(back[:, : 3 * copies], larger.repeat(1, copies, 1, 1))
    others = back[:, 3 * copies :]
    assert others.numel() == 0 or others.abs().min() > 0  # or nothing would learn to hide them


def test_a_network_that_no_plain_one_is_like(plain):
    dear = plain.Costs(parameters=1_000_000, operations=1000.0)
    with pytest.raises(ValueError, match="Expected costs that a plain network can have"):
        plain.sized(dear, 3, 3, scale=2)


@pytest.mark.parametrize(("scale", "height", "width"), [(1, 9, 10), (2, 18, 14), (4, 12, 20)])
def test_images_of_any_size_where_blocks_are_smaller(scale, height, width, plain):
    size = {"inside": 2, "width": 8, "fine": 1, "coarse": 1, "passes": 1}
    model = plain.EncoderDecoder(3, 3, scale=scale, **size)
    x = torch.rand(1, 3, height, width)
    y = model(x)
    assert y.shape == (1, 3, height // scale, width // scale)
    assert model.inverse(y).shape == x.shape


def test_both_directions_are_trained_together(plain):
    torch.manual_seed(0)
    model = plain.EncoderDecoder(6, 3, width=8, fine=2, coarse=1, passes=2)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    x = F.interpolate(torch.rand(2, 6, 6, 6), size=(24, 24), mode="bicubic").clamp(0, 1)

    def step():
        optimizer.zero_grad()
        y = model(x)
        loss = F.mse_loss(y, x[:, :3]) + F.mse_loss(model.inverse(y), x)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    losses = [step() for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_the_decoder_alone_enlarges(plain):
    """Without an encoder: a network for pictures that were reduced by something else."""
    decoder = plain.Decoder(3, 3, scale=2, width=8, fine=1, coarse=1, passes=1)
    assert decoder(torch.rand(1, 3, 7, 9)).shape == (1, 3, 14, 18)
    grey = plain.Decoder(1, 3, scale=1, width=8, fine=1, coarse=1, passes=1)
    assert grey(torch.rand(1, 1, 8, 6)).shape == (1, 3, 8, 6)


@pytest.mark.parametrize("network", [IRN, HiNet])
def test_zeros_for_z(network, plain):
    published = network(couplings=1, growth=4, random_z=True).eval()
    zeros = plain.with_zero_z(published).eval()
    x = torch.rand(1, published.config["in_channels"], 8, 8)
    with torch.no_grad():
        y = published(x)
        assert torch.equal(zeros(x), y)
        assert torch.equal(zeros.inverse(y), zeros.inverse(y))
        assert not torch.equal(zeros.inverse(y), published.inverse(y))
    # the kernel that stands for z is not trained
    assert len(list(zeros.parameters())) == len(list(published.parameters()))
