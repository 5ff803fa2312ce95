import torch
import torch.nn as nn


class FrequencyLoss(nn.Module):
    def forward(self, x, target):
        b, c, h, w = x.size()
        x = x.contiguous().view(-1,h,w)
        target = target.contiguous().view(-1,h,w)
        x_fft = torch.rfft(x, signal_ndim=2, normalized=False, onesided=True)
        target_fft = torch.rfft(target, signal_ndim=2, normalized=False, onesided=True)
        return (x_fft - target_fft).square().sum() / b
