"""Habits of older scripts: noise of numpy, `Variable`, `torch.cuda.FloatTensor`; as on one device."""

import pytest
from one_device import plain, same_run

HEAD = """
import sys, types
sys.modules["odd"] = types.SimpleNamespace(__file__="odd.py")  # as packages do that are an object
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Variable
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7); np.random.seed(7)
x = torch.randn(19, 6); y = torch.randint(0, 3, (19,))
"""
# A generator and a critic with a gradient penalty, on noise that numpy draws for as many rows as the batch has.
NOISE = (
    HEAD
    + """
Tensor = torch.cuda.FloatTensor if torch.cuda.is_available() else torch.FloatTensor
Whole = torch.cuda.LongTensor if torch.cuda.is_available() else torch.LongTensor
make = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 6))
judge = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
makes = torch.optim.Adam(make.parameters(), lr=0.01); judges = torch.optim.Adam(judge.parameters(), lr=0.01)
tag = nn.Embedding(3, 2)
own = np.random.default_rng(3)
def penalty(real, made):
    part = Tensor(np.random.random((real.size(0), 1)))
    between = (part * real + (1 - part) * made).requires_grad_(True)
    seeds = Variable(Tensor(real.shape[0], 1).fill_(1.0), requires_grad=False)
    slopes = torch.autograd.grad(judge(between), between, seeds, create_graph=True)[0]
    return ((slopes.view(slopes.size(0), -1).norm(2, dim=1) - 1) ** 2).mean()
for epoch in range(2):
    for rows, labels in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True):
        real = Variable(rows.type(Tensor))
        z = Variable(Tensor(np.random.normal(0, 1, (rows.shape[0], 4))))
        judges.zero_grad()
        made = make(z)
        loss = judge(made).mean() - judge(real).mean() + 10 * penalty(real.data, made.data)
        loss.backward(); judges.step()
        makes.zero_grad()
        n = rows.shape[0]
        z = Tensor(np.random.randn(n, 4)) + Tensor(np.random.uniform(-1, 1, size=(n, 4)))
        z = z + Tensor(own.normal(size=(n, 4))) + Tensor(own.random((len(rows), 1))) + 0.1 * Tensor(own.standard_normal((n, 4)))
        kinds = Whole(own.integers(0, 3, n)); tags = tag(kinds)
        more = Whole(np.random.choice(3, n)); less = Whole(np.random.randint(0, 3, n))
        loss2 = -judge(make(z)).mean() + F.cross_entropy(make(z)[:, :3], kinds) + F.cross_entropy(make(z)[:, :3], more) + F.cross_entropy(make(z)[:, :3], less)
        loss2.backward(); makes.step()
        print(kinds.data.numpy(), f"{tags.sum():.6f}")
        print(f"{loss.item():.6f} {loss2.item():.6f}", np.random.rand(), np.random.randint(5), own.random())
        print(tuple(made.data[:5].shape), f"{made.data[:5].sum():.6f}", np.concatenate([made.data.numpy(), real.numpy()]).shape)
torch.save([*make.state_dict().values(), *judge.parameters()], sys.argv[1])
"""
)
# The batch's size as a number, pictures of its rows, and a model that is called on them behind the loop.
SIZES = (
    HEAD
    + """
size = 8
class Coder(nn.Module):
    def __init__(self): super().__init__(); self.a = nn.Linear(6, 8); self.b = nn.Linear(4, 6)
    def forward(self, x):
        mean, spread = self.a(x).chunk(2, dim=1)
        kept = torch.bernoulli(torch.zeros_like(mean) + 0.7) * x.new_empty(x.size(0), 1).bernoulli_(0.8)
        return self.b(kept * mean + torch.randn_like(spread) * spread.exp()), mean, spread
coder = Coder(); judge = nn.Sequential(nn.Linear(6, 1), nn.Sigmoid())
optim = torch.optim.SGD([*coder.parameters(), *judge.parameters()], lr=0.05)
ones, zeros = torch.ones(size, 1), torch.zeros(size, 1)
kept = []
for epoch in range(3):
    for rows, labels in DataLoader(TensorDataset(x, y), batch_size=size, shuffle=True, drop_last=True):
        rows = rows.reshape(size, -1)
        noisy = rows + 0.1 * torch.randn(size, 6)
        noisy = noisy + torch.empty(rows.size(0), 1).uniform_(-0.1, 0.1)
        out, mean, spread = coder(noisy.view(size, 2, 3).flatten(1))
        made, _, _ = coder(torch.randn(size, 6))
        loss = F.mse_loss(out, rows) + F.binary_cross_entropy(judge(rows), ones) + F.binary_cross_entropy(judge(made), zeros)
        loss = loss + 0.01 * (mean.pow(2) + spread.exp() - spread).sum() / size
        both = torch.cat([mean, spread], dim=1)
        pairs = torch.stack([mean, spread], dim=1)
        first, second = pairs.unbind(1)
        loss = loss + F.mse_loss(out[:5], rows[:5]) + 0.1 * (out[:3, 1:] ** 2).mean()
        loss = loss + 0.01 * (both.sum(0) / size).norm() + 0.01 * (first.sum(0) * second.sum(0)).sum() / size
        optim.zero_grad(); loss.backward(); optim.step()
        wrong = F.binary_cross_entropy(judge(rows), ones, reduction="none").mean()
        print(f"{loss.item():.6f} {wrong.item():.6f}", ((judge(rows) > 0.5) == ones.bool()).sum().item())
    with torch.no_grad():
        out, _, _ = coder(rows)
        print(f"{out.sum().item():.6f} {F.mse_loss(out, rows).item():.6f}", torch.rand(1).item())
        print(tuple(out[:min(20, out.size(0))].shape), f"{out[:min(20, out.size(0))].sum():.6f}")
        kept.append(torch.cat([rows, out], dim=1))
        torch.save({"rows": kept[-1], "labels": [labels]}, sys.argv[1] + ".rows")
        both = torch.load(sys.argv[1] + ".rows")
        print(tuple(both["rows"].shape), f"{both['rows'].sum():.6f}", both["labels"][0].tolist())
torch.save([*coder.parameters(), *judge.parameters()], sys.argv[1])
"""
)


@pytest.mark.parametrize("text", [pytest.param(NOISE, id="noise"), pytest.param(SIZES, id="sizes")])
@pytest.mark.parametrize("ranks", [2, 4])
def test_an_older_script_prints_the_numbers_of_one_device(work, text, ranks):
    lines, weights = plain(work, text)
    same_run(work, text, lines, weights, ranks)


# A model that is made while a batch is at hand, with as many outputs as a rank has rows: what is drawn is for weights.
LATE = (
    HEAD
    + """
model = nn.Linear(6, 3).cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for step, (rows, labels) in enumerate(DataLoader(TensorDataset(x, y), batch_size=8)):
    if step == 0:
        head, words = nn.Linear(3, 4), nn.Embedding(4, 3)
        more = torch.optim.SGD([*head.parameters(), *words.parameters()], lr=0.1)
        head, words = head.cuda(), words.cuda()
        print(f"{head.weight.sum().item():.6f} {words.weight.sum().item():.6f} {torch.rand(1).item():.6f}")
    loss = F.cross_entropy(head(model(rows.cuda()) + words(labels.cuda())), labels.cuda())
    optim.zero_grad(); more.zero_grad()
    loss.backward()
    optim.step(); more.step()
    print(f"{loss.item():.6f}")
torch.save([*model.parameters(), *head.parameters(), *words.parameters()], sys.argv[1])
"""
)


@pytest.mark.parametrize("layout", ["replicate", "fsdp"])
def test_a_model_that_is_made_in_the_loop_has_one_devices_weights(work, layout):
    same_run(work, LATE, *plain(work, LATE), 2, layout=layout)
