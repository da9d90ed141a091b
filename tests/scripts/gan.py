"""Two models and two optimizers in turn, one of them through the other."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lumi_moai

lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
makes = nn.Sequential(nn.Linear(4, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 6)).to(device)
judges = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1)).to(device)
criterion = nn.BCEWithLogitsLoss()
optimizer_makes = torch.optim.Adam(makes.parameters(), lr=0.01, betas=(0.5, 0.999))
optimizer_judges = torch.optim.Adam(judges.parameters(), lr=0.01, betas=(0.5, 0.999))
images, noises = torch.randn(16, 6), torch.randn(16, 4)
for epoch in range(2):
    for real, noise in DataLoader(TensorDataset(images, noises), batch_size=int(sys.argv[2]), shuffle=True):
        real = real.to(device)
        ones = torch.full((real.size(0), 1), 1.0, device=device)
        zeros = torch.full((real.size(0), 1), 0.0, device=device)
        fake = makes(noise.to(device))
        judges.zero_grad()
        loss_real = criterion(judges(real), ones)
        loss_real.backward()
        loss_fake = criterion(judges(fake.detach()), zeros)
        loss_fake.backward()
        optimizer_judges.step()
        makes.zero_grad()
        loss = criterion(judges(fake), ones)
        loss.backward()
        optimizer_makes.step()
        print(f"judges {loss_real.item() + loss_fake.item():.7f} makes {loss.item():.7f}")
torch.save([makes.state_dict(), judges.state_dict()], sys.argv[1])
