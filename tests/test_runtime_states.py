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


@pytest.mark.parametrize("text", [STATES, HELD, PACKED])
def test_states_of_recurrent_layers_are_those_of_all_rows(work, text):
    lines, weights = plain(work, text)
    for count in (2, 3, 4):
        same_run(work, text, lines, weights, count)
    if text is not HELD:
        same_run(work, text, lines, weights, 2, layout="fsdp")


def test_models_in_a_list_of_torchs_are_not_spread(work):
    run = Run(work / "run", launch(2), Wishes(layout=Layout.parse("fsdp")))
    ranks = run.ranks(submitit(2), run.script(HELD), "weights.pt")
    assert {rank.code for rank in ranks} == {1}
    assert any("keep these models in a list or dict of Python" in rank.err for rank in ranks)
    assert not any("Traceback" in rank.err for rank in ranks)
