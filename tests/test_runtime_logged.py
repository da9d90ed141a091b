"""What training loops count, keep and print of the rows behind `backward()` is that of the whole batch, row by row."""

import pytest
from one_device import plain, same_run

HEAD = """
import sys
from collections import Counter, defaultdict, deque
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
torch.set_default_dtype(torch.float64)
ROWS, BATCH = 25, 7
data = TensorDataset(torch.randn(ROWS, 4), torch.randint(0, 3, (ROWS,)), torch.arange(ROWS))
net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
optim = torch.optim.SGD(net.parameters(), lr=0.1)
loader = DataLoader(data, batch_size=BATCH, shuffle=True)
"""
STEP = """
    optim.zero_grad()
    loss.backward()
    optim.step()
    p = out.argmax(1)
"""
TAIL = """
torch.save(list(net.parameters()), sys.argv[1])
"""
COUNTED = (
    HEAD
    + """
hits, confusion, table, last, histories = torch.zeros(1), torch.zeros(3, 3), np.zeros((3, 3), int), deque(maxlen=3), defaultdict(list)
outs, of_place, of_rows, start = torch.zeros(ROWS, 3), torch.zeros(ROWS), np.zeros(ROWS), 0
truths, said, listed, accuracies, wrong, by_class, of_class = [], [], [], [], [], [0] * 3, [0] * 3
sizes, predicted, counter, best, smooth = [0] * 7, torch.zeros(3, dtype=torch.long), Counter(), (1e9, None), None
for i, (x, y, index) in enumerate(loader):
    out = net(x)
    per = F.cross_entropy(out, y, reduction="none")
    loss = per.mean()
"""
    + STEP
    + """
    hits += torch.sum(p == y.data)
    truths.extend(y.cpu().numpy()); said.append(p.cpu().numpy()); listed += list(p.numpy()); accuracies.append((p == y).double().mean())
    for a, b in zip(y, p): confusion[a, b] += 1
    np.add.at(table, (y.numpy(), p.numpy()), 1); last.append(loss.item())
    for k, l in zip(index, per.tolist()): histories[int(k)].append(l)
    outs[start:start + len(x)] = out.detach(); of_place[i * BATCH:(i + 1) * BATCH] = per.detach()
    of_rows[start:start + x.shape[0]] = per.detach().numpy(); start += len(x)
    predicted += F.one_hot(p, 3).sum(0); counter.update(p.tolist()); wrong += [int(v) for v in index[p != y]]
    for c in range(3):
        k = y == c
        by_class[c] += (p[k] == c).sum().item(); of_class[c] += k.sum().item()
    same = p == y
    for k, size in enumerate((sum(same).item(), sum(1 for a, b in zip(p, y) if a == b), np.sum(p.numpy() == y.numpy()), len(p[same]),
                              torch.nonzero(same).size(0), torch.count_nonzero(same).item(), p[same].size(0))):
        sizes[k] += size
    smooth = out.detach().mean(0) if smooth is None else 0.9 * smooth + 0.1 * out.detach().mean(0)
    if per.min().item() < best[0]: best = (per.min().item(), x[per.argmin()].tolist(), index[per.argmin()].item())
    print(p[:3].tolist(), out[0].tolist(), per.argmax().item(), per.topk(2).indices.tolist(), f"{out.softmax(1).max(1).values.min():.6f}")
    print([(p[j].item(), y[j].item()) for j in range(min(3, len(x)))], np.percentile(per.detach().numpy(), 90), torch.median(per).item())
    print(per.sort(descending=True)[1].tolist(), list(map(int, y)), max(per).item(), min(y.tolist()), any(p != y), out.detach().T.shape)
print(hits, truths, np.concatenate(said), listed, torch.stack(accuracies).mean().item(), confusion.tolist(), table.tolist(), np.mean(last))
print(sorted(histories.items()), outs.sum(1).tolist(), of_place.tolist(), of_rows.tolist(), predicted, counter, wrong, by_class, of_class)
print(sizes, best, smooth.tolist())
"""
    + TAIL
)
PLACES = (
    HEAD
    + """
table, count = torch.zeros(ROWS), 0
for x, y, index in loader:
    out = net(x)
    per = F.cross_entropy(out, y, reduction="none")
    hard = (per.detach() > 0.9).nonzero().flatten()
    loss = per.mean() + 0.1 * per[hard].mean() + 0.1 * out[torch.where(out > 0)].sum() / len(x) + 0.01 * len(torch.unique(y))
"""
    + STEP
    + """
    w = (p != y).nonzero().flatten()
    print(w.tolist(), out[w].tolist(), x[torch.where(p != y)[0]].sum().item(), y[torch.where(p != y)].tolist(), w.max())
    print(index[torch.nonzero(p != y).squeeze(1)].tolist(), per[(per > 1).nonzero(as_tuple=True)].mean().item(), torch.argwhere(out > 0).tolist())
    print(len(w), w.numel(), w.shape, torch.where(p != y)[0].numpy(), p[w] == y[w], (p[w] == 1).sum().item(), [x[j].sum().item() for j in w])
    table[index[w]] += 1
    count += w.shape[0]
    for j in torch.nonzero(p != y): print(j.item(), index[j].item())
    for a, b in (out > 0.5).nonzero().tolist(): print(a, b, out[a, b].item())
    print(table.tolist(), count, x.index_select(0, w).sum().item(), out.gather(1, p[:, None])[w].flatten().tolist())
    print(torch.unique(y), torch.unique(p, return_counts=True), torch.unique(p, return_inverse=True)[1].tolist())
    print(torch.unique(torch.stack([y, p], 1), dim=0, return_counts=True), torch.unique_consecutive(p), y.unique(return_counts=True)[1])
"""
    + TAIL
)
# Before backward, statements that only keep, count or print; `weigh` is for the loss, of the rank's rows.
AHEAD = (
    HEAD
    + """
said, truths, listed, names, hits, rates, counter, bins = [], [], [], np.array([]), 0, [], Counter(), np.zeros(3)
class Kept:
    rows, added = [], 0
    def add(self, *words):
        self.rows += words
        Kept.added += 1
kept, weigh = Kept(), np.array([1.0, 2.0, 0.5])
for step, (x, y, index) in enumerate(loader):
    out = net(x)
    p = out.argmax(1)
    said.extend(p.tolist()); truths += y.cpu().numpy().tolist(); names = np.append(names, index.numpy())
    hits += (p.numpy() == y.numpy()).sum() + sum(1 for a, b in zip(p.tolist(), y.tolist()) if a == b)
    rates.append(float(np.mean(p.detach().cpu().numpy() == y.numpy()))); counter.update(y.tolist())
    bins += np.bincount(p.numpy(), minlength=3); listed += [int(v) for v in p.tolist()]; kept.add(len(y.tolist()), sorted(p.tolist()))
    print(step, p, [y], f"{x[:, 0]} {index.tolist()}", *out.detach().numpy()[-1])
    loss = (torch.tensor(weigh[y.numpy()]) * F.cross_entropy(out, y, reduction="none")).mean()
    loss += 0.1 * (torch.tensor([weigh[c] for c in y.tolist()]) * out[:, 0]).mean()
"""
    + STEP
    + """
print(said, truths, listed, names, hits, rates, counter, bins, kept.rows, Kept.added)
"""
    + TAIL
)


@pytest.mark.parametrize(
    ("text", "count", "layout"),
    [(COUNTED, 3, ""), (PLACES, 3, ""), (PLACES, 2, "fsdp"), (AHEAD, 3, ""), (AHEAD, 2, "fsdp")],
)
def test_what_is_logged_is_of_all_rows(work, text, count, layout):
    same_run(work, text, *plain(work, text), count, layout=layout)
