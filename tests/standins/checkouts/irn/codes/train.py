import argparse
import os

import cv2
import numpy as np
import torch
import yaml

from models import create_model


class Pictures(torch.utils.data.Dataset):
    def __init__(self, opt, scale):
        self.root, self.scale = opt['dataroot_GT'], scale

    def __len__(self):
        return len(os.listdir(self.root))

    def __getitem__(self, index):
        picture = cv2.imread(os.path.join(self.root, '%d.png' % index))[:, :, ::-1]
        picture = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1) / 255.
        small = torch.nn.functional.avg_pool2d(picture, self.scale)
        return {'GT': picture, 'LQ': small}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('-opt', type=str)
    with open(parser.parse_args().opt) as f:
        opt = yaml.safe_load(f)
    root = os.path.abspath(os.path.join(__file__, '..', '..', 'experiments', opt['name']))
    for name in ('models', 'training_state', 'val_images'):
        opt['path'][name] = os.path.join(root, name)
        os.makedirs(opt['path'][name], exist_ok=True)
    torch.manual_seed(opt['train']['manual_seed'])
    scale = opt['network_G']['scale'] if 'network_G' in opt else 1
    train_opt, val_opt = opt['datasets']['train'], opt['datasets']['val']
    train_loader = torch.utils.data.DataLoader(
        Pictures(train_opt, scale), batch_size=train_opt['batch_size'], shuffle=True)
    val_loader = torch.utils.data.DataLoader(Pictures(val_opt, scale), batch_size=1)
    current_step, resume_state = 0, None
    if opt['path'].get('resume_state'):
        resume_state = torch.load(opt['path']['resume_state'])
    model = create_model(opt)
    if resume_state:
        current_step = resume_state['iter']
        model.resume_training(resume_state)
    while current_step < opt['train']['niter']:
        for data in train_loader:
            current_step += 1
            model.feed_data(data)
            model.optimize_parameters()
            for scheduler in model.schedulers:
                scheduler.step()
            if current_step % opt['train']['val_freq'] == 0:
                for n, data in enumerate(val_loader):
                    model.feed_data(data)
                    model.test()
                    folder = os.path.join(opt['path']['val_images'], str(n))
                    os.makedirs(folder, exist_ok=True)
                    picture = model.fake_H[0].clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()
                    cv2.imwrite(os.path.join(folder, '%d_%d.png' % (n, current_step)), picture)
            if current_step % opt['logger']['save_checkpoint_freq'] == 0:
                model.save(current_step)
                model.save_training_state(current_step)


if __name__ == '__main__':
    main()
