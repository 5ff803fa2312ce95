import glob
import torchvision.transforms as T
import config as c
from PIL import Image
from torch.utils.data import Dataset, DataLoader


class Pictures(Dataset):
    def __init__(self, root):
        self.files = sorted(glob.glob(root + '/*.png'))

    def __getitem__(self, index):
        return T.ToTensor()(Image.open(self.files[index]))

    def __len__(self):
        return len(self.files)


trainloader = DataLoader(Pictures(c.TRAIN_PATH), batch_size=c.batch_size, shuffle=True)
testloader = DataLoader(Pictures(c.VAL_PATH), batch_size=2, shuffle=False)
