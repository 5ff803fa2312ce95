import torch
import numpy as np
from model import *
import config as c
from tensorboardX import SummaryWriter
import datasets
import modules.Unet_common as common


def gauss_noise(shape):
    return torch.randn(tuple(shape)).cuda()


def load(name):
    state_dicts = torch.load(name)
    network_state_dict = {k: v for k, v in state_dicts['net'].items() if 'tmp_var' not in k}
    net.load_state_dict(network_state_dict)
    try:
        optim.load_state_dict(state_dicts['opt'])
    except:
        print('Cannot load optimizer for some reason or other')


def run(data):
    cover, secret = data[data.shape[0] // 2:], data[:data.shape[0] // 2]
    output = net(torch.cat((dwt(cover), dwt(secret)), 1))
    output_steg = output.narrow(1, 0, 4 * c.channels_in)
    output_z = output.narrow(1, 4 * c.channels_in, output.shape[1] - 4 * c.channels_in)
    output_z_guass = gauss_noise(output_z.shape)
    output_rev = torch.cat((output_steg, output_z_guass), 1)
    output_image = net(output_rev, rev=True)
    secret_rev = output_image.narrow(1, 4 * c.channels_in, output_image.shape[1] - 4 * c.channels_in)
    return cover, secret, iwt(output_steg), iwt(secret_rev)


net = Model()
net.cuda()
init_model(net)
net = torch.nn.DataParallel(net, device_ids=c.device_ids)
params_trainable = (list(filter(lambda p: p.requires_grad, net.parameters())))
optim = torch.optim.Adam(params_trainable, lr=c.lr, betas=c.betas, eps=1e-6, weight_decay=c.weight_decay)
dwt, iwt = common.DWT(), common.IWT()
if c.tain_next:
    load(c.MODEL_PATH + c.suffix)
writer = SummaryWriter()
for i_epoch in range(c.epochs):
    i_epoch = i_epoch + c.trained_epoch + 1
    for data in datasets.trainloader:
        cover, secret, steg, secret_rev = run(data)
        total_loss = (steg - cover).square().sum() + 5 * (secret_rev - secret).square().sum()
        total_loss.backward()
        optim.step()
        optim.zero_grad()
    if i_epoch % c.val_freq == 0:
        with torch.no_grad():
            psnr = [10 * np.log10(1 / (s - t).square().mean().item())
                    for _, s, _, t in map(run, datasets.testloader)]
            writer.add_scalars('PSNR_C', {'average psnr': np.mean(psnr)}, i_epoch)
    if i_epoch % c.SAVE_freq == 0:
        torch.save({'opt': optim.state_dict(), 'net': net.state_dict()},
                   c.MODEL_PATH + 'model_checkpoint_%.5i' % i_epoch + '.pt')
