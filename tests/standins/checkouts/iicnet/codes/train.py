import argparse
import json
import os

import cv2
import numpy as np
import torch
import yaml

from models import create_model


class Scenes(torch.utils.data.Dataset):
    def __init__(self, opt):
        with open(opt['annotation_path']) as f:
            self.items = [entry for scene in json.load(f).values() for entry in scene.values()]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        frames = [cv2.imread(item[key]) for key in sorted(item) if 'input_frame' in key]
        frames = np.transpose(np.concatenate(frames, axis=2), (2, 0, 1))
        ref_frame = np.transpose(cv2.imread(item['ref_frame_path']), (2, 0, 1))
        return {'input_frames': torch.from_numpy(frames).float() / 255.0,
                'ref_frame': torch.from_numpy(ref_frame).float() / 255.0}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('-opt', type=str)
    with open(parser.parse_args().opt) as f:
        opt = yaml.safe_load(f)
    root = os.path.abspath(os.path.join(__file__, '..', '..', 'experiments', opt['name']))
    for name in ('models', 'training_state', 'val_samples'):
        opt['path'][name] = os.path.join(root, name)
        os.makedirs(opt['path'][name], exist_ok=True)
    torch.manual_seed(opt['train']['manual_seed'])
    train_loader = torch.utils.data.DataLoader(
        Scenes(opt['datasets']['train']), batch_size=2, shuffle=True)
    val_loader = torch.utils.data.DataLoader(Scenes(opt['datasets']['val']), batch_size=1)
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
            model.train(data)
            model.scheduler.step()
            if current_step % opt['train']['val_freq'] == 0:
                for n, data in enumerate(val_loader):
                    with torch.no_grad():
                        model.run(data)
                    folder = os.path.join(
                        opt['path']['val_samples'], str(current_step), str(n), '0000')
                    os.makedirs(folder, exist_ok=True)
                    frame = model.embedding[0].clamp(0, 1).mul(255).byte().permute(1, 2, 0)
                    cv2.imwrite(os.path.join(folder, 'embedding.png'), frame.numpy())
            if current_step % opt['logger']['save_checkpoint_freq'] == 0:
                model.save(current_step)
                model.save_training_state(current_step)


if __name__ == '__main__':
    main()
