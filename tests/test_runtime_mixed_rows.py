"""Collate functions that make rows out of several samples are given the samples of the global batch, as on one device."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_device import plain, same_run
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, default_collate

from lumi_moai.runtime.parallel.mixed_rows import are_in, are_made_by

MIXED = """
import random, sys
import numpy as np
import lumi_moai
lumi_moai.enable_advanced_parallelization()
import torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate
torch.manual_seed(0), random.seed(0), np.random.seed(0)
x, y = torch.randn(23, 6), torch.randint(0, 3, (23,))

class Noisy(Dataset):
    def __len__(self):
        return 23
    def __getitem__(self, place):
        return x[place] + 0.1 * torch.randn(6) + random.random() + np.random.rand(), y[place]

class Stream(IterableDataset):
    def __iter__(self):
        for place in range(23):
            yield x[place], y[place]

def mix(batch):
    rows, labels = default_collate(batch)
    share, order = random.betavariate(0.4, 0.4), torch.randperm(len(rows))
    return share * rows + (1 - share) * rows[order], labels, labels[order], share

loader = DataLoader(DATA, batch_size=9, collate_fn=mix, num_workers=WORKERS, SHUFFLE)
net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for epoch in range(2):
    for rows, label, other, share in loader:
        out = net(rows)
        loss = share * F.cross_entropy(out, label) + (1 - share) * F.cross_entropy(out, other)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print("loss", loss.item(), share, len(rows))
torch.save([weight.detach() for weight in net.parameters()], sys.argv[1])
"""


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(("data", "workers"), [("Noisy()", 0), ("Noisy()", 2), ("Stream()", 0), ("Stream()", 1)])
def test_a_collate_function_mixes_the_rows_of_one_device(work, data, workers, count):
    shuffle = "" if data == "Stream()" else "shuffle=True"
    script = MIXED.replace("DATA", data).replace("WORKERS", str(workers)).replace("SHUFFLE", shuffle)
    _, ranks = same_run(work, script, *plain(work, script), count)
    assert ("a collate function makes rows out of several samples" in ranks[0].err) == (data == "Noisy()")


@pytest.mark.parametrize("data", ["Noisy()", "Stream()"])
@pytest.mark.parametrize("rows", ["rows[order]", "rows"], ids=["mixed", "apart"])
def test_a_collate_function_that_takes_whole_batches_only_gets_them(work, data, rows):
    script = MIXED.replace("DATA", data).replace("WORKERS", "0").replace("SHUFFLE", "drop_last=True")
    script = script.replace("rows, labels = ", "assert len(batch) == 9; rows, labels = ").replace("rows[order]", rows)
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert ("takes whole batches only" in ranks[0].err) == (data == "Noisy()")


def mixed(batch):
    rows, labels = default_collate(batch)
    order = torch.randperm(len(rows))
    return torch.lerp(rows, rows[order], 0.3), labels, labels[order]


def turned(batch):
    rows, labels = default_collate(batch)
    return (rows + rows.flip(0)) / 2, labels


def seldom(batch):
    return mixed(batch) if torch.rand(()) < 0.7 else (*default_collate(batch), torch.zeros(len(batch)))


def negative(batch):
    rows, labels = default_collate(batch)
    return {"anchor": rows, "other": rows.roll(1, 0), "label": labels}


def centred(batch):
    rows, labels = default_collate(batch)
    return (rows - rows.mean(0)) / rows.std(0), labels


class Cut:
    """CutMix, with a generator of its own, which asks for an even batch."""

    def __init__(self):
        self.chance = torch.Generator().manual_seed(1)

    def __call__(self, batch):
        assert len(batch) % 2 == 0
        rows, labels = default_collate(batch)
        start = int(torch.randint(0, 3, (), generator=self.chance))
        rows[..., start : start + 2] = rows.flip(0)[..., start : start + 2].clone()
        return rows, labels


def noisy(batch):
    rows, labels = default_collate(batch)
    return rows + torch.randn(rows.shape), labels


def masked(batch):
    rows, labels = default_collate(batch)
    return rows.masked_fill(torch.bernoulli(torch.full(rows.shape, 0.3)).bool(), 0), labels


def filled(batch):
    rows, labels = zip(*batch, strict=True)
    return pad_sequence([row[: 1 + abs(hash(row.sum().item())) % 5] for row in rows], True), torch.stack(labels)


def sorted_ones(batch):
    return default_collate(sorted(batch, key=lambda pair: len(pair[0])))


def failing(batch):
    raise KeyError("no such sample")


def uneven(batch):
    return default_collate(batch[:-1])


@pytest.mark.parametrize("collate", [mixed, turned, seldom, negative, centred, Cut()], ids=str)
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(8, 20))
def test_rows_out_of_several_samples_are_found(collate, seed, count):
    torch.manual_seed(seed)
    samples = [(torch.randn(6), torch.tensor(place)) for place in range(count)]
    drawn = torch.get_rng_state()
    assert are_made_by(collate, samples)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not isinstance(collate, Cut) or collate.chance.get_state().equal(Cut().chance.get_state())


@pytest.mark.parametrize("collate", [default_collate, list, noisy, masked, filled, sorted_ones, failing, uneven])
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(0, 20))
def test_rows_of_one_sample_each_are_left_to_the_ranks(collate, seed, count):
    torch.manual_seed(seed)
    assert not are_made_by(collate, [(torch.randn(6), torch.tensor(place)) for place in range(count)])


class Kept(Dataset):
    """Keeps what was fetched in a large tensor of its own; its rows are many."""

    def __init__(self):
        self.rows = [([place], {"label": place}) for place in range(300_000)]
        self.known = torch.zeros(2, 2**20)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, place):
        self.known[0, place] = place
        return torch.full((6,), float(place)), place


@pytest.mark.parametrize(("collate", "mixes"), [(mixed, True), (noisy, False)])
def test_a_large_data_set_is_asked_in_no_time(collate, mixes):
    data = Kept()
    began = time.thread_time()
    assert are_in(DataLoader(data, collate_fn=collate)) == mixes
    assert time.thread_time() - began < 0.5
