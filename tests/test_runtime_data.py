"""Every way to bring data to a training: samplers, loaders, batches of every shape, loops of every habit."""

import pytest
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit
from test_runtime_parallel import HEAD, refused

# Nested batches, streams that workers share out, weights and subsets, endless and zipped loaders, a loop that only
# looks at the data, evaluation between fetching a batch and training on it.
LOOPS = (
    HEAD
    + """
import collections, dataclasses, itertools
from torch.utils.data import Sampler, Subset, WeightedRandomSampler, get_worker_info, random_split
from transformers import BatchEncoding
x = torch.randn(22, 4, generator=torch.Generator().manual_seed(1))
Pair = collections.namedtuple("Pair", "x place")
@dataclasses.dataclass
class Held:
    x: torch.Tensor
    words: list
class Stream(IterableDataset):
    def __iter__(self):
        info = get_worker_info()
        return iter(x[info.id :: info.num_workers] if info else x)
class Ready(IterableDataset):
    def __init__(self, make):
        self.make = make
    def __iter__(self):
        return map(self.make, x.split(8))
class Order(Sampler):
    epoch = 0
    def set_epoch(self, epoch):
        self.epoch = epoch
    def __iter__(self):
        return iter(torch.randperm(22, generator=torch.Generator().manual_seed(self.epoch)).tolist())
    def __len__(self):
        return 22
order = Order()
LOADERS = {
    "named": (DataLoader([Pair(row, {"n": torch.tensor(1.0)}) for row in x], 8), lambda batch: batch.x * batch.place["n"][:, None]),
    "encoding": (DataLoader([BatchEncoding({"x": row}) for row in x], 8, collate_fn=lambda rows: BatchEncoding({"x": torch.stack([row["x"] for row in rows])})), lambda batch: batch.to("cpu")["x"]),
    "workers": (DataLoader(Stream(), 4, num_workers=2, drop_last=True), lambda batch: batch),
    "ready pair": (DataLoader(Ready(lambda rows: Pair(rows, {"n": rows})), None), lambda batch: batch.place["n"]),
    "ready held": (DataLoader(Ready(lambda rows: Held(rows, ["w"] * len(rows))), None), lambda batch: batch.x[: len(batch.words)]),
    "ready encoding": (DataLoader(Ready(lambda rows: BatchEncoding({"x": rows.numpy()})), None), lambda batch: torch.as_tensor(batch.convert_to_tensors("pt")["x"])),
    "weighted": (DataLoader(x, 8, sampler=WeightedRandomSampler(torch.arange(22.0), 19)), lambda batch: batch),
    "replaced": (DataLoader(x, 8, sampler=torch.utils.data.RandomSampler(x, replacement=True, num_samples=40)), lambda batch: batch),
    "subset": (DataLoader(Subset(x, range(3, 18)), 8, shuffle=True, drop_last=True), lambda batch: batch),
    "split": (DataLoader(random_split(x, [0.8, 0.2])[0], 8, shuffle=True), lambda batch: batch),
    "epochs": (DataLoader(x, 8, sampler=order), lambda batch: batch),
    "small": (DataLoader(x[:5], 1, shuffle=True), lambda batch: batch),
}
saved = []
# Looked at before there is an optimizer: all ranks see all of it.
rows = [row for batch in DataLoader(x, 8) for row in batch]
mean, spread = torch.stack(rows).mean(0), torch.stack(rows).std(0)
print(f"seen {len(rows)} {mean.sum().item()}")
model = nn.Linear(4, 4).cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.05)
def train(name, rows):
    loss = (model((rows - mean) / spread) - 1).abs().mean()
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(f"{name} loss {loss.item()}")
for name, (loader, take) in LOADERS.items():
    for epoch in range(2):
        order.set_epoch(epoch)
        for batch in loader:
            train(name, take(batch))
def endless(loader):
    while True:
        yield from loader
batches = endless(DataLoader(x, 8, shuffle=True))
for step in range(7):
    train("endless", next(batches))
for a, b in zip(DataLoader(x, 8, shuffle=True, drop_last=True), itertools.cycle(DataLoader(x + 1, 4, shuffle=True, drop_last=True))):
    train("zip", torch.cat([a, b]))
held_out = DataLoader(x[:7], 4)
def evaluate():
    model.eval()
    with torch.no_grad():
        total = sum((model(batch) - 1).abs().sum().item() for batch in itertools.islice(held_out, 1))
        whole = F.l1_loss(model(x), torch.ones(22, 4), reduction="sum").item()
    model.train()
    print(f"held out {total} {whole}")
for batch in DataLoader(x, 8, shuffle=True):
    evaluate()
    train("fetched before", batch)
evaluate()
torch.save(model.state_dict(), sys.argv[1])
"""
)


def test_every_loader_and_loop(work):
    lines, weights = plain(work, LOOPS)
    for count in (2, 4):
        same_run(work, LOOPS, lines, weights, count)


MADE = """
lumi_moai.enable_advanced_parallelization()
model = nn.Linear(4, 4)
optim = torch.optim.SGD(model.parameters(), lr=0.1)
class Odd:
    pass
class Ready(IterableDataset):
    def __init__(self, batch):
        self.batch = batch
    def __iter__(self):
        return iter([self.batch])
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("for batch in DataLoader(Ready(Odd()), None): pass", "a DataLoader gave a Odd"),
        ("for batch in DataLoader(Ready([torch.ones(4, 4), torch.ones(3, 4)]), None): pass", "different lengths"),
        ("for batch in DataLoader(torch.ones(4, 8), batch_sampler=[5]): pass", "a batch sampler gave a int"),
        ("loader = DataLoader(torch.ones(9, 4), 4)\nfor _ in range(2):\n    right = sum((model(batch) > 0).sum().item() for batch in loader)", "ran no backward"),
    ],
    ids=["odd", "lengths", "sampler", "no-backward"],
)  # fmt: skip
def test_data_that_cannot_be_shared_out_is_refused(work, body, words):
    refused(work, MADE + body, words)


# A diffusion, an autoencoder with noise inside, dropout; batches of 8, 8 and 5 rows.
CHANCE = (
    HEAD
    + """
x = torch.randn(21, 6, 8, generator=torch.Generator().manual_seed(1))
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.spread, self.back = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.layer = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 8), nn.Tanh())
    def forward(self, x):
        mean, spread = self.mean(x), self.spread(x)
        hidden = mean + torch.randn_like(spread) * spread
        return self.back(F.dropout(self.layer(hidden), 0.3, self.training))
model = Net().cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.05)
for epoch in range(2):
    for rows in DataLoader(x, batch_size=8, shuffle=True):
        steps = torch.randint(0, 10, (len(rows),), device="cuda") + torch.randint(low=1, high=3, size=(rows.shape[0],))
        steps += torch.randint(4, size=(len(rows),)) + torch.randint(0, high=2, size=[len(rows)])
        noise, scale = torch.randn(rows.shape), torch.rand(rows.size(0), 1, 1)
        noisy = rows + noise * steps[:, None, None] / 10 * scale
        if torch.rand(1) < 2:
            loss = F.mse_loss(model(noisy), noise)
        optim.zero_grad()
        loss.backward()
        optim.step()
        print(f"loss {loss.item()} next {torch.rand(()).item()}")
torch.save(model.state_dict(), sys.argv[1])
"""
)


def test_noise_for_the_rows_is_that_of_one_device(work):
    lines, weights = plain(work, CHANCE.replace(', device="cuda"', ""))
    _, ranks = same_run(work, CHANCE, lines, weights, 2)
    assert ranks[0].err.count("rows of the draw for the global batch") == 1


# As many numbers as a rank has rows, of the batch ahead: with workers and without, in the first loop and in later ones.
OF_A_ROW = (
    HEAD
    + """
import numpy as np
from torch.utils.data import Dataset
class Rows(Dataset):
    def __len__(self):
        return 14
    def __getitem__(self, place):
        own = torch.Generator().manual_seed(place)
        noise = torch.randn(2, generator=own).sum() + torch.randn(3, generator=own).sum()
        torch.manual_seed(place)
        np.random.seed(place)
        drawn = torch.rand(2).sum().item() + np.random.rand(2).sum() + np.random.rand(3).sum()
        return torch.full((4,), noise.item() + drawn)
model = nn.Linear(4, 2)
optim = torch.optim.SGD(model.parameters(), lr=0.001)
for epoch in range(2):
    for workers in (0, 1):
        for rows in DataLoader(Rows(), batch_size=5, num_workers=workers):
            loss = model(rows).square().mean()
            loss.backward()
            optim.step()
            optim.zero_grad()
            print(f"loss {loss.item()} {rows.mean().item()}")
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
)


def test_what_a_data_set_draws_for_a_row_is_no_noise_for_a_batch(work):
    same_run(work, OF_A_ROW, *plain(work, OF_A_ROW), 2)


# Noise of generators of numpy's older and newer kind, with arithmetic before it becomes a tensor; seeds of rows for a backward.
NOISE = """
import sys
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(0)
np.random.seed(0)
newer, older = np.random.Generator(np.random.PCG64(0)), np.random.RandomState(3)
assert isinstance(newer, np.random.Generator) and isinstance(np.random.default_rng(0), np.random.Generator)
assert isinstance(older, np.random.RandomState) and isinstance(np.random.mtrand._rand, np.random.RandomState)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)).cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.01)
for x in DataLoader(torch.randn(22, 4), batch_size=7):
    noisy = x + torch.from_numpy(newer.normal(size=x.shape)).float() * torch.as_tensor(older.rand(len(x), 1))
    fake = model(torch.from_numpy((0.1 * np.random.randn(len(x), 4) + 1).clip(0, 2).astype(np.float32)))
    loss = F.mse_loss(model(noisy.float()), x) + 0.01 * ((fake - 1) ** 2).sum()
    optim.zero_grad()
    loss.backward()
    out = model(x)
    out.backward(2 * (out - x).detach() / len(x))
    each = ((model(x) - x) ** 2).mean(1)
    each.backward((torch.ones_like(each) + torch.ones(len(x))) / 2 / len(x))
    optim.step()
    print(f"{loss.item():.6f} {each.sum().item():.6f}")
torch.save(model.state_dict(), sys.argv[1])
"""


@pytest.mark.parametrize("count", [2, 3])
def test_numpys_noise_is_that_of_one_device_whichever_generator_draws_it(work, count):
    lines, weights = plain(work, NOISE)
    same_run(work, NOISE, lines, weights, count, self_check=False)


def test_seeds_over_this_ranks_rows_are_refused(work):
    body = "for x in DataLoader(torch.ones(8, 4), 4):\n    each, n = model(x).mean(1), len(x.tolist())\n    each.backward(torch.ones(n) / n)"
    refused(work, MADE + body, "backward(gradient) begins with 0.5, one over this rank's rows")


# Each data set draws from a generator of its own; no two rows of an epoch may be alike, nor two epochs.
OWN = """
import random, sys
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(0)
shared = np.random.Generator(np.random.PCG64(3))
class Jitter:
    def __init__(self, rng):
        self.rng = rng
    def __call__(self, row):
        return row + self.rng.random()
class Noisy(Dataset):
    def __init__(self, transform):
        self.transforms = [transform]
    def __len__(self):
        return 22
    def __getitem__(self, place):
        row = 0.0
        for transform in self.transforms:
            row = transform(row)
        return torch.tensor([float(row)])
chance = torch.Generator().manual_seed(0)
ways = {
    "numpy": Jitter(np.random.default_rng(0)),
    "python": Jitter(random.Random(0)),
    "older": Jitter(np.random.RandomState(0)),
    "torch": lambda row: row + float(torch.rand((), generator=chance).numpy()),
    "global": lambda row: row + shared.random(),
}
model = nn.Linear(1, 1)
optim = torch.optim.SGD(model.parameters(), lr=0.01)
for way, transform in ways.items():
    data, seen = Noisy(transform), []
    for epoch in range(2):
        for rows in DataLoader(data, batch_size=7, num_workers=WORKERS):
            loss = F.mse_loss(model(rows), rows)
            optim.zero_grad()
            loss.backward()
            optim.step()
            seen += [round(row, 6) for row in rows.flatten().tolist()]
    print(way, len(seen), len(set(seen)))
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_generators_of_a_data_set_draw_other_numbers_for_each_row(work, workers):
    run = Run(work, launch(3))
    ranks = run.ranks(submitit(3), run.script(OWN.replace("WORKERS", str(workers))))
    assert [rank.code for rank in ranks] == [0] * 3, ranks[0].err
    # A worker begins with the data set as it was, in each epoch, on one device too.
    different = 22 if workers else 44
    assert ranks[0].out.splitlines() == [
        f"{way} 44 {different}" for way in ("numpy", "python", "older", "torch", "global")
    ]


# Texts of unequal length: packed sequences, a mask, the names of the rows in a list, whose length weighs a mean.
TEXTS = (
    HEAD
    + """
from collections import defaultdict, deque
import numpy as np
from torch.utils.data import Dataset
class AverageMeter:
    def __init__(self): self.reset()
    def reset(self): self.val = self.avg = self.sum = self.count = 0
    def update(self, val, n=1):
        self.val = val; self.sum += val * n; self.count += n; self.avg = self.sum / self.count
class Data(Dataset):
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i):
        g = torch.Generator().manual_seed(i)
        return {"ids": torch.randint(1, 9, (2 + i % 4,), generator=g), "label": i % 3, "name": f"row{i}"}
def collate(rows):
    ids = nn.utils.rnn.pad_sequence([r["ids"] for r in rows], batch_first=True)
    return {"ids": ids, "mask": ids != 0, "label": torch.tensor([r["label"] for r in rows]), "name": [r["name"] for r in rows], "words": [len(r["ids"]) for r in rows], "share": [0.5 ** len(r["ids"]) for r in rows], "lengths": torch.tensor([len(r["ids"]) for r in rows])}
class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.rnn, self.out = nn.Embedding(9, 6, padding_idx=0), nn.GRU(6, 5, batch_first=True, bidirectional=True), nn.Linear(10, 3)
        self.att = nn.Linear(10, 1, bias=False)
    def forward(self, ids, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(self.emb(ids), lengths.cpu(), batch_first=True, enforce_sorted=False)
        h, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        a = self.att(h).squeeze(-1).masked_fill(ids[:, :h.size(1)] == 0, -1e9).softmax(-1)
        return self.out((a.unsqueeze(-1) * h).sum(1)), h
model = Tagger(); opt = torch.optim.Adam(model.parameters(), lr=0.01)
sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.05, total_steps=100)
losses, accs = AverageMeter(), AverageMeter()
hist = defaultdict(list); recent = deque(maxlen=3)
confusion = np.zeros((3, 3), int)
seen = shares = 0
for epoch in range(2):
    for step, batch in enumerate(DataLoader(Data(19), batch_size=6, shuffle=True, collate_fn=collate)):
        out, h = model(batch["ids"], batch["lengths"])
        ce = F.cross_entropy(out, batch["label"])
        lm = (h.pow(2).sum(-1) * batch["mask"]).sum() / batch["mask"].sum()
        loss = ce + 0.01 * lm + out.square().sum() / sum(batch["words"])
        seen += sum(batch["words"]); shares += sum(batch["share"])
        opt.zero_grad(); loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        opt.step(); sched.step()
        acc = (out.argmax(1) == batch["label"]).float().mean()
        losses.update(loss.item(), batch["label"].size(0)); accs.update(acc.item(), len(batch["name"]))
        recent.append(loss.item()); hist["norm"].append(float(norm))
        for t, p in zip(batch["label"].tolist(), out.argmax(1).tolist()):
            confusion[t, p] += 1
        if step % 2 == 0:
            print(f"{epoch} {step} {losses.val} ({losses.avg}) acc {accs.avg} lm {lm.item()} recent {sum(recent)/len(recent)} {batch['lengths'].float().mean().item()} {batch['mask'].sum().item()}")
    print("n", losses.count, accs.count, seen, shares, confusion.tolist())
print({k: [round(v, 5) * 1.0 for v in vs] for k, vs in hist.items()})
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
)


def test_texts_with_lists_of_names_are_counted_as_on_one_device(work):
    same_run(work, TEXTS, *plain(work, TEXTS), 3)
