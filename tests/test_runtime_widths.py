"""Rows that each rank's collate function fills up to the longest of its own are as wide as those of one device."""

import pytest
from one_device import plain, same_run

from lumi_moai.runtime.parallel import fills

HEAD = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence, pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, IterableDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(5)
ROWS = [(torch.randint(1, 12, (2 + i * 7 % 5,)), torch.randint(3, (2 + i * 7 % 5,))) for i in range(23)]
def padded(words, labels):
    return pad_sequence(words, batch_first=True), pad_sequence(labels, batch_first=True, padding_value=-100)
def collate(rows):
    return padded(*zip(*rows))
"""
SAVED = "torch.save([p.detach() for p in model.parameters()], sys.argv[1])\n"
# The self-check ends at the first backward, and sees neither the second one nor what is printed.
TWICE = (
    HEAD
    + """
MADE
model = nn.Sequential(nn.Embedding(12, 8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
optim = torch.optim.SGD(model.parameters(), 0.05)
tokens = 0
for epoch in range(2):
    for TARGET in DataLoader(DATA, 5, collate_fn=collate, WORDS):
        FIRST
        out = model(words)
        loss = F.cross_entropy(out.transpose(1, 2), labels, ignore_index=-100)
        optim.zero_grad()
        loss.backward()
        second = model(words).pow(2).mean() * 0.1
        second.backward()
        optim.step()
        tokens += words.numel()
        print(f"loss {loss.item():.6f} {second.item():.6f} {words.shape[1]} {tuple(words.shape)} {tokens} {labels.tolist()}")
"""
    + SAVED
)
STREAM = "class Stream(IterableDataset):\n    def __iter__(self): return iter(ROWS)"
SORTED = "ROWS.sort(key=lambda row: len(row[0]))"
LEFT = HEAD.replace("pad_sequence(words, batch_first=True)", "pad_sequence(words, True, 0, 'left')")
COLLATED = {
    "plain": {},
    "left": {HEAD: LEFT},
    "workers": {"WORDS": "shuffle=True, num_workers=2"},
    "buckets": {"MADE": SORTED, "WORDS": ""},
    "stream": {"MADE": STREAM, "DATA": "Stream()", "WORDS": ""},
    "stream of buckets": {"MADE": f"{SORTED}\n{STREAM}", "DATA": "Stream()", "WORDS": ""},
    "lengths": {
        "MADE": "def collate(rows): return [len(row[0]) for row in rows], *padded(*zip(*rows))",
        "TARGET": "sizes, words, labels",
        "FIRST": "mask = torch.zeros(len(words), max(sizes)); mask += (words != 0); print(mask.mean(), max(sizes), min(sizes))",
    },
    "draws": {
        "MADE": "def collate(rows):\n    words, labels = padded(*zip(*rows))\n"
        "    return torch.where((torch.rand(words.shape) < 0.0) & (words != 0), 1, words), labels",
        "WORDS": "",
    },
    "dictionary": {
        "MADE": "def collate(rows):\n    words, labels = padded(*zip(*rows))\n    keep = words != 0\n"
        "    return dict(words=words, labels=labels, pairs=(keep[:, None] & keep[:, :, None]).float())",
        "TARGET": "batch",
        "FIRST": "words, labels, pairs = batch.values(); print(tuple(pairs.shape), pairs.mean().item())",
    },
}
REST = {"MADE": "", "TARGET": "words, labels", "DATA": "ROWS", "WORDS": "shuffle=True", "FIRST": ""}
# What is more than rows filled up is put together whole.
WHOLE = {
    "number": {
        "MADE": "def collate(rows): return max(len(row[0]) for row in rows), *padded(*zip(*rows))",
        "TARGET": "longest, words, labels",
        "FIRST": "print(longest, torch.ones(longest).sum().item())",
    },
    "places": {
        "MADE": "def collate(rows):\n    words, labels = padded(*zip(*rows))\n"
        "    return words, labels, torch.arange(words.shape[1]).expand_as(words)",
        "TARGET": "words, labels, places",
        "FIRST": "print(places.sum().item())",
    },
}


def written(changes):
    text = TWICE
    for name, words in {**REST, **changes}.items():
        text = text.replace(name, words)
    return text


@pytest.mark.parametrize("changes", COLLATED.values(), ids=COLLATED)
def test_what_is_made_of_the_width_is_that_of_one_device(work, changes):
    text = written(changes)
    _, ranks = same_run(work, text, *plain(work, text), 2)
    assert "self-check of the first step: loss" in ranks[0].err
    assert "whole batches" not in ranks[0].err


@pytest.mark.parametrize("changes", WHOLE.values(), ids=WHOLE)
def test_batches_with_more_than_rows_filled_up_are_put_together_whole(work, changes):
    text = written(changes)
    _, ranks = same_run(work, text, *plain(work, text), 3)
    assert "each rank puts whole batches together" in ranks[0].err


def test_three_ranks_and_weights_in_parts(work):
    text = written({})
    same_run(work, text, *plain(work, text), 3, layout="fsdp")


def test_time_first(work):
    text = written({HEAD: HEAD.replace(", batch_first=True", ""), "labels.tolist()": "labels.numel()"})
    text = text.replace("out.transpose(1, 2), labels", "out.permute(1, 2, 0), labels.t()")
    same_run(work, text, *plain(work, text), 2)


PACKED = (
    HEAD
    + """
def collate(rows):
    rows = ROWS_IN_ORDER
    return *padded(*zip(*rows)), torch.tensor([len(row[0]) for row in rows])
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.recurrent, self.head = nn.Embedding(12, 8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 3)
    def forward(self, x, lengths):
        packed = pack_padded_sequence(self.words(x), lengths, batch_first=True, enforce_sorted=IS_SORTED)
        return self.head(pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)[0])
model = Net()
optim = torch.optim.Adam(model.parameters(), 0.01)
for epoch in range(2):
    for x, y, lengths in DataLoader(ROWS, 5, collate_fn=collate, shuffle=True):
        out = model(x, lengths)
        loss = F.cross_entropy(out.reshape(-1, 3), y.reshape(-1), ignore_index=-100)
        optim.zero_grad()
        loss.backward()
        optim.step()
        print(f"loss {loss.item():.6f} {x.shape[1]} {out.shape[1]} {(out.argmax(2) == y).sum().item()} {y.numel()}")
    with torch.no_grad():  # one batch is fixed in width: what is unpacked there is as long as its longest row
        for x, y, lengths in DataLoader(ROWS, 2, collate_fn=lambda rows: collate([*rows, ROWS[12]])):
            print(model(x[:2], lengths[:2]).shape)
"""
    + SAVED
)


@pytest.mark.parametrize("order", ["rows", "sorted(rows, key=lambda row: -len(row[0]))"], ids=["any", "sorted"])
def test_what_is_unpacked_is_as_wide_as_the_batch(work, order):
    text = PACKED.replace("ROWS_IN_ORDER", order).replace("IS_SORTED", str("sorted" in order))
    same_run(work, text, *plain(work, text), 2)


def test_rows_as_many_as_steps_were_are_no_steps(work):
    lengths = [5] * 6 + [6] * 6 + [5] * 12  # six rows a rank, and six steps in the first batch
    text = PACKED.replace("ROWS_IN_ORDER", "rows").replace("IS_SORTED", "False")
    text = text.replace("2 + i * 7 % 5", f"{lengths}[i]").replace("range(23)", "range(24)")
    text = text.replace(
        "DataLoader(ROWS, 5, collate_fn=collate, shuffle=True)", "DataLoader(ROWS, 12, collate_fn=collate)"
    )
    same_run(work, text, *plain(work, text), 2)


def found(whole, mine, own=None):
    import torch

    return fills.of_batches({(): torch.tensor(whole)}, {(): torch.tensor(mine)}, {}, own)


def test_what_is_filled_in_is_seen_by_its_side_and_value():
    behind, ahead = fills.Fill(value=0, is_behind=True), fills.Fill(value=0, is_behind=False)
    assert found([[1, 2, 3], [4, 0, 0]], [[4]]) == {((), 1): {behind}}
    assert found([[1, 2, 3], [0, 0, 4]], [[4]]) == {((), 1): {ahead}}
    assert found([[1, 2, 3], [9, 0, 0]], [[4]], slice(1, 2)) == {((), 1): {behind}}  # drawn anew
    assert found([[1, 2], [4, 5]], [[4, 5]]) == {}


def test_what_is_no_filling_up_is_refused():
    for whole, mine in ([[1, 2, 3], [4, 0, 9]], [[4]]), ([[1, 2], [4, 5]], [[4, 6]]), ([[1], [4]], [[4, 0]]):
        with pytest.raises(fills.UnlikeError):
            found(whole, mine)


def test_a_row_s_own_last_value_is_not_taken_for_what_is_always_filled_in():
    (may_be,) = found([[1, 2, 3], [4, 4, 4]], [[4]]).values()
    assert not fills.likeliest([may_be]).is_certain
    (other,) = found([[1, 2, 3], [5, 4, 4]], [[5]]).values()
    assert fills.likeliest([may_be, other]).is_certain
