import torch
from torch.nn.parallel import DataParallel
import models.networks as networks
from .base_model import BaseModel


class IRNColorModel(BaseModel):
    def __init__(self, opt):
        super(IRNColorModel, self).__init__(opt)
        self.netG = networks.define_grey(opt).to(self.device)
        self.netG = DataParallel(self.netG)
        self.start(opt['train'])

    def feed_data(self, data):
        self.ref_Grey = data['GT'].to(self.device).mean(1, keepdim=True)
        self.real_H = data['GT'].to(self.device)

    def loss_forward(self, out, y, z):
        l_forw_fit = (out - y).square().sum() / len(out)
        z = z.reshape([out.shape[0], -1])
        return l_forw_fit, z.square().sum() / z.shape[0]

    def optimize_parameters(self):
        self.optimizer_G.zero_grad()
        self.output = self.netG(x=self.real_H)
        zshape = self.output[:, 1:, :, :].shape
        l_forw_fit, l_forw_ce = self.loss_forward(self.output[:, :1, :, :], self.ref_Grey, self.output[:, 1:, :, :])
        Grey = self.Quantization(self.output[:, :1, :, :])
        gaussian_scale = 0
        y_ = torch.cat((Grey, gaussian_scale * self.gaussian_batch(zshape)), dim=1)
        loss = l_forw_fit + l_forw_ce + self.loss_backward(self.real_H, y_)
        loss.backward()
        self.optimizer_G.step()

    def test(self):
        Lshape = self.ref_Grey.shape
        zshape = [Lshape[0], 2, Lshape[2], Lshape[3]]
        gaussian_scale = 0
        with torch.no_grad():
            self.forw_L = self.netG(x=self.real_H)[:, :1, :, :]
            self.forw_L = self.Quantization(self.forw_L)
            y_forw = torch.cat((self.forw_L, gaussian_scale * self.gaussian_batch(zshape)), dim=1)
            self.fake_H = self.netG(x=y_forw, rev=True)[:, :3, :, :]

    def colorize(self, Grey_img, gaussian_scale=0):
        Lshape = Grey_img.shape
        zshape = [Lshape[0], 2, Lshape[2], Lshape[3]]
        y_ = torch.cat((Grey_img, gaussian_scale * self.gaussian_batch(zshape)), dim=1)
        with torch.no_grad():
            return self.netG(x=y_, rev=True)[:, :3, :, :]
