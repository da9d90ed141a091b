"""The same with Hugging Face accelerate."""

import torch
import turns
from accelerate import Accelerator
from gpt import BATCH, GPT, rows
from torch.utils.data import DataLoader

accelerator = Accelerator(cpu=True)
torch.manual_seed(1)
model = GPT()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loader = DataLoader(rows(), batch_size=BATCH // accelerator.num_processes, shuffle=True, drop_last=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
while True:
    for tokens, targets in loader:
        turns.ready()
        loss = model(tokens, targets)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
