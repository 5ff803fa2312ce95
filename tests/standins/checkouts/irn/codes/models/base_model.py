import os
from collections import OrderedDict
import torch
from torch.nn.parallel import DistributedDataParallel


class BaseModel():
    def __init__(self, opt):
        self.opt = opt
        self.device = torch.device('cuda' if opt['gpu_ids'] is not None else 'cpu')
        self.optimizers, self.schedulers = [], []

    def start(self, train_opt):
        self.load()
        params = [v for v in self.netG.parameters() if v.requires_grad]
        self.optimizer_G = torch.optim.Adam(
            params, lr=train_opt['lr_G'], weight_decay=train_opt['weight_decay_G'],
            betas=(train_opt['beta1'], train_opt['beta2']))
        self.optimizers.append(self.optimizer_G)
        self.schedulers.append(torch.optim.lr_scheduler.MultiStepLR(
            self.optimizer_G, train_opt['lr_steps'], train_opt['lr_gamma']))

    def gaussian_batch(self, dims):
        return torch.randn(tuple(dims)).to(self.device)

    def Quantization(self, x):
        return x + (x.clamp(0, 1).mul(255).round() / 255 - x).detach()

    def loss_backward(self, x, y):
        return (self.netG(x=y, rev=True)[:, :3, :, :] - x).abs().sum() / len(x)

    def load(self):
        path = self.opt['path']['pretrain_model_G']
        if path is not None:
            state = {k[7:] if k.startswith('module.') else k: v for k, v in torch.load(path).items()}
            self.netG.module.load_state_dict(OrderedDict(state), strict=True)

    def save(self, label):
        path = os.path.join(self.opt['path']['models'], '{}_G.pth'.format(label))
        torch.save({k: v.cpu() for k, v in self.netG.module.state_dict().items()}, path)

    def save_training_state(self, iter_step):
        state = {'iter': iter_step, 'schedulers': [s.state_dict() for s in self.schedulers],
                 'optimizers': [o.state_dict() for o in self.optimizers]}
        path = os.path.join(self.opt['path']['training_state'], '{}.state'.format(iter_step))
        torch.save(state, path)

    def resume_training(self, resume_state):
        resume_optimizers = resume_state['optimizers']
        resume_schedulers = resume_state['schedulers']
        assert len(resume_optimizers) == len(self.optimizers), 'Wrong lengths of optimizers'
        for i, o in enumerate(resume_optimizers):
            self.optimizers[i].load_state_dict(o)
        for i, s in enumerate(resume_schedulers):
            self.schedulers[i].load_state_dict(s)
