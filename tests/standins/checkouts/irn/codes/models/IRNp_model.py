import torch
from torch.nn.parallel import DataParallel
import models.networks as networks
from .base_model import BaseModel


class IRNpModel(BaseModel):
    """IRN+ has its z, whatever the other models do with theirs."""

    def __init__(self, opt):
        super(IRNpModel, self).__init__(opt)
        self.netG = DataParallel(networks.define_G(opt).to(self.device))
        self.start(opt['train'])

    def feed_data(self, data):
        self.real_H = data['GT'].to(self.device)

    def run(self):
        self.output = self.netG(x=self.real_H)
        zshape = self.output[:, 3:, :, :].shape
        LR = self.Quantization(self.output[:, :3, :, :])
        y_ = torch.cat((LR, self.gaussian_batch(zshape)), dim=1)
        self.fake_H = self.netG(x=y_, rev=True)

    def optimize_parameters(self):
        self.optimizer_G.zero_grad()
        self.run()
        (self.fake_H - self.real_H).abs().sum().backward()
        self.optimizer_G.step()

    def test(self):
        with torch.no_grad():
            self.run()
