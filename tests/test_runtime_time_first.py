"""Batches with time first, (time, rows): sums, means and masks by hand are of all rows, or the script is refused."""

import pytest
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit
from test_runtime_parallel import HEAD

# Sentences of unequal lengths, so that ranks have unequal masks and, mostly, unequal numbers of steps.
WORDS = (
    HEAD
    + """
from torch.nn.utils.rnn import pad_sequence
chance = torch.Generator().manual_seed(2)
def words():
    return torch.randint(1, 9, (int(torch.randint(3, LONGEST, (1,), generator=chance)),), generator=chance)
data = [words() for _ in range(39)]
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.rnn, self.out = nn.Embedding(9, 12, padding_idx=0), nn.LSTM(12, 12), nn.Linear(12, 9)
    def forward(self, x):
        return self.out(self.rnn(self.words(x))[0])
model = Model()
optim = torch.optim.Adam(model.parameters(), 1e-2)
for epoch in range(2):
    right = tokens = rows = 0
    for seq in DataLoader(data, 8, shuffle=True, collate_fn=pad_sequence):
        x, y = seq[:-1], seq[1:]
        out, mask = model(x), (y != 0).float()
        LOSS
        optim.zero_grad()
        loss.backward()
        optim.step()
        right += ((out.argmax(-1) == y) & (y != 0)).sum().item()
        tokens += mask.sum().item()
        rows += seq.size(1)
        print(f"{loss.item():.5f} {tokens} {rows}")
    print(f"right {right / tokens:.5f} {tokens}")
torch.save(model.state_dict(), sys.argv[1])
"""
)
FLAT = 'nll = F.cross_entropy(out.reshape(-1, 9), y.reshape(-1), reduction="none")'
LOSSES = {
    "mask": f"{FLAT}.view_as(y); loss = (nll * mask).sum() / mask.sum()",
    "picked": f"{FLAT}; loss = nll[y.reshape(-1) != 0].mean()",
    "selected": f"{FLAT}.view_as(y); loss = nll.masked_select(mask.bool()).mean()",
    "rows": f"{FLAT}.view(*y.shape); loss = ((nll * mask).sum(0) / mask.sum(0)).mean()",
    "sum of rows": f"{FLAT}.view(y.shape); loss = (nll * mask).sum(0).sum() / y.size(1)",
    "gather": "p = out.log_softmax(-1); loss = -(p.gather(2, y.unsqueeze(2)).squeeze(2) * mask).sum() / mask.sum()",
    "flat": "p = out.view(-1, 9).log_softmax(1).gather(1, y.reshape(-1, 1)); loss = -p.sum() / mask.sum()",
    "turned": "p = out.transpose(0, 1).log_softmax(-1); loss = -(p[..., 0] * mask.t()).sum() / mask.t().sum()",
    "torch": "loss = F.cross_entropy(out.view(-1, 9), y.reshape(-1), ignore_index=0)",
}


def words(loss, longest=10):
    return WORDS.replace("LOSS", LOSSES[loss]).replace("LONGEST", str(longest))


@pytest.mark.parametrize("loss", [each for each in LOSSES if each != "flat"])
def test_a_loss_by_hand_of_a_batch_with_time_first_is_of_all_rows(work, loss):
    lines, weights = plain(work, words(loss))
    _, ranks = same_run(work, words(loss), lines, weights, 2)
    assert "self-check of the first step: loss" in ranks[0].err


def test_the_same_in_batches_of_equal_steps_without_a_mask(work):
    lines, weights = plain(work, words("flat", 4))
    same_run(work, words("flat", 4), lines, weights, 2)


# As many steps as a rank has rows, on both ranks: sizes do not tell which are the rows.
@pytest.mark.parametrize("ranks", [2, 3])
def test_as_many_steps_as_rows(work, ranks):
    text = words("mask", 4).replace("(3, 4, (1,)", "(4, 5, (1,)")
    lines, weights = plain(work, text)
    same_run(work, text, lines, weights, ranks)


def test_a_mask_by_hand_on_three_ranks_of_unequal_rows(work):
    lines, weights = plain(work, words("mask"))
    same_run(work, words("mask"), lines, weights, 3)


# Features beside the rows, as many as a rank has rows, and a flat list of what the rows have: no rows in the second.
FEATURES = (
    HEAD
    + """
chance = torch.Generator().manual_seed(2)
data = [(torch.randn(int(torch.randint(1, 4, (1,), generator=chance)), 4, generator=chance), i) for i in range(24)]
def collate(rows):
    return torch.cat([row[0] for row in rows]), torch.tensor([len(row[0]) for row in rows])
model = nn.Linear(4, 1)
optim = torch.optim.SGD(model.parameters(), 0.1)
for boxes, counts in DataLoader(data, 8, collate_fn=collate):
    where = torch.repeat_interleave(torch.arange(len(counts.tolist())), counts.as_subclass(torch.Tensor))
    sums = torch.zeros(len(counts.tolist())).index_add(0, where, model(boxes)[:, 0])
    loss = F.mse_loss(sums, counts.float())
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(f"{loss.item():.6f} {counts.sum().item()} {boxes.size(1)}")
torch.save(model.state_dict(), sys.argv[1])
"""
)


def test_features_as_many_as_rows_are_no_rows(work):
    lines, weights = plain(work, FEATURES)
    same_run(work, FEATURES, lines, weights, 2)


STEPS = FLAT + "; loss = sum(F.cross_entropy(out[t], y[t], ignore_index=0) for t in range(len(y)))"


def steps(longest):
    return WORDS.replace("LOSS", STEPS).replace("LONGEST", str(longest))


def refused(work, text):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(text), str(work / "weights.pt"))
    assert all(rank.code for rank in ranks)
    return "".join(rank.err for rank in ranks)


def test_a_loss_of_each_step_is_refused_where_ranks_have_other_numbers_of_steps(work):
    """Where samples cannot be fetched to see what is filled in: a script's open file has one place with its worker."""
    text = steps(14).replace("collate_fn=pad_sequence", "collate_fn=pad_sequence, num_workers=1")
    assert "others have other numbers (time first" in refused(work, f"file = open(__file__)\n{text}")


@pytest.mark.parametrize("longest", [4, 14])
def test_a_loss_of_each_step_is_that_of_one_device(work, longest):
    lines, weights = plain(work, steps(longest))
    same_run(work, steps(longest), lines, weights, 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("mask = mask * (torch.rand(y.shape) < 0.7)", "rand draws for a batch with time first"),
        ("mask = mask * (torch.rand_like(mask) < 0.7)", "rand_like draws for a batch with time first"),
        ("mask = mask * torch.bernoulli(mask * 0.7)", "bernoulli draws for a batch with time first"),
        ("mask = mask * torch.empty_like(mask).bernoulli_(0.7)", "bernoulli_ draws for a batch with time first"),
    ],
)
def test_noise_for_time_and_rows_is_refused(work, line, reason):
    text = WORDS.replace("LOSS", f"{line}; {LOSSES['mask']}").replace("LONGEST", "10")
    assert reason in refused(work, text)


def test_numbers_read_of_rows_aside_after_backward_are_refused(work):
    text = words("mask").replace("        rows += seq", "        kept = out.argmax(-1).tolist()\n        rows += seq")
    assert "tolist reads a tensor whose second dimension are the rows" in refused(work, text)


# A batch of rows that the script turns itself, and makes one long list of, step after step.
TURNED = (
    HEAD
    + """
T = torch.randint(0, 11, (23, 7), generator=torch.Generator().manual_seed(4))
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.rnn, self.out = nn.Embedding(11, 8), nn.GRU(8, 8), nn.Linear(8, 11)
    def forward(self, x):
        out, state = self.rnn(self.words(x))
        return self.out(out)
model = Model()
optim = torch.optim.SGD(model.parameters(), 0.1)
total = 0.0
for x, y in DataLoader(torch.utils.data.TensorDataset(T[:, :-1], T[:, 1:]), 5, shuffle=True):
    out, y = model(x.t()).view(-1, 11), y.T.reshape(-1)
    per = F.cross_entropy(out, y, reduction="none")
    loss = per.mean() + 0.1 * (out - out.mean(0)).pow(2).mean() + (per * (y != 3)).sum() / (y != 3).sum()
    optim.zero_grad()
    loss.backward()
    optim.step()
    total += float(loss * y.numel())
    print(loss.item(), per.numel(), len(y) / 2, out.shape[0], (out.argmax(1) == y).float().mean().item(), total)
    print(per.topk(3)[0].tolist(), F.one_hot(y, 11).sum(0).tolist(), per.view(6, -1).sum(0).shape, y.tolist()[:7])
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
)


@pytest.mark.parametrize("count", [2, 3])
def test_steps_one_after_another_are_of_all_rows(work, count):
    same_run(work, TURNED, *plain(work, TURNED), count)
