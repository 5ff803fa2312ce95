from collections import OrderedDict
import torch
import torch.nn as nn
from models.modules.loss import FrequencyLoss
from standins.parts import Coupling, Dense, Operations
from .InvNetBase import InvNetBase


class CSLayer(nn.Module):
    def __init__(self, cs_opt):
        super(CSLayer, self).__init__()
        self.groups = cs_opt['in_nc'] // cs_opt['out_nc']

    def forward(self, x, rev=False):
        if rev:
            return x.repeat(1, self.groups, 1, 1)
        return x.unflatten(1, (self.groups, -1)).mean(1)


class RelBlock(nn.Module):
    """Each image from the features of all."""

    def __init__(self, images, nf):
        super(RelBlock, self).__init__()
        self.DB_heads = nn.ModuleList(Dense(3, nf, 4) for _ in range(images))
        self.conv_1x1_heads = nn.ModuleList(nn.Conv2d(nf, nf, 1) for _ in range(images))
        self.conv_merges = nn.ModuleList(nn.Conv2d(nf * images, nf, 3, padding=1) for _ in range(images))
        self.conv_1x1_tails = nn.ModuleList(nn.Conv2d(nf, nf, 1) for _ in range(images))
        self.DB_tails = nn.ModuleList(Dense(nf, 3, 4) for _ in range(images))

    def forward(self, x):
        heads = zip(x.split(3, 1), self.DB_heads, self.conv_1x1_heads)
        merged = torch.cat([conv(dense(image)) for image, dense, conv in heads], 1)
        tails = zip(self.conv_merges, self.conv_1x1_tails, self.DB_tails)
        return x + 0.2 * torch.cat([dense(conv(merge(merged))) for merge, conv, dense in tails], 1)


class RelModule(nn.Module):
    def __init__(self, images, nf):
        super(RelModule, self).__init__()
        self.forw_rel, self.back_rel = RelBlock(images, nf), RelBlock(images, nf)

    def forward(self, x, rev=False):
        return self.back_rel(x) if rev else self.forw_rel(x)


class Round(nn.Module):
    def forward(self, x, **kwargs):
        return x + (x.clamp(0, 1).mul(255).round() / 255 - x).detach()


class InvNet(InvNetBase):
    def __init__(self, opt):
        super(InvNet, self).__init__(opt)
        network, train = opt['network'], opt['train']
        images = network['input']['num_of_frames']
        self.lcs_opt = {'in_nc': 3 * images, 'out_nc': 3}
        self.rel = RelModule(images, network['rel']['nf']).to(self.device)
        self.down = Operations()
        self.block = Operations(Coupling(3 * images, 3, 4)).to(self.device)
        self.cs = CSLayer(self.lcs_opt).to(self.device)
        self.quantization = Round()
        self.net = nn.ModuleList([self.rel, self.down, self.block, self.cs, self.quantization])
        self.optimizer = torch.optim.Adam(
            [{'params': list(sub.parameters())} for sub in self.net], lr=train['lr'],
            weight_decay=train['weight_decay'], betas=(train['beta1'], train['beta2']))
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(
            self.optimizer, train['lr_steps'], train['lr_gamma'])
        self.frequency = FrequencyLoss()
        if opt['path']['pretrain_model'] is not None:
            self.load_current_state_dict(torch.load(opt['path']['pretrain_model']))

    def run(self, data):
        self.input_frames = data['input_frames'].to(self.device)
        self.embedding = self.cs(self.block(self.down(self.rel(self.input_frames))))
        x = self.cs(self.quantization(self.embedding), rev=True)
        self.fake_frames = self.rel(self.down(self.block(x, rev=True), rev=True), rev=True)

    def train(self, data):
        self.optimizer.zero_grad()
        self.run(data)
        ref = data['ref_frame']
        loss = (self.embedding - ref).square().sum() + 0.001 * self.frequency(self.embedding, ref)
        loss = loss + 3 * (self.fake_frames - self.input_frames).abs().sum()
        loss.backward()
        self.optimizer.step()

    def load_current_state_dict(self, state_dict):
        net = self.net
        state_dict_clean = OrderedDict()
        for k, v in state_dict.items():
            if k.startswith('module.'):
                state_dict_clean[k[7:]] = v
            else:
                state_dict_clean[k] = v
        net.load_state_dict(state_dict_clean, strict=True)
        state_dict_clean = None
