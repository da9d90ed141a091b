"""A perceptron with plain momentum, a schedule, and evaluation by counting after each epoch."""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import lumi_moai

lumi_moai.enable_advanced_parallelization()
torch.manual_seed(1)
device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
x = torch.randn(21, 6)
rows = TensorDataset(x, (x.sum(1) > 0).long())
train_set, held_out = random_split(rows, [16, 5])
batch_size = int(sys.argv[2])
train = DataLoader(train_set, batch_size=batch_size, shuffle=True)
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
criterion = nn.CrossEntropyLoss()
best = float("inf")
for epoch in range(3):
    model.train()
    for images, labels in train:
        optimizer.zero_grad()
        loss = criterion(model(images.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        print(f"loss {loss.item():.7f}")
    model.eval()
    total, right = 0.0, 0
    with torch.no_grad():
        for images, labels in DataLoader(held_out, batch_size=batch_size):
            out = model(images.to(device))
            total += F.cross_entropy(out, labels.to(device), reduction="sum").item()
            right += (out.argmax(1).cpu() == labels).sum().item()
    scheduler.step(total)
    if total < best:
        best = total
        torch.save(model.state_dict(), sys.argv[1])
    print(f"held out {total / len(held_out):.7f} right {right} rate {optimizer.param_groups[0]['lr']:.7f}")
