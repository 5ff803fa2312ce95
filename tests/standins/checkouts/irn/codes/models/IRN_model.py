import torch
import torch.nn as nn
from torch.nn.parallel import DataParallel
import models.networks as networks
from .base_model import BaseModel


class IRNModel(BaseModel):
    def __init__(self, opt):
        super(IRNModel, self).__init__(opt)
        self.netG = networks.define_G(opt).to(self.device)
        self.netG = DataParallel(self.netG)
        self.train_opt = opt['train']
        self.start(self.train_opt)

    def feed_data(self, data):
        self.ref_L = data['LQ'].to(self.device)
        self.real_H = data['GT'].to(self.device)

    def loss_forward(self, out, y, z):
        l_forw_fit = (out - y).square().sum() / len(out)
        z = z.reshape([out.shape[0], -1])
        return l_forw_fit, z.square().sum() / z.shape[0]

    def optimize_parameters(self):
        self.optimizer_G.zero_grad()
        self.input = self.real_H
        self.output = self.netG(x=self.input)
        zshape = self.output[:, 3:, :, :].shape
        l_forw_fit, l_forw_ce = self.loss_forward(self.output[:, :3, :, :], self.ref_L, self.output[:, 3:, :, :])
        LR = self.Quantization(self.output[:, :3, :, :])
        gaussian_scale = 1
        y_ = torch.cat((LR, gaussian_scale * self.gaussian_batch(zshape)), dim=1)
        loss = l_forw_fit + l_forw_ce + self.loss_backward(self.real_H, y_)
        loss.backward()
        nn.utils.clip_grad_norm_(self.netG.parameters(), self.train_opt['gradient_clipping'])
        self.optimizer_G.step()

    def test(self):
        Lshape = self.ref_L.shape
        zshape = [Lshape[0], Lshape[1] * (self.opt['scale']**2) - Lshape[1], Lshape[2], Lshape[3]]
        gaussian_scale = 1
        self.netG.eval()
        with torch.no_grad():
            self.forw_L = self.netG(x=self.real_H)[:, :3, :, :]
            self.forw_L = self.Quantization(self.forw_L)
            y_forw = torch.cat((self.forw_L, gaussian_scale * self.gaussian_batch(zshape)), dim=1)
            self.fake_H = self.netG(x=y_forw, rev=True)[:, :3, :, :]
        self.netG.train()

    def upscale(self, LR_img, scale, gaussian_scale=1):
        Lshape = LR_img.shape
        zshape = [Lshape[0], Lshape[1] * (scale**2 - 1), Lshape[2], Lshape[3]]
        y_ = torch.cat((LR_img, gaussian_scale * self.gaussian_batch(zshape)), dim=1)
        with torch.no_grad():
            return self.netG(x=y_, rev=True)[:, :3, :, :]
