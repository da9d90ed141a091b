"""One script for one device in every layout that spreads a model's weights: the same losses, norms and weights."""

import pytest
from one_device import plain, same_run

HEAD = """
import copy, sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7)
saved = {}
def keep(name, model):
    saved.update({f"{name}.{key}": torch.tensor(value.tolist()) for key, value in model.named_parameters()})
"""

# A hand-written GPT with tied weights, a scalar parameter, a frozen one; accumulation, clipping, a scheduler, a last
# batch of 3 rows; evaluation in between.
GPT = (
    HEAD
    + """
class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
    def forward(self, x, mask):
        y = self.norm(x)
        x = x + self.attention(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(x)
class GPT(nn.Module):
    def __init__(self, words=13, width=10, depth=4):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.place = nn.Parameter(torch.randn(6, width) / 10)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight
        self.heat = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("mask", torch.triu(torch.full((6, 6), float("-inf")), 1))
    def forward(self, tokens, targets=None):
        x = self.embed(tokens) + self.place
        for block in self.blocks:
            x = block(x, self.mask)
        scores = self.head(self.norm(x)) / self.heat
        return scores if targets is None else F.cross_entropy(scores.flatten(0, 1), targets.flatten())
model = GPT().cuda()
model.blocks[1].norm.weight.requires_grad_(False)
held = list(model.parameters())
optim = torch.optim.AdamW([
    {"params": [p for p in held if p.dim() > 1], "weight_decay": 0.1},
    {"params": [p for p in held if p.dim() <= 1], "weight_decay": 0.0},
], lr=0.01, eps=1e-3)  # the bias of attention keys has no gradient but rounding
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 12)
chance = torch.Generator().manual_seed(3)
tokens = torch.randint(0, 13, (19, 6), generator=chance)
targets = torch.where(torch.rand(19, 6, generator=chance) < 0.3, -100, tokens.roll(-1, 1))
step = 0
for epoch in range(3):
    model.train()
    for a, b in DataLoader(TensorDataset(tokens, targets), batch_size=8, shuffle=True):
        loss = model(a.cuda(), b.cuda())
        (loss / 2).backward()
        step += 1
        print(f"loss {loss.item()}")
        if step % 2 == 0:
            print(f"by hand {sum(p.grad.norm().item() ** 2 for p in held if p.grad is not None) ** 0.5}")
            print(f"norm {nn.utils.clip_grad_norm_(model.parameters(), 0.5).item()} {held[0].grad.sum().item()}")
            optim.step()
            scheduler.step()
            optim.zero_grad()
    model.eval()
    for a, b in DataLoader(TensorDataset(tokens, targets), batch_size=7):
        with torch.no_grad():
            print(f"held out {model(a, b).item()}")
print(type(model).__name__, type(model.blocks[0]).__name__, model.head.weight is model.embed.weight)
print([name for name, _ in model.named_parameters()])
keep("gpt", model)
torch.save(saved, sys.argv[1])
"""
)


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    return plain(tmp_path_factory.mktemp("plain"), GPT)


@pytest.mark.parametrize(
    ("layout", "count"),
    [
        ("fsdp", 2),
        ("zero2,recompute=every-2", 2),
        ("hsdp,recompute=full", 4),
        ("fsdp,offload,recompute=selective", 2),
        ("replicate,recompute=full", 2),
    ],
)
def test_a_transformer_trains_alike_in_every_layout(tmp_path, gpt, layout, count):
    lines, weights = gpt
    same_run(tmp_path, GPT, lines, weights, count, layout=layout)
