"""As one writes it for one device."""

import torch
import turns
from gpt import BATCH, GPT, rows
from torch.utils.data import DataLoader

torch.manual_seed(1)
model = GPT()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loader = DataLoader(rows(), batch_size=BATCH, shuffle=True, drop_last=True)
while True:
    for tokens, targets in loader:
        turns.ready()
        loss = model(tokens, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
