"""A small residual network with BatchNorm, in which an average of the weights is kept by hand."""

import copy
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lumi_moai

lumi_moai.enable_advanced_parallelization()
torch.manual_seed(2)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        return x + torch.relu(self.norm(self.conv(x)))


model = nn.Sequential(nn.Conv2d(3, 8, 3), Block(8), Block(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
model = model.to(device)
average = copy.deepcopy(model).eval().requires_grad_(False)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
images, labels = torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,))
for epoch in range(2):
    model.train()
    for a, b in DataLoader(TensorDataset(images, labels), batch_size=int(sys.argv[2]), shuffle=True):
        loss = nn.functional.cross_entropy(model(a.to(device)), b.to(device), label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                if kept.is_floating_point():
                    kept.mul_(0.9).add_(new, alpha=0.1)
        print(f"loss {loss.item():.7f}")
with torch.no_grad():
    print(f"average {average(images.to(device)).square().mean().item():.7f}")
torch.save({"model": model.state_dict(), "average": average.state_dict()}, sys.argv[1])
