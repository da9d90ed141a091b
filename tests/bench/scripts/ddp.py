"""The same by hand with torch's DistributedDataParallel."""

import torch
import torch.distributed as dist
import turns
from gpt import BATCH, GPT, rows
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

dist.init_process_group("gloo")
torch.manual_seed(1)
model = DistributedDataParallel(GPT())
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
data = rows()
loader = DataLoader(data, batch_size=BATCH // dist.get_world_size(), sampler=DistributedSampler(data), drop_last=True)
while True:
    for tokens, targets in loader:
        turns.ready()
        loss = model(tokens, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
