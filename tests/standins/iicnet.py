"""A stand-in for IICNet's code base: the interface that its integration changes, and nothing else.

Names, calls and shapes are those of ``codes/models/InvNet.py`` and ``codes/models/modules``; what
they do is written anew, for a network of two couplings without downscaling.
"""

import torch
from torch import nn

from wic_layers.models import IICNet


class CSLayer(nn.Module):
    """The mean of groups of channels, and their copies."""

    def __init__(self, cs_opt):
        super().__init__()
        self.groups = cs_opt['in_nc'] // cs_opt['out_nc']

    def forward(self, x, rev=False):
        if rev:
            return x.repeat(1, self.groups, 1, 1)
        return x.unflatten(1, (self.groups, -1)).mean(1)


class Rel(nn.Module):
    """Both directions, under their names."""

    def __init__(self, block):
        super().__init__()
        self.forw_rel, self.back_rel = block.there, block.back

    def forward(self, x, rev=False):
        return x + 0.2 * (self.back_rel if rev else self.forw_rel)(x)


class Block(nn.Module):
    def __init__(self, couplings):
        super().__init__()
        self.operations = nn.ModuleList(couplings)

    def forward(self, x, rev=False):
        for operation in reversed(self.operations) if rev else self.operations:
            x = operation(x, rev)
        return x


class FrequencyLoss(nn.Module):
    def forward(self, x, target):
        b, c, h, w = x.size()
        x, target = x.contiguous().view(-1, h, w), target.contiguous().view(-1, h, w)
        x_fft = torch.rfft(x, signal_ndim=2, normalized=False, onesided=True)
        target_fft = torch.rfft(target, signal_ndim=2, normalized=False, onesided=True)
        _, h, w, f = x_fft.size()
        diff = x_fft.view(b, c, h, w, f) - target_fft.view(b, c, h, w, f)
        return torch.mean(torch.sum(diff ** 2, (1, 2, 3, 4)))


class Noise(nn.Module):
    def forward(self, x, train=False):
        x = x * 255.0
        x = x + torch.rand_like(x) - 0.5 if train else x.round()
        return x.clamp(0, 255) / 255.0


class InvNet:
    """One training step, embedding and restoring, as IICNet's code runs them."""

    def __init__(self, lcs_opt):
        self.device = torch.device('cpu')
        self.lcs_opt = lcs_opt
        torch.manual_seed(0)
        rel, *couplings = list(IICNet(6, 3, couplings=2, growth=4, features=3))[:-1]
        self.rel = Rel(rel).to(self.device)
        self.down = nn.Identity()
        self.block = Block(couplings).to(self.device)
        self.cs = CSLayer(self.lcs_opt).to(self.device)
        self.quantization = Noise()
        self.net = nn.ModuleList([self.rel, self.down, self.block, self.cs, self.quantization])
        self.optimizer = torch.optim.Adam([{'params': sub.parameters()} for sub in self.net], 1e-3)
        self.criterion_embedding_frame_freq = FrequencyLoss()

    def train(self, input_frames):
        self.optimizer.zero_grad()
        self.embedding_frame = self.cs(self.block(self.rel(input_frames)))
        quantized = self.quantization(self.embedding_frame, train=True)
        self.fake_frames = self.rel(self.block(self.cs(quantized, rev=True), rev=True), rev=True)
        ref_frame = input_frames[:, :3]
        loss = (self.embedding_frame - ref_frame).square().sum()
        loss = loss + 0.001 * self.criterion_embedding_frame_freq(self.embedding_frame, ref_frame)
        loss = loss + 3 * (self.fake_frames - input_frames).abs().sum() / 2
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def embed(self, input_frames):
        with torch.no_grad():
            return self.quantization(self.cs(self.block(self.rel(input_frames))))

    def restore(self, embedding):
        with torch.no_grad():
            return self.rel(self.block(self.cs(embedding, rev=True), rev=True), rev=True)

    def load_current_state_dict(self, state_dict):
        net = self.net
        state_dict_clean = {k.removeprefix('module.'): v for k, v in state_dict.items()}
        net.load_state_dict(state_dict_clean, strict=True)
