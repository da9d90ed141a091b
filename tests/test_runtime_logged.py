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
    if y.tolist()[0] == 1: print("first", out.sum().item())
    loss = (torch.tensor(weigh[y.numpy()]) * F.cross_entropy(out, y, reduction="none")).mean()
    loss += 0.1 * (torch.tensor([weigh[c] for c in y.tolist()]) * out[:, 0]).mean()
"""
    + STEP
    + """
print(said, truths, listed, names, hits, rates, counter, bins, kept.rows, Kept.added)
"""
    + TAIL
)
# Numbers under names and from functions of the script's own: some go to logs, some to the loss, some are new each time.
FLOW = (
    HEAD
    + """
class Log:
    def __init__(self): self.rows, self.seen = [], 0
    def update(self, preds, labels): self.rows.extend(zip(preds.tolist(), labels.tolist())); self.seen += len(preds)
def accuracy(out, y):
    p = out.argmax(1).cpu().numpy(); t = y.cpu().numpy()
    return (p == t).mean()
def both(out, y):
    preds = out.argmax(1).cpu().numpy()
    return preds, y.numpy()
def weights(table, y):
    found = [table[k] for k in y.tolist()]
    return torch.tensor(found)
def step(out, y, loss):
    right = (out.argmax(1).numpy() == y.numpy()).mean()
    return loss * 2, {"right": right}
def forever(loader):
    while True:
        for batch in loader: yield batch
def train():
    said, truths, rates, hits, log = [], [], [], 0, Log()
    of_row = np.zeros(ROWS)
    before, forgotten, confusion, table = np.full(ROWS, -1), np.zeros(ROWS, int), np.zeros((3, 3), int), np.array([1.0, 2.0, 0.5])
    for epoch in range(2):
        of_epoch = []
        for x, y, index in loader:
            out = net(x)
            per = F.cross_entropy(out, y, reduction="none")
            preds = out.argmax(1).detach().cpu().numpy(); labels = y.cpu().numpy()
            said.extend(preds); truths.extend(labels); of_epoch.append((preds == labels).mean()); hits += int((preds == labels).sum())
            rate = accuracy(out, y); rates.append(rate); counter = Counter(labels.tolist())
            i = index.numpy(); right = preds == labels; forgotten[i] += (before[i] == 1) & ~right; before[i] = right
            a, b = both(out, y); np.add.at(confusion, (a, b), 1); log.update(out.argmax(1), y)
            words = []; words.extend(y.tolist())
            keys = y.tolist(); per_key = torch.tensor([table[k] for k in keys])
            loss = (per * torch.tensor(table[y.numpy()]) * per_key * (1 + torch.tensor(words)) * weights(table, y)).mean()
            if rate > 0.3: loss = loss * 1.5
            loss, found = step(out, y, loss)
            for key, value in found.items(): rates.append((key, value))
            for q in out.argmax(1).tolist():
                if q == 1: hits += q
            lengths = []
            for k in y.tolist(): lengths.append(k + 1)
            loss = loss + 0.01 * (out[:, 1] * torch.tensor(lengths)).mean()
            optim.param_groups[0]["lr"] = 0.1 * (1 + rate)
            sums = [float(row.sum()) for row in x]; of_row[index.numpy()] = sums
            print(epoch, rate, sorted(counter.items()), preds[:3], labels)
            optim.zero_grad(); loss.backward(); optim.step()
            print(loss.item())
        print(np.mean(of_epoch), of_epoch)
    print(said, truths, rates, hits, forgotten, before, confusion, log.rows, log.seen)
train()
said, batches = [], iter(forever(loader))
for step in range(5):
    x, y, index = next(batches)
    out = net(x)
    p = out.argmax(1).numpy(); said.extend(p)
    fresh = []; fresh += y.tolist()
    loss = F.cross_entropy(out, y) + 0.1 * (out.logsumexp(1) * torch.tensor(fresh)).mean()
    optim.zero_grad(); loss.backward(); optim.step()
    print(loss.item())
print(said)
"""
    + TAIL
)
# Lists with an entry for each row; `kinds` is one for the whole batch.
NAMES = (
    HEAD
    + """
class Pictures(torch.utils.data.Dataset):
    def __init__(self): self.x, self.y = torch.randn(ROWS, 4), torch.randint(0, 3, (ROWS,))
    def __len__(self): return ROWS
    def __getitem__(self, i): return {"x": self.x[i], "y": self.y[i], "name": f"n{i}", "at": i, "box": {"id": i, "at": self.x[i, : i % 3]}}
def collate(rows):
    fields = {key: [row[key] for row in rows] for key in rows[0]}
    return {**fields, "x": torch.stack(fields["x"]), "y": torch.stack(fields["y"]), "kinds": ["a", "b", "c"]}
ahead, behind, of_name, ids, counter, last = [], [], {}, [], Counter(), []
for batch in DataLoader(Pictures(), BATCH, shuffle=True, collate_fn=collate):
    x, y, names, boxes = batch["x"], batch["y"], batch["name"], batch["box"]
    out = net(x)
    weight = torch.tensor([1.0 + len(box["at"]) for box in boxes]) * torch.tensor([float(name[1:]) for name in names])
    loss = (F.cross_entropy(out, y, reduction="none") * weight).mean()
    places = torch.tensor(batch["at"])
    print(sum(batch["at"]), max(batch["at"]))
    ahead += names
    counter.update(names)
    print(names, names[-1], names[:4], len(names), f"{sorted(names)}", batch["kinds"])
"""
    + STEP
    + """
    behind.extend(batch["name"])
    of_name.update(zip(names, p.tolist()))
    for name, box, k in zip(names, boxes, p): of_name[name] = k.item(), box["id"], box["at"].tolist(), batch["kinds"][k]
    ids += [box["id"] for box in boxes]
    print(places.tolist(), (places > 9).sum().item(), places.double().mean().item())
    last.append((boxes[-1]["at"].sum().item(), names.index(names[-2]), "n3" in names, names.count("n4"), max(names), max(names, key=len), sum(ids)))
    print(loss.item(), ", ".join(names), names + ["end"], ["first"] + names, list(enumerate(names)), [*reversed(names)], np.array(names))
    for i in range(len(names)): print(i, names[i], end=" ")
print(ahead, behind, of_name, ids, counter, last)
"""
    + TAIL
)
# As many numbers as the batch has rows: for what is kept those of all ranks, for the loss this rank's.
REPEATED = (
    HEAD
    + """
import itertools
scores, full, again, joined, behind, counter = [], [], [], np.array([]), [], Counter()
for x, y, index in loader:
    n = len(x)
    out = net(x)
    targets, weight, ones = torch.tensor([0.5] * n), torch.tensor(np.full(n, 2.0)), np.ones(y.size(0))
    loss = F.cross_entropy(out, y) + (targets * weight * out[:, 0]).sum() / n + (torch.from_numpy(ones) * out[:, 1]).mean()
    scores += [round(loss.item(), 9)] * n
    full.extend(np.full(n, loss.item())); again.extend(itertools.repeat("a", n))
    print([0] * n, np.linspace(0, 1, n), ["k"] * len(y), np.arange(len(x)))
"""
    + STEP
    + """
    joined = np.concatenate([joined, np.full(n, loss.item())]); counter.update(["s"] * n)
    behind += [round(loss.item(), 9)] * y.size(0)
    places, zeros = np.arange(n), np.zeros(n, int)
    print(places.sum(), zeros.shape, list(zip(places, y.tolist())), np.random.RandomState(0).permutation(n).tolist())
print(scores, len(full), np.mean(full), len(again), len(joined), joined.mean(), behind, counter)
"""
    + TAIL
)
# Words are made numbers in the loop: what the model gets is plain, and is the rank's rows all the same.
TEXTS = (
    HEAD
    + """
WORDS = ["good", "bad", "film", "plot", "fun", "dull"]
texts = [" ".join(WORDS[k] for k in torch.randint(0, 6, (2 + i % 5,))) for i in range(ROWS)]
rows = [(text, int("good" in text)) for text in texts]
def collate(rows): return [text for text, _ in rows], torch.tensor([label for _, label in rows])
def encode(texts):
    numbers = [[1 + WORDS.index(word) for word in text.split()] for text in texts]
    longest = max(map(len, numbers))
    return {"ids": torch.tensor([row + [0] * (longest - len(row)) for row in numbers]), "lengths": torch.tensor(list(map(len, numbers)))}
class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(7, 8, padding_idx=0), nn.Linear(8, 2)
    def forward(self, ids, lengths, scale): return self.head(self.words(ids).sum(1) / lengths[:, None]) * scale[0]
net, errors, said = Bag(), [], []
optim, scale = torch.optim.SGD(net.parameters(), lr=0.1), torch.tensor([2.0, 1.0, 0.0])
for texts, y in DataLoader(rows, BATCH, shuffle=True, collate_fn=collate):
    encoded = encode(texts)
    out = net(**encoded, scale=scale)
    loss = F.cross_entropy(out, y)
"""
    + STEP
    + """
    said += p.tolist()
    for text, a, b in zip(texts, p.tolist(), y.tolist()):
        if a != b: errors.append(text)
    print(loss.item(), encoded["lengths"].sum().item(), encoded["lengths"].tolist(), (encoded["ids"] > 0).sum().item(), texts[:5], scale.tolist())
    print((p == y).double().mean().item(), Counter(word for text in texts for word in text.split()), max(texts, key=len), sum(len(text) for text in texts))
print(said, errors)
"""
    + TAIL
)


@pytest.mark.parametrize(
    ("text", "count", "layout"),
    [
        *((TEXTS, 3, ""), (TEXTS, 2, "fsdp"), (REPEATED, 3, "")),
        *((COUNTED, 3, ""), (PLACES, 3, ""), (PLACES, 2, "fsdp"), (AHEAD, 3, ""), (AHEAD, 2, "fsdp")),
        *((FLOW, 3, ""), (FLOW, 2, "fsdp"), (NAMES, 3, ""), (NAMES, 2, "fsdp")),
        (NAMES.replace("ROWS, BATCH = 25, 7", "ROWS, BATCH = 9, 3"), 4, ""),
    ],
)
def test_what_is_logged_is_of_all_rows(work, text, count, layout):
    same_run(work, text, *plain(work, text), count, layout=layout)


MIXED = (
    HEAD
    + """
table, rates = np.array([1.0, 2.0, 0.5]), []
for x, y, index in loader:
    out = net(x)
    preds, labels = out.argmax(1).numpy(), y.numpy()
    right = preds == labels
    rates.append(right.mean())
    loss = (F.cross_entropy(out, y, reduction="none") * torch.tensor(table[labels])).mean()
    optim.zero_grad(); loss.backward(); optim.step()
    print(loss.item())
"""
    + TAIL
)


def test_what_goes_with_numbers_for_the_loss_is_of_the_same_rows(work):
    """Labels for the loss are a rank's, and so are predictions that are compared with them: a sentence says so."""
    _, ranks = same_run(work, MIXED, *plain(work, MIXED), 3)
    assert ranks[0].err.count("takes a list or an array of the rows of a batch before backward()") == 1
