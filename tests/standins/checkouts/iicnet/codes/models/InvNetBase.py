import os
import torch
from torch.nn.parallel import DistributedDataParallel


class InvNetBase():
    def __init__(self, opt):
        self.opt = opt
        self.device = torch.device('cuda' if opt['gpu_ids'] is not None else 'cpu')

    def save(self, iter_label):
        path = os.path.join(self.opt['path']['models'], '{}.pth'.format(iter_label))
        torch.save({k: v.cpu() for k, v in self.net.state_dict().items()}, path)

    def save_training_state(self, iter_step):
        state = {'iter': iter_step, 'scheduler': self.scheduler.state_dict(), 'optimizer': self.optimizer.state_dict()}
        path = os.path.join(self.opt['path']['training_state'], '{}.state'.format(iter_step))
        torch.save(state, path)

    def resume_training(self, resume_state):
        self.scheduler.load_state_dict(resume_state['scheduler'])
        self.optimizer.load_state_dict(resume_state['optimizer'])
