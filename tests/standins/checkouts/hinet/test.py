import torch
import torchvision
from model import *
import config as c
import datasets
import modules.Unet_common as common


def load(name):
    state_dicts = torch.load(name)
    net.load_state_dict({k: v for k, v in state_dicts['net'].items() if 'tmp_var' not in k})


net = Model()
net.cuda()
init_model(net)
net = torch.nn.DataParallel(net, device_ids=c.device_ids)
load(c.MODEL_PATH + c.suffix)
dwt, iwt = common.DWT(), common.IWT()
with torch.no_grad():
    for i, data in enumerate(datasets.testloader):
        output = net(torch.cat((dwt(data[1:]), dwt(data[:1])), 1))
        output_steg = output.narrow(1, 0, 4 * c.channels_in)
        output_z = output.narrow(1, 4 * c.channels_in, output.shape[1] - 4 * c.channels_in)
        output_rev = torch.cat((output_steg, torch.randn(output_z.shape)), 1)
        bacward_img = net(output_rev, rev=True)
        secret_rev = iwt(bacward_img.narrow(1, 4 * c.channels_in, bacward_img.shape[1] - 4 * c.channels_in))
        torchvision.utils.save_image(secret_rev, c.IMAGE_PATH_secret_rev + '%.5d.png' % i)
