"""What people write in training scripts for one device, in small parts that fit together by their names.

A part is a name and its lines. Each knows the names that the others agree on: `x`, `y` and `lengths` of a batch, `model`,
`out` (what the model gives), `z` (its features), `per` (a loss for each row), `loss`, `optimizer`, `epoch`, `step`.
"""

HEAD = """
import copy, json, math, random, sys
from collections import Counter, defaultdict, deque, namedtuple
from dataclasses import dataclass
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import (BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler,
                              Subset, SubsetRandomSampler, TensorDataset, WeightedRandomSampler, random_split)
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(SEED)
random.seed(SEED)
np.random.seed(SEED)
"""

# ---------------------------------------------------------------------------------------------------------------- data
INPUTS = {
    "table": "X = torch.randn(ROWS, 6)",
    "picture": "X = torch.rand(ROWS, 1, 6, 6)",
    "series": "X = torch.randn(ROWS, 5, 3)",
    "words": "X = [torch.randint(1, 12, (int(n),)) for n in torch.randint(2, 7, (ROWS,))]",
}
TARGETS = {
    "class": "Y = torch.randint(0, 4, (ROWS,))",
    "value": "Y = torch.randn(ROWS, 1)",
    "multi": "Y = (torch.rand(ROWS, 4) > 0.6).to(torch.get_default_dtype())",
    "rebuild": "Y = torch.randint(0, 4, (ROWS,))",
    "token": "Y = [torch.randint(0, 5, (len(row),)) for row in X]",
}
FITS = {
    "table": ("class", "class", "value", "multi", "rebuild"),
    "picture": ("class", "class", "multi", "rebuild"),
    "series": ("class", "value", "multi"),
    "words": ("class", "value", "token"),
}
WIDTH_OUT = {"class": 4, "value": 1, "multi": 4, "rebuild": 4, "token": 5}

DATASETS = {  # the data set, how a loop takes a batch of it, and the first lines in the loop
    "tensors": ("data = TensorDataset(X, Y)", "x, y", ""),
    "pairs": (
        """
class Rows(Dataset):
    def __init__(self, x, y): self.x, self.y = x, y
    def __len__(self): return len(self.x)
    def __getitem__(self, i): return self.x[i], self.y[i]
data = Rows(X, Y)""",
        "x, y",
        "",
    ),
    "dictionary": (
        """
class Rows(Dataset):
    def __len__(self): return len(X)
    def __getitem__(self, i): return {"x": X[i], "y": Y[i], "index": i}
data = Rows()""",
        "batch",
        'x, y, index = batch["x"], batch["y"], batch["index"]',
    ),
    "named": (
        """
Row = namedtuple("Row", "x y index")
data = [Row(X[i], Y[i], i) for i in range(ROWS)]""",
        "batch",
        "x, y, index = batch.x, batch.y, batch.index",
    ),
    "numbered": (
        """
class Rows(Dataset):
    def __len__(self): return len(X)
    def __getitem__(self, i): return i, X[i], Y[i]
data = Rows()""",
        "index, x, y",
        "",
    ),
    "arrays": (
        """
class Rows(Dataset):
    def __len__(self): return len(X)
    def __getitem__(self, i): return X[i].numpy() * 1.0, Y[i].numpy()
data = Rows()""",
        "x, y",
        "x = x.to(torch.get_default_dtype())",
    ),
    "stream": (
        """
class Stream(IterableDataset):
    def __iter__(self): return iter(zip(X, Y))
    def __len__(self): return ROWS
data = Stream()""",
        "x, y",
        "",
    ),
    "objects": (
        """
@dataclass
class Batch:
    x: torch.Tensor
    y: torch.Tensor
    names: list
def collate(rows):
    return Batch(torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows]), [row[2] for row in rows])
data = [(X[i], Y[i], f"row{i}") for i in range(ROWS)]""",
        "batch",
        "x, y, names = batch.x, batch.y, batch.names",
    ),
    "subset": ("data = Subset(TensorDataset(X, Y), list(range(0, ROWS, 2)) + list(range(1, ROWS - 3, 2)))", "x, y", ""),
    "split": ("data, left = random_split(TensorDataset(X, Y), [ROWS - 4, 4])", "x, y", ""),
}
WORDS = {
    "class": """
def collate(rows):
    words, tags = zip(*rows)
    return pad_sequence(words, batch_first=True), torch.stack(tags), torch.tensor([len(row) for row in words])
data = list(zip(X, Y))""",
    "token": """
def collate(rows):
    words, tags = zip(*rows)
    lengths = torch.tensor([len(row) for row in words])
    return pad_sequence(words, True), pad_sequence(tags, True, padding_value=-100), lengths
data = list(zip(X, Y))""",
}
WORDS["value"] = WORDS["class"]

LOADERS = {
    "shuffled": "batch_size=BATCH, shuffle=True",
    "ordered": "batch_size=BATCH",
    "dropped": "batch_size=BATCH, shuffle=True, drop_last=True",
    "generator": "batch_size=BATCH, shuffle=True, generator=torch.Generator().manual_seed(3)",
    "weighted": "batch_size=BATCH, sampler=WeightedRandomSampler(torch.linspace(0.5, 1.5, len(data)), len(data) + 2)",
    "replaced": "batch_size=BATCH, sampler=RandomSampler(data, replacement=True, num_samples=2 * BATCH + 1)",
    "chosen": "batch_size=BATCH, sampler=SubsetRandomSampler(range(3, len(data)))",
    "batches": "batch_sampler=BatchSampler(RandomSampler(data), BATCH, drop_last=False)",
    "buckets": "batch_sampler=[list(range(i, min(i + BATCH + i % 2, len(data)))) for i in range(0, len(data), BATCH + 1)]",
    "worker": "batch_size=BATCH, shuffle=True, num_workers=1",
}

# -------------------------------------------------------------------------------------------------------------- models
# Each body gives features of width 8, for each row or (words) for each word.
BODIES = {
    "table": {
        "mlp": (
            "self.body = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.Tanh())",
            "z = self.body(x)",
        ),
        "bn": (
            "self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8))",
            "z = self.body(x)",
        ),
        "dropout": (
            "self.body = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.2))",
            "z = self.body(x)",
        ),
        "named": ("self.fc1, self.fc2 = nn.Linear(6, 16), nn.Linear(16, 8)", "z = self.fc2(F.gelu(self.fc1(x)))"),
        "residual": (
            "self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8)",
            "h = torch.tanh(self.first(x))\nz = h + F.silu(self.second(h))",
        ),
        "center": (
            'self.body = nn.Linear(6, 8)\nself.register_buffer("center", torch.zeros(8))',
            "h = self.body(x)\nif self.training:\n    with torch.no_grad():\n"
            "        self.center.mul_(0.9).add_(h.mean(0), alpha=0.1)\nz = torch.tanh(h - self.center)",
        ),
        "scaled": (
            'self.body = nn.Linear(6, 8)\nself.register_buffer("seen", torch.tensor(0))\nself.register_buffer("scale", torch.ones(6))',
            "if self.training:\n    self.seen += len(x)\n    self.scale = 0.9 * self.scale + 0.1 * x.detach().std(0)\n"
            "z = torch.tanh(self.body(x / self.scale))",
        ),
        "experts": (
            "self.gate, self.experts = nn.Linear(6, 3), nn.ModuleList(nn.Linear(6, 8) for _ in range(3))",
            "gate = self.gate(x).softmax(1)\nz = sum(gate[:, i : i + 1] * e(x) for i, e in enumerate(self.experts))",
        ),
        "routed": (
            "self.gate, self.experts = nn.Linear(6, 3), nn.ModuleList(nn.Linear(6, 8) for _ in range(3))",
            "which = self.gate(x).argmax(1)\nz = torch.zeros(x.size(0), 8)\n"
            "for i, expert in enumerate(self.experts):\n    mine = which == i\n    z[mine] = expert(x[mine])",
        ),
        "embedded": (
            "self.table, self.body = nn.Embedding(5, 4), nn.Linear(9, 8)",
            "bins = (x[:, 0] * 2).long().clamp(-2, 2) + 2\nz = torch.relu(self.body(torch.cat([self.table(bins), x[:, 1:]], 1)))",
        ),
    },
    "picture": {
        "conv_bn": (
            "self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8))",
            "z = self.body(x)",
        ),
        "conv_gn": (
            "self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 8))",
            "z = self.body(x)",
        ),
        "conv_view": (
            "self.conv, self.pool, self.linear = nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Linear(16, 8)",
            "h = self.pool(F.relu(self.conv(x)))\nz = self.linear(h.view(h.size(0), -1))",
        ),
        "patches": (
            "self.embed = nn.Linear(9, 8)\nself.first = nn.Parameter(torch.zeros(1, 1, 8))\n"
            "self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)",
            "b = x.shape[0]\npatches = x.unfold(2, 3, 3).unfold(3, 3, 3).reshape(b, 4, 9)\n"
            "h = torch.cat([self.first.expand(b, -1, -1), self.embed(patches)], 1)\nz = self.block(h)[:, 0]",
        ),
        "flat": ("self.body = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ELU())", "z = self.body(x)"),
    },
    "series": {
        "lstm": ("self.body = nn.LSTM(3, 8, batch_first=True)", "h, _ = self.body(x)\nz = h[:, -1]"),
        "gru_state": ("self.body = nn.GRU(3, 8, num_layers=2, batch_first=True)", "_, h = self.body(x)\nz = h[-1]"),
        "gru_first": ("self.body = nn.GRU(3, 8)", "h, _ = self.body(x.transpose(0, 1))\nz = h.mean(0)"),
        "both_ways": (
            "self.body = nn.LSTM(3, 4, batch_first=True, bidirectional=True)",
            "start = torch.zeros(2, x.size(0), 4)\nh, (last, _) = self.body(x, (start, start))\n"
            "z = torch.cat([last[0], last[1]], dim=1)",
        ),
        "transformer": (
            "self.embed = nn.Linear(3, 8)\nself.place = nn.Parameter(torch.randn(5, 8) / 10)\n"
            "self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2, enable_nested_tensor=False)",
            "z = self.body(self.embed(x) + self.place, mask=nn.Transformer.generate_square_subsequent_mask(5)).mean(1)",
        ),
        "cell": (
            "self.cell = nn.GRUCell(3, 8)",
            "z = torch.zeros(x.size(0), 8)\nfor t in range(x.size(1)):\n    z = self.cell(x[:, t], z)",
        ),
        "conv": (
            "self.body = nn.Sequential(nn.Conv1d(3, 8, 2), nn.BatchNorm1d(8), nn.ReLU())",
            "z = self.body(x.transpose(1, 2)).amax(2)",
        ),
    },
    "words": {
        "packed": (
            "self.embed, self.body = nn.Embedding(12, 6, padding_idx=0), nn.LSTM(6, 8, batch_first=True)",
            "packed = pack_padded_sequence(self.embed(x), lengths, batch_first=True, enforce_sorted=False)\n"
            "h, _ = pad_packed_sequence(self.body(packed)[0], batch_first=True)",
        ),
        "masked": (
            "self.embed = nn.Embedding(12, 8, padding_idx=0)\n"
            "self.body = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)",
            "h = self.body(self.embed(x), src_key_padding_mask=x == 0)",
        ),
        "averaged": (
            "self.embed, self.body = nn.Embedding(12, 8), nn.Linear(8, 8)",
            "h = torch.tanh(self.body(self.embed(x)))",
        ),
        "attention": (
            "self.embed, self.query, self.key = nn.Embedding(12, 8), nn.Linear(8, 8), nn.Linear(8, 8)",
            "e = self.embed(x)\nscores = self.query(e) @ self.key(e).transpose(1, 2) / math.sqrt(8)\n"
            "scores = scores.masked_fill((x == 0)[:, None, :], float('-inf'))\nh = scores.softmax(-1) @ e",
        ),
    },
}
POOLS = {  # of words, to one row of features for each text
    "mean": "mask = (x != 0).unsqueeze(-1)\nz = (h * mask).sum(1) / mask.sum(1)",
    "max": "z = h.masked_fill((x == 0)[..., None], -1e9).amax(1)",
    "last": "z = h[torch.arange(len(x)), lengths - 1]",
    "gathered": "z = h.gather(1, (lengths - 1).view(-1, 1, 1).expand(-1, 1, h.size(2))).squeeze(1)",
}
