"""States of recurrent layers, (layers, rows, size), which a script uses outside of its models; as on one device."""

import pytest
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit

from lumi_moai.plan import Layout, Wishes

# As many rows on a rank as there are layers (batches of 4 on 2 ranks), one row on a rank (of 4), packed rows whose order
# changes, a state carried from batch to batch (truncated), a decoder that goes on step by step, read behind backward.
STATES = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7)
torch.set_default_dtype(torch.float64)
x, y, n = torch.randn(18, 6, 5), torch.randint(0, 3, (18,)), torch.randint(1, 7, (18,))
lstm, head = nn.LSTM(5, 8, num_layers=2, batch_first=True), nn.Linear(8, 3)
class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 4, bidirectional=True, batch_first=True)
    def forward(self, rows, lengths):
        return self.rnn(pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False))[1]
class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 3)
    def forward(self, rows, state=None):
        found, state = self.rnn(rows, state)
        return self.out(found), tuple(each.detach() for each in state)
encoder, language = Encoder(), Language()
both, step = nn.Linear(8, 3), nn.GRU(5, 8, batch_first=True)
parts = [lstm, head, encoder, language, both, step]
weights = [each for part in parts for each in part.parameters()]
optim = torch.optim.SGD(weights, lr=0.1)
def train(*losses):
    optim.zero_grad(); sum(losses).backward(); optim.step()
    print(*[f"{each.item():.8f}" for each in losses])
for rows, label, lengths in DataLoader(TensorDataset(x, y, n), batch_size=4, shuffle=True):
    _, (h, c) = lstm(rows)
    train(F.cross_entropy(head(h[-1]), label), h.pow(2).sum() / len(rows), c.norm() / 10)
    print(f"{h.mean().item():.8f} {c.std().item():.8f} {[round(each, 6) for each in h[0, :, 0].tolist()]}")
    print(f"{float(h.detach().numpy().max()):.8f}")
    last = encoder(rows, lengths)
    train(F.cross_entropy(both(torch.cat([last[-2], last[-1]], 1)), label), last.transpose(0, 1).reshape(len(rows), -1).var(0).sum())
    state, kept = last.new_zeros(1, rows.size(0), 8), 0
    for t in range(3):
        out, state = step(rows[:, t : t + 1], state)
        kept = kept + (state ** 2).sum() / rows.size(0)
    train(F.cross_entropy(head(state.squeeze(0)), label), kept)
state = None
for rows, label, _ in DataLoader(TensorDataset(x, y, n), batch_size=3):
    out, state = language(rows, state)
    train(F.cross_entropy(out[:, -1], label))
    print(f"{sum(each.norm() for each in state).item():.8f}")
torch.save(weights, sys.argv[1])
"""
# Held by a list of torch's, so that none of them is a model of its own.
HELD = STATES.replace("step]", "step]; held = nn.ModuleList(parts)")
# Rows packed, unpacked and added up by the script itself.
PACKED = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7)
torch.set_default_dtype(torch.float64)
x, y, n = torch.randint(1, 11, (18, 7)), torch.randint(0, 3, (18,)), torch.randint(1, 8, (18,))
words, lstm, head, tags = nn.Embedding(11, 6), nn.LSTM(6, 8, 2, batch_first=True), nn.Linear(8, 3), nn.Linear(8, 11)
weights = [each for part in (words, lstm, head, tags) for each in part.parameters()]
optim = torch.optim.SGD(weights, lr=0.1)
def pack(rows, lengths): return pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
for rows, label, lengths in DataLoader(TensorDataset(x, y, n), batch_size=4, shuffle=True):
    out, (h, c) = lstm(pack(words(rows), lengths))
    filled, _ = pad_packed_sequence(out, batch_first=True, total_length=7)
    mask = (torch.arange(7)[None] < lengths[:, None]).double()
    losses = [
        F.cross_entropy(head(h[-1]), label), (filled.pow(2).sum(2) * mask).sum() / mask.sum(), h.pow(2).sum() / len(rows),
        out.data.pow(2).sum() / lengths.sum(), F.cross_entropy(tags(out.data), pack(rows, lengths).data), c.std(1).sum(),
    ]
    optim.zero_grad(); sum(losses).backward(); optim.step()
    print(*[f"{each.item():.8f}" for each in losses])
torch.save(weights, sys.argv[1])
"""
# A state that an evaluation on the whole of its rows left: of as many rows as a rank has (2), or as the next batch has (5).
LEFT = """
import statistics, sys
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
torch.set_default_dtype(torch.float64)
data = TensorDataset(torch.randn(12, 6, 2), torch.randn(12, 1))
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(2, 8, batch_first=True), nn.Linear(8, 1)
    def forward(self, x, state=None):
        found, state = self.rnn(x, state)
        return self.out(found[:, -1]), state.detach()
net, state, losses = Net(), None, []
optim = torch.optim.SGD(net.parameters(), lr=0.2)
for epoch in range(3):
    sizes, weighed = [], 0.0
    for x, y in DataLoader(data, batch_size=5):
        assert isinstance(x.size(0), int)
        if state is not None and state.size(1) != x.size(0):
            state = None
        out, state = net(x, state)
        loss = F.mse_loss(out, y)
        optim.zero_grad(); loss.backward(); optim.step()
        losses.append(loss.item()); sizes.append(x.size(0))
        weighed += np.mean(losses) * x.size(0) + np.float64(1) / len(x)
        print(f"{losses[-1]:.8f}", len(x) in {2, 5}, {5: "five", 2: "two"}[len(x)], -len(x), divmod(12, len(x)))
    print(f"{weighed:.8f}", statistics.mean(sizes), np.average([1.0, 2.0, 3.0], weights=sizes))
    with torch.no_grad():
        rows = [5, 2][epoch % 2]
        state = net(torch.stack([data[place][0] for place in range(rows)]))[1]
torch.save(list(net.parameters()), sys.argv[1])
"""
# States made for the rows of the batch by their number, given to a model, kept by one, and those of a cell.
MADE = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
torch.set_default_dtype(torch.float64)
BATCH = 5
data = TensorDataset(torch.randn(15, 6, 2), torch.randint(1, 7, (15,)), torch.randn(15, 1))
class Given(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(2, 8, 2, batch_first=True), nn.Linear(8, 1)
    def forward(self, x, state):
        found, state = self.rnn(x, state)
        return self.out(found[:, -1]), state
    def init_hidden(self, rows):
        weight = next(self.parameters())
        return weight.new_zeros(2, rows, 8), weight.new_ones(2, rows, 8)
class Kept(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.cell, self.out = nn.GRU(2, 8), nn.GRUCell(8, 4), nn.Linear(4, 1)
        self.first = nn.Parameter(torch.randn(BATCH, 4))
    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, self.hidden = self.rnn(packed, self.hidden)
        state = self.first
        for step in range(2):
            state = self.cell(self.hidden[-1], state)
        self.hidden = self.hidden.detach()
        return self.out(state)
given, kept = Given(), Kept()
weights = [*given.parameters(), *kept.parameters()]
optim = torch.optim.SGD(weights, lr=0.2)
for epoch in range(2):
    state, kept.hidden = given.init_hidden(BATCH), torch.randn(1, BATCH, 8)
    for x, lengths, y in DataLoader(data, batch_size=BATCH, shuffle=True):
        state = tuple(each.data for each in state)
        out, state = given(x, state)
        loss = F.mse_loss(out, y) + F.mse_loss(kept(x, lengths), y)
        optim.zero_grad(); loss.backward(); optim.step()
        print(f"{loss.item():.8f} {state[0].sum().item():.8f} {state[1].std().item():.8f}")
    with torch.no_grad():
        state = given.init_hidden(BATCH)
        for x, _, y in DataLoader(data, batch_size=BATCH):
            out, state = given(x, state)
            print(f"{F.mse_loss(out, y).item():.8f}")
torch.save(weights, sys.argv[1])
"""


@pytest.mark.parametrize("text", [STATES, HELD, PACKED, LEFT, MADE])
def test_states_of_recurrent_layers_are_those_of_all_rows(work, text):
    lines, weights = plain(work, text)
    for count in (2, 3, 4):
        same_run(work, text, lines, weights, count)
    if text in (STATES, PACKED, MADE):
        same_run(work, text, lines, weights, 2, layout="fsdp")


def test_models_in_a_list_of_torchs_are_not_spread(work):
    run = Run(work / "run", launch(2), Wishes(layout=Layout.parse("fsdp")))
    ranks = run.ranks(submitit(2), run.script(HELD), "weights.pt")
    assert {rank.code for rank in ranks} == {1}
    assert any("keep these models in a list or dict of Python" in rank.err for rank in ranks)
    assert not any("Traceback" in rank.err for rank in ranks)


def test_a_tensor_of_the_models_own_as_long_as_the_batch_is_explained(work):
    own = MADE.replace("self.cell(self.hidden[-1], state)", "torch.cat([self.hidden[-1], state], 1)")
    run = Run(work / "run", launch(2), Wishes())
    ranks = run.ranks(submitit(2), run.script(own), "weights.pt")
    assert {rank.code for rank in ranks} == {1}
    assert "this rank has 3 of the batch's 5 rows. Make a tensor that goes with rows" in ranks[0].err
