"""The blocks around the layer: both directions, precision, and errors that say where."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from cases import BLOCKS, LAYERS, ranks, shaken
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wic_layers import WIC, det_loss, record_wic
from wic_layers.blocks import (
    AffineCoupling,
    Chain,
    ChannelMean,
    Haar,
    InverseHaar,
    LearnedSqueeze,
    LongTermMemory,
    Relation,
    Squeeze,
    Unsqueeze,
)
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.errors import IllConditionedError, WICArgumentError, WICError, WICShapeError
from wic_layers.testing import check_model, log_volume_numerical


def block(name, dtype=torch.float64):
    make, shape = BLOCKS[name]
    return shaken(make()).to(dtype), torch.randn(shape, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BLOCKS)
def test_round_trip(name, dtype):
    model, x = block(name, dtype)
    tolerance = 64 * torch.finfo(dtype).eps
    y = model(x)
    assert y.dtype == dtype
    torch.testing.assert_close(model.inverse(y), x, rtol=tolerance, atol=tolerance)
    assert torch.equal(model(y, rev=True), model.inverse(y))
    check_model(model, x)


@pytest.mark.parametrize("name", ["squeeze", "unsqueeze", "haar", "coupling", "memory"])
def test_the_other_round_trip(name):
    model, x = block(name)
    y = torch.randn_like(model(x))
    torch.testing.assert_close(model(model.inverse(y)), y)


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_reach_everything_through_both_directions(name):
    model, x = block(name)
    x.requires_grad_()
    model.inverse(model(x).tanh()).square().sum().backward()
    for tensor in (x, *model.parameters()):
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize("name", BLOCKS)
def test_copies_and_state(name):
    model, x = block(name)
    y = model(x)
    other = shaken(BLOCKS[name][0]()).double()
    other.load_state_dict(model.state_dict())
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), other):
        assert torch.equal(copied(x), y)
    assert repr(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coupling", "nested chains"])
def test_compiles_whole(name):
    torch._dynamo.reset()
    model, x = block(name)
    compiled = torch.compile(
        lambda x: model.inverse(model(x)), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(x), x)


def test_squeeze_is_pixel_unshuffle():
    x = torch.randn(2, 3, 6, 4)
    assert torch.equal(Squeeze(2)(x), F.pixel_unshuffle(x, 2))
    assert torch.equal(Unsqueeze(2)(Squeeze(2)(x)), x)


@given(st.integers(1, 5), st.integers(1, 3), st.lists(st.integers(1, 3), max_size=3))
def test_channel_mean_undoes_its_inverse(groups, channels, sizes):
    y = torch.randn(2, channels, *sizes, dtype=torch.float64)
    block = ChannelMean(groups)
    copies = block.inverse(y)
    assert copies.shape == (2, groups * channels, *sizes)
    assert all(torch.equal(part, y) for part in copies.chunk(groups, dim=1))
    torch.testing.assert_close(block(copies), y)
    x = torch.randn_like(copies)
    torch.testing.assert_close(block(x), sum(x.chunk(groups, dim=1)) / groups)
    assert torch.equal(block(y, rev=True), copies)


def test_channel_mean_lets_gradients_through_both_directions():
    chain = Chain(WIC(12, 6), ChannelMean(2)).double()
    x = torch.randn(2, 12, 3, 4, dtype=torch.float64, requires_grad=True)
    y = chain(x)
    assert y.shape == (2, 3, 3, 4)
    torch.testing.assert_close(chain(chain.inverse(y)), y)
    chain.inverse(y).square().sum().backward()
    for tensor in (x, chain[0].weight):
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().sum() > 0
    check_model(chain, x.detach())
    assert repr(chain[1]) == "ChannelMean(2)"


def test_haar_is_orthonormal():
    x = torch.randn(1, 1, 4, 6, dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(Haar(), x).reshape(24, 24)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(24, dtype=torch.float64))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_haar_sub_bands(channels, height, width):
    """LL, HL, LH, HH, each with all channels: what varies along a row is in HL."""
    x = torch.randn(1, channels, 2 * height, 2 * width)
    low, horizontal, vertical, diagonal = Haar()(x).chunk(4, dim=1)
    torch.testing.assert_close(low, 2 * F.avg_pool2d(x, 2))
    a, b, c, d = (x[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
    torch.testing.assert_close(horizontal, (b + d - a - c) / 2)
    torch.testing.assert_close(vertical, (c + d - a - b) / 2)
    torch.testing.assert_close(diagonal, (a + d - b - c) / 2)


def test_haar_of_several_images_keeps_each_together():
    first, second = torch.randn(2, 2, 3, 4, 6)
    found = Haar(2)(torch.cat((first, second), dim=1))
    assert torch.equal(found, torch.cat((Haar()(first), Haar()(second)), dim=1))
    assert repr(Haar(2)) == "Haar(2)"


def test_inverse_haar_is_haar_the_other_way_round():
    x = torch.randn(2, 8, 3, 5)
    for groups in (1, 2):
        there, back = InverseHaar(groups), Haar(groups)
        assert torch.equal(there(x), back.inverse(x))
        assert torch.equal(there.inverse(there(x)), back(back.inverse(x)))


def test_haar_of_simple_pictures():
    columns = torch.tensor([0.0, 1.0]).repeat(4).expand(1, 1, 8, 8)
    for picture, band in ((columns, 1), (columns.mT, 2)):
        energy = Haar()(picture).square().sum((0, 2, 3))
        assert [index for index in (1, 2, 3) if energy[index] > 0] == [band]


@pytest.mark.parametrize("clamp", [0.5, 1.0, 2.0])
def test_coupling_formula(clamp):
    """y1 = x1 + F(x2), s = clamp (2 sigmoid(H(y1)) - 1), y2 = x2 exp(s) + G(y1)."""
    model = shaken(AffineCoupling(5, split=2, clamp=clamp))
    x = torch.randn(2, 5, 4, 4)
    x1, x2 = x[:, :2], x[:, 2:]
    y1 = x1 + model.F(x2)
    s = clamp * (2 * torch.sigmoid(model.H(y1)) - 1)
    torch.testing.assert_close(model(x), torch.cat((y1, x2 * s.exp() + model.G(y1)), dim=1))
    assert s.abs().max() <= clamp


def test_the_second_half_takes_an_odd_channel():
    assert AffineCoupling(7).sizes == (3, 4)
    assert AffineCoupling(7).F(torch.zeros(1, 4, 2, 2)).shape == (1, 3, 2, 2)


def test_coupling_starts_as_the_identity():
    model = AffineCoupling(6)
    x = torch.randn(2, 6, 5, 5)
    assert torch.equal(model(x), x)


def test_coupling_volume_is_the_sum_of_its_scales():
    model, x = block("coupling, split")
    y, scales = model.couple(x)
    back, same = model.uncouple(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(same, scales)
    scales = scales.sum((1, 2, 3))
    torch.testing.assert_close(log_volume_numerical(model, x), scales.detach())


def test_coupling_keeps_its_halves_in_float32_under_autocast():
    seen = []

    class Subnet(nn.Conv2d):
        def __init__(self, inputs, outputs):
            super().__init__(inputs, outputs, 3, padding=1)

        def forward(self, x):
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    model = AffineCoupling(6, subnet=Subnet)
    x = torch.randn(2, 6, 8, 8)
    exact = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
        back = model.inverse(y)
        assert y.dtype == back.dtype == torch.float32
    assert seen[3:] == [torch.bfloat16] * 6
    # bfloat16 is in what the subnets say, never in what is added to it: 2^-8 against 2^-23
    assert 1e-4 < (y - exact).abs().max() < 0.1
    torch.testing.assert_close(back, x, atol=1e-5, rtol=1e-5)


def test_dense_block():
    block = DenseBlock(5, 7, growth=4, slope=0.1)
    x = torch.randn(2, 5, 6, 7)
    assert not block(x).any()
    shaken(block)
    features = [x]
    for index in range(1, 5):
        conv = getattr(block, f"conv{index}")
        features.append(F.leaky_relu(conv(torch.cat(features, dim=1)), 0.1))
    expected = block.conv5(torch.cat(features, dim=1))
    torch.testing.assert_close(block(x), expected)
    torch.testing.assert_close(block(x.to(memory_format=torch.channels_last)), expected)


def test_memory_passes_untouched_and_nests():
    inner = shaken(LongTermMemory(1, AffineCoupling(3)))
    model = LongTermMemory(2, Chain(WIC(3, 4), inner))
    x = torch.randn(2, 5, 4, 4)
    y = model(x)
    assert torch.equal(y[:, :2], x[:, :2])
    wide = model.inner[0](x[:, 2:])
    assert torch.equal(y[:, 2:3], wide[:, :1])
    torch.testing.assert_close(y[:, 3:], inner.inner(wide[:, 1:]))
    torch.testing.assert_close(model.inverse(y), x)


def test_chain_is_a_list_of_blocks():
    layers = [WIC(3, 4), WIC(4, 4), WIC(4, 5)]
    chain = Chain(*layers)
    assert len(chain) == 3
    assert chain[0] is layers[0]
    assert chain[-1] is layers[2]
    assert list(chain) == layers
    assert [name for name, _ in chain.named_children()] == ["0", "1", "2"]
    x = torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(chain(x), layers[2](layers[1](layers[0](x))))


def test_a_block_used_twice_runs_twice():
    layer = WIC(4, 4)
    chain = Chain(layer, Squeeze(2), Unsqueeze(2), layer)
    x = torch.randn(1, 4, 2, 2)
    torch.testing.assert_close(chain(x), layer(layer(x)))
    torch.testing.assert_close(chain.inverse(chain(x)), x)


def test_hooks_of_blocks_run_forward():
    chain = Chain(WIC(3, 4))
    seen = []
    chain[0].register_forward_hook(lambda *_: seen.append(1))
    chain(torch.randn(1, 3, 2, 2))
    assert seen == [1]


class Rows(nn.Module):
    """A block of a user's own."""

    def forward(self, x):
        return x.flip(2)

    def inverse(self, y):
        return y.flip(2)


def test_takes_blocks_of_a_users_own():
    chain = Chain(Rows(), WIC(3, 4))
    x = torch.randn(1, 3, 4, 2)
    torch.testing.assert_close(chain.inverse(chain(x)), x)


def deep():
    return Chain(Squeeze(2), WIC(12, 12), Chain(WIC(12, 12), LongTermMemory(4, Chain(WIC(8, 9)))))


def test_errors_name_the_layer_in_both_directions():
    model = deep()
    y = model(torch.randn(1, 3, 4, 4))
    with torch.no_grad():
        model[2][0].weight[0, 0] = torch.nan
    with pytest.raises(IllConditionedError, match=r"^2\.0: WIC\(12, 12\): 1 of the kernel's 144"):
        model.inverse(y)
    with torch.no_grad():
        model[2][0].weight.copy_(torch.eye(12))
        model[2][1].inner[0].weight.zero_()
    with pytest.raises(IllConditionedError, match=r"^2\.1\.inner\.0: WIC\(8, 9\): .*number inf"):
        model.inverse(y)
    with pytest.raises(WICShapeError, match=r"^1: WIC\(12, 12\): .*\(1, 8, 2, 2\)"):
        model(torch.randn(1, 2, 4, 4))
    with pytest.raises(WICShapeError, match=r"^0: Squeeze\(2\): .*divisible by 2.*\(1, 3, 5, 4\)"):
        model(torch.randn(1, 3, 5, 4))
    # an error that was caught leaves the next one its own name
    with pytest.raises(WICShapeError, match=r"^1: WIC"):
        model(torch.randn(1, 2, 4, 4))


def test_other_errors_pass_unchanged():
    class Broken(Rows):
        def forward(self, x):
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        Chain(Broken())(torch.zeros(1))


def test_det_loss_and_records_reach_inside():
    model = Chain(deep(), WIC(13, 4))
    with record_wic(model) as records:
        model(torch.randn(1, 3, 4, 4))
    assert records.names == ("1",)
    assert len(list(model.parameters())) == 4
    assert torch.isfinite(det_loss(model))


IMAGE = torch.ones(2, 6, 4, 6)


def test_a_learned_squeeze_starts_as_a_small_picture_and_single_pixels():
    x = torch.rand(2, 2, 6, 9)
    bands = LearnedSqueeze(3)(x).unflatten(1, (9, 2)).unbind(1)
    torch.testing.assert_close(bands[0], F.avg_pool2d(x, 3))
    for index, band in enumerate(bands[1:], start=1):
        torch.testing.assert_close(band, x[:, :, index // 3 :: 3, index % 3 :: 3])


def test_a_squeeze_in_groups_is_in_the_order_of_haar():
    x = torch.randn(1, 6, 4, 6)
    for groups in (1, 2, 3):
        low = Haar(groups, mean=True)(x).unflatten(1, (groups, 4, -1))[:, :, 0]
        found = Squeeze(2, groups)(x).unflatten(1, (groups, 4, -1))
        torch.testing.assert_close(found.mean(2), low)
        # down to the next row of pixels comes last
        expected = x.unflatten(1, (groups, -1))[..., ::2, 1::2]
        assert torch.equal(found[:, :, 1], expected)
    assert torch.equal(Squeeze(2, 6)(x), Squeeze(2)(x))


@pytest.mark.parametrize("groups", [2, 3, 7])
@pytest.mark.parametrize("completion", ["zero", "repeat", "learned", "shift", "gaussian"])
def test_a_wic_starts_as_the_mean_of_groups(groups, completion):
    mean = ChannelMean(groups).double()
    layer = mean.as_wic(2, completion).double()
    x, y = torch.randn(2, 2 * groups, 4, 5).double(), torch.randn(2, 2, 4, 5).double()
    torch.testing.assert_close(layer(x), mean(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(layer(layer.inverse(y)), y)
    is_same = torch.allclose(layer.inverse(y), mean.inverse(y), atol=1e-6)
    assert is_same == (completion not in ("shift", "gaussian"))
    if completion == "shift":  # repeated, and little else where a picture is smooth
        flat = y.mean((2, 3), keepdim=True).expand_as(y)
        torch.testing.assert_close(layer.inverse(flat), mean.inverse(flat), atol=1e-6, rtol=0)


def test_relation_starts_as_the_identity_and_sees_every_image():
    block, x = Relation(3, 4, 4), torch.rand(2, 9, 24, 24)
    assert torch.equal(block(x), x)
    assert torch.equal(block.inverse(x), x)
    block = shaken(block).double()
    x = x.double().requires_grad_()
    for function in (block, block.inverse):
        (gradient,) = torch.autograd.grad(function(x)[:, 3:6, 12, 12].sum(), x)
        reached = gradient.abs().sum(0).view(3, 3, 24, 24).sum(1) > 0
        assert reached.any(-1).any(-1).all()  # every image has a say
        assert reached[:, 1:24, 1:24].all()
        assert not reached[:, 0].any()  # a pixel sees as far as it says, and no farther
    assert block.there.reach == 11
    own, others = block(x) - x, x.detach().clone()
    others[:, 6:] = 0
    assert not torch.equal((block(others) - others)[:, :3], own[:, :3])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Chain(nn.ReLU()), WICArgumentError, "inverse method; block 0 is ReLU"),
        (lambda: Squeeze(0), WICArgumentError, "factor of at least 1; got 0"),
        (lambda: Squeeze(2, 0), WICArgumentError, "groups of at least 1; got 0"),
        (lambda: Squeeze(2, 4)(IMAGE), WICShapeError, r"Squeeze\(2, 4\).*C divisible by 4"),
        (lambda: ChannelMean(1).as_wic(3), WICArgumentError, "at least 2 groups.* got 1"),
        (lambda: Relation(0), WICArgumentError, "images of at least 1; got 0"),
        (lambda: Relation(3, 2, 2)(IMAGE), WICShapeError, r"Relation\(3, 2\): expected 9 ch"),
        (lambda: Squeeze(4)(IMAGE), WICShapeError, r"Squeeze\(4\).*by 4.*\(2, 6, 4, 6\).*Pad"),
        (lambda: Squeeze(2).inverse(IMAGE), WICShapeError, r"C divisible by 4; got \(2, 6"),
        (lambda: Unsqueeze(2)(IMAGE), WICShapeError, "C divisible by 4"),
        (lambda: Squeeze(2)(IMAGE[0]), WICShapeError, r"\(B, C, H, W\).*\(6, 4, 6\)"),
        (lambda: Haar()(IMAGE[..., 1:]), WICShapeError, r"Haar.*divisible by 2.*\(2, 6, 4, 5\)"),
        (lambda: Haar().inverse(IMAGE), WICShapeError, "C divisible by 4"),
        (lambda: Haar(4)(IMAGE), WICShapeError, "C divisible by 4"),
        (lambda: Haar(0), WICArgumentError, "groups of at least 1; got 0"),
        (lambda: ChannelMean(0), WICArgumentError, "groups of at least 1; got 0"),
        (lambda: ChannelMean(4)(IMAGE), WICShapeError, r"ChannelMean\(4\).*by 4; got \(2, 6"),
        (lambda: ChannelMean(2)(IMAGE[0, 0, 0]), WICShapeError, r"divisible by 2; got \(6,\)"),
        (lambda: AffineCoupling(1), WICArgumentError, "both sides of 1; got 0"),
        (lambda: AffineCoupling(4, split=4), WICArgumentError, "both sides of 4; got 4"),
        (lambda: AffineCoupling(4)(IMAGE), WICShapeError, r"expected 4 channels; got.*\(2, 6"),
        (lambda: AffineCoupling(4).inverse(IMAGE), WICShapeError, "expected 4 channels"),
        (lambda: LongTermMemory(6, Haar())(IMAGE), WICShapeError, "more than 6 channels.*2, 6"),
        (lambda: LongTermMemory(6, Haar()).inverse(IMAGE), WICShapeError, "more than 6 channels"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, WICError)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_runs_inside_a_chain(name):
    layer = LAYERS[name]()
    sizes = ranks(layer)[-1]
    chain = Chain(WIC(layer.in_channels, layer.in_channels), layer)
    x = torch.randn(2, layer.in_channels, *sizes)
    y = chain(x)
    assert y.shape == (2, layer.out_channels, *sizes)
    assert chain.inverse(y).shape == x.shape


def test_a_learned_squeeze_starts_with_the_mean_and_single_pixels():
    x = torch.rand(2, 3, 6, 9)
    bands = LearnedSqueeze(3)(x).unflatten(1, (9, 3))
    torch.testing.assert_close(bands[:, 0], torch.nn.functional.avg_pool2d(x, 3))
    torch.testing.assert_close(bands[:, 5], x[:, :, 1::3, 2::3])


def test_a_relation_adds_a_fifth_of_what_its_networks_say():
    block = shaken(Relation(2, features=4, growth=4))
    x = torch.rand(1, 6, 5, 4)
    torch.testing.assert_close(block(x), x + 0.2 * block.there(x))
    torch.testing.assert_close(block.inverse(x), x + 0.2 * block.back(x))
