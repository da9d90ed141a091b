"""A GPT by hand: tied weights, two groups of weight decay, a cosine, gradients of two batches added up."""

import math
import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

import lumi_moai

lumi_moai.enable_advanced_parallelization()
torch.manual_seed(4)
device = "cuda" if torch.cuda.is_available() else "cpu"
WIDTH, HEADS, BLOCKS, WORDS, LENGTH = 16, 2, 2, 23, 12


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attend, self.project = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        rows, length, _ = x.shape
        parts = self.attend(self.first(x)).view(rows, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).reshape(rows, length, WIDTH))
        return x + self.mlp(self.second(x))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens, targets=None):
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        loss = None if targets is None else F.cross_entropy(logits.view(-1, WORDS), targets.view(-1))
        return logits, loss


class Windows(Dataset):
    def __init__(self):
        self.text = torch.randint(0, WORDS, (16 + LENGTH,))

    def __len__(self):
        return 16

    def __getitem__(self, start):
        return self.text[start : start + LENGTH], self.text[start + 1 : start + 1 + LENGTH]


model = GPT().to(device)
decayed = [p for p in model.parameters() if p.dim() > 1]
others = [p for p in model.parameters() if p.dim() == 1]
optimizer = torch.optim.AdamW(
    [{"params": decayed}, {"params": others, "weight_decay": 0.0}], lr=0.01, betas=(0.9, 0.95)
)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(step / 10)))
step = 0
for epoch in range(2):
    for tokens, targets in DataLoader(Windows(), batch_size=int(sys.argv[2]), shuffle=True):
        _, loss = model(tokens.to(device), targets.to(device))
        (loss / 2).backward()
        step += 1
        print(f"loss {loss.item():.7f}")
        if step % 2 == 0:
            print(f"norm {torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item():.7f}")
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
torch.save({"model": model.state_dict(), "step": step}, sys.argv[1])
