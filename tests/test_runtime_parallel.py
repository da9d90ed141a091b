"""One script for one device, on 1, 2 and 4 ranks: the same losses, weights, order of data and files.

The reference is the script under plain `python`, where the one line does nothing.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit

from lumi_moai.errors import RequestError
from lumi_moai.runtime.parallel import alike, options
from lumi_moai.runtime.parallel.share import bounds, cut

HEAD = """
import random, sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7)
"""

# 19 rows in batches of 8, so the last batch has 3 rows, fewer than four ranks; targets with unequal numbers of ignored
# tokens; accumulation over two batches, clipping, a scheduler, evaluation with no_grad inside the loop.
TOKENS = (
    HEAD
    + """
class Rows(Dataset):
    def __init__(self, rows):
        chance = torch.Generator().manual_seed(3)
        self.tokens = torch.randint(0, 11, (rows, 6), generator=chance)
        self.targets = torch.randint(0, 11, (rows, 6), generator=chance)
        for row in range(rows):
            self.targets[row, : row % 6] = -100
    def __len__(self):
        return len(self.tokens)
    def __getitem__(self, row):
        return row, self.tokens[row], self.targets[row]

model = nn.Sequential(nn.Embedding(11, 16), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 11)).cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 12)
train = DataLoader(Rows(19), batch_size=8, shuffle=True)
held_out = DataLoader(Rows(13), batch_size=5)
print(len(train), train.batch_size, len(train.dataset))
seen, step = [], 0
for epoch in range(4):
    model.train()
    for rows, tokens, targets in train:
        seen += rows.tolist()
        loss = F.cross_entropy(model(tokens.cuda()).flatten(0, 1), targets.cuda().flatten())
        (loss / 2).backward()
        step += 1
        print(f"loss {loss.item()}")
        if step % 2 == 0:
            print(f"norm {nn.utils.clip_grad_norm_(model.parameters(), 0.5).item()}")
            optim.step()
            scheduler.step()
            optim.zero_grad()
    model.eval()
    total, right, count = 0.0, 0, 0
    for rows, tokens, targets in held_out:
        with torch.no_grad():
            scores = model(tokens.cuda())
            total += F.cross_entropy(scores.flatten(0, 1), targets.cuda().flatten(), reduction="sum").item()
            right += (scores.argmax(-1) == targets).sum().item()
            count += len(rows)
    print(f"held out {total} {right} {count}")
torch.save([model.state_dict(), *model.parameters()][1:], sys.argv[1])
from lumi_moai.runtime.here import here
import os  # past `open`, whose files are rank 0's
handle = os.open(f"{sys.argv[1]}.seen.{here().ranks.rank if here() else 0}", os.O_CREAT | os.O_WRONLY)
os.write(handle, " ".join(map(str, seen)).encode())
"""
)

# Losses of every kind, one after the other, each with three steps on batches of 5, 5 and 3 rows.
KINDS = (
    HEAD
    + """
x = torch.randn(13, 6, generator=torch.Generator().manual_seed(1))
y = torch.randn(13, 3, generator=torch.Generator().manual_seed(2))
labels = torch.randint(0, 3, (13,), generator=torch.Generator().manual_seed(3))
weights = torch.tensor([1.0, 2.0, 0.5])
KINDS = {
    "by hand": lambda out, y, label, model: ((out - y) ** 2).mean(),
    "mse": lambda out, y, label, model: F.mse_loss(out, y),
    "mse sum": lambda out, y, label, model: nn.MSELoss(reduction="sum")(out, y) / 30,
    "gauss sum": lambda out, y, label, model: F.gaussian_nll_loss(out, y, y.exp(), reduction="sum") / 300,
    "triplet sum": lambda out, y, label, model: nn.TripletMarginLoss(reduction="sum")(out, y, y.flip(1)) / 30,
    "margin of rows": lambda out, y, label, model: F.multi_margin_loss(out, label) * len(y) / 5,
    "function of triplet": lambda out, y, label, model: (nn.TripletMarginLoss()(out, y, y.flip(1)) - 0.9).abs() + 0.9,
    "older sum": lambda out, y, label, model: F.l1_loss(out, y, size_average=False) / 30,
    "weighted": lambda out, y, label, model: F.mse_loss(out, y, weight=y.abs()),
    "rows": lambda out, y, label, model: F.l1_loss(out, y, reduction="none").mean(1).mean(),
    "classes": lambda out, y, label, model: nn.CrossEntropyLoss(weight=weights)(out, label),
    "ignored": lambda out, y, label, model: F.cross_entropy(out, label, weight=weights, ignore_index=2),
    "smoothed": lambda out, y, label, model: F.cross_entropy(out, label, label_smoothing=0.1),
    "probable": lambda out, y, label, model: F.cross_entropy(out, y.softmax(1)),
    "nll": lambda out, y, label, model: F.nll_loss(out.log_softmax(1), label),
    "kl": lambda out, y, label, model: F.kl_div(out.log_softmax(1), y.softmax(1), reduction="batchmean"),
    "bce": lambda out, y, label, model: F.binary_cross_entropy_with_logits(out, y.sigmoid()),
    "mixed": lambda out, y, label, model: F.cross_entropy(out, label).exp() + 0.1 * ((out - y) ** 2).mean()
    + 0.01 * sum((p**2).sum() for p in model.parameters()),
}
saved = []
for name, kind in KINDS.items():
    torch.manual_seed(5)
    model = nn.Linear(6, 3).to("cuda")
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    for a, b, c in DataLoader(TensorDataset(x, y, labels), batch_size=5, shuffle=True):
        loss = kind(model(a), b, c, model)
        before = loss.detach() if name != "mse" else float(loss)
        loss.backward()
        optim.step()
        optim.zero_grad()
        print(f"{name} loss {float(before)} {loss.item()} {loss:.6f}")
    saved += [p.detach() for p in model.parameters()]
torch.save(saved, sys.argv[1])
"""
)

# Loaders of every kind, and scripts with habits: no optimizer, no loop, parts without gradient.
LOADERS = (
    HEAD
    + """
x = torch.randn(22, 4, generator=torch.Generator().manual_seed(1))
class Stream(IterableDataset):
    def __iter__(self):
        return iter(x)
class Ready(IterableDataset):
    def __iter__(self):
        return iter([{"x": part, "name": ["r"] * len(part)} for part in x.split(8)])
class ByIndex(Dataset):
    def __len__(self):
        return len(x)
    def __getitem__(self, rows):
        return {"x": x[rows]}
def collate(rows):
    return {"x": torch.stack(rows)}
class Lists:
    def __iter__(self):
        return iter([tuple(range(0, 8)), tuple(range(8, 22))])
    def __len__(self):
        return 2
chance = torch.Generator().manual_seed(11)
LOADERS = {
    "sampler": DataLoader(x, 8, sampler=torch.utils.data.RandomSampler(x, generator=chance), collate_fn=collate),
    "batches": DataLoader(x, batch_sampler=Lists(), collate_fn=collate),
    "workers": DataLoader(x, batch_size=8, shuffle=True, collate_fn=collate, num_workers=2, persistent_workers=True),
    "generator": DataLoader(x, batch_size=8, shuffle=True, generator=chance, collate_fn=collate, pin_memory=True),
    "stream": DataLoader(Stream(), batch_size=8, collate_fn=collate),
    "ready": DataLoader(Ready(), batch_size=None),
    "indices": DataLoader(ByIndex(), batch_size=None, sampler=torch.utils.data.BatchSampler(range(22), 8, False)),
}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(4, 4)
        self.sometimes = nn.Linear(4, 4)
        self.never = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
    def forward(self, x, extra):
        out = self.frozen(torch.tanh(self.used(x)))
        return self.sometimes(out) if extra else out
saved = []
for name, loader in LOADERS.items():
    torch.manual_seed(5)
    model = Net().cuda()
    optim = torch.optim.AdamW(model.parameters(), lr=0.01) if name != "stream" else None
    for epoch in range(2):
        batches = iter(loader)
        batch = next(batches)
        while batch is not None:
            loss = ((model(batch["x"], epoch) - 1) ** 2).mean()
            loss.backward()
            batch = next(batches, None)
            if optim:
                optim.step()
            else:
                with torch.no_grad():
                    for p in model.parameters():
                        if p.grad is not None:
                            p -= 0.1 * p.grad
            print(f"{name} loss {loss.item()} {[n for n, p in model.named_parameters() if p.grad is not None]}")
            model.zero_grad()
    saved += [p.detach() for p in model.parameters()]
torch.save(saved, sys.argv[1])
"""
)


def test_tokens_on_1_2_and_4_ranks(work):
    lines, weights = plain(work, TOKENS)
    assert lines[0] == "3 8 19"
    for count in (1, 2, 4):
        run, ranks = same_run(work, TOKENS, lines, weights, count)
        if count > 1:
            assert (
                f"lumi-moai: data parallel over {count} ranks: global batch 8 is {8 // count} rows a rank"
                in ranks[0].err
            )
        parts = [(run.folder / f"weights.pt.seen.{rank}").read_text().split() for rank in range(count)]
        expected = (work / "plain.pt.seen.0").read_text().split()
        # Each batch, put together in rank order, is the one-device batch; a stand-in row may come on top.
        assert set().union(*parts) == set(expected)


# Habits: recomputation in both ways with a weight used twice, two optimizers in turn, one gradient for every row, a
# backward over some inputs only, LBFGS's closure, a model taken to pieces and built anew.
HABITS = (
    HEAD
    + """
from torch.utils.checkpoint import checkpoint
x = torch.randn(14, 6, generator=torch.Generator().manual_seed(1))
y = torch.randn(14, 6, generator=torch.Generator().manual_seed(2))
loader = DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True)
saved = []
def finish(name, loss, *models):
    print(f"{name} loss {loss.item()}")
    for model in models:
        saved[:] = saved[-40:] + [p.detach().clone() for p in model.parameters()]
for reentrant in True, False:
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    model = nn.ModuleList([first, second])
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    for a, b in loader:
        out = checkpoint(lambda t: second(torch.tanh(first(t))), a.requires_grad_(), use_reentrant=reentrant)
        loss = F.mse_loss(out, b)
        optim.zero_grad()
        loss.backward()
        optim.step()
        finish(f"reentrant {reentrant}", loss, model)
makes, judges = nn.Linear(6, 6), nn.Linear(6, 1)
optims = [torch.optim.Adam(model.parameters(), lr=0.01) for model in (makes, judges)]
for a, b in loader:
    for optim in optims:
        optim.zero_grad()
    real, fake = judges(b), judges(makes(a).detach())
    judged = F.binary_cross_entropy_with_logits(torch.cat([real, fake]), torch.cat([real * 0 + 1, fake * 0]).detach())
    judged.backward()
    optims[1].step()
    made = F.softplus(-judges(makes(a))).mean()
    made.backward(inputs=list(makes.parameters()))
    optims[0].step()
    finish("in turn", judged + made.detach(), makes, judges)
model = nn.Linear(6, 6)
optim = torch.optim.SGD(model.parameters(), lr=0.01)
for a, b in loader:
    rows = ((model(a) - b) ** 2).sum(1)
    optim.zero_grad()
    rows.backward(torch.ones_like(rows))
    optim.step()
    finish("rows", rows.mean(), model)
optim = torch.optim.LBFGS(model.parameters(), max_iter=3)
for a, b in loader:
    def closure():
        optim.zero_grad()
        loss = F.mse_loss(model(a), b)
        loss.backward()
        return loss
    finish("closure", optim.step(closure), model)
torch.save(saved, sys.argv[1])
"""
)


@pytest.mark.parametrize("text", [KINDS, LOADERS, HABITS], ids=["losses", "loaders", "habits"])
def test_every_kind_on_2_and_4_ranks(work, text):
    lines, weights = plain(work, text)
    for count in (2, 4):
        same_run(work, text, lines, weights, count)


EARLY = (
    HEAD
    + """
model = nn.Linear(4, 3)
optim = torch.optim.SGD(model.parameters(), lr=0.1)
labels = torch.randint(0, 3, (22,))
for batch_size, by_hand in (8, True), (5, False):
    loader = DataLoader(TensorDataset(torch.randn(22, 4), labels), batch_size=batch_size, drop_last=by_hand)
    batches = iter(loader)
    early = next(batches)
    while early is not None:
        x, label = early
        if not by_hand:  # before forward, as prefetchers do
            early = next(batches, None)
        out = model(x)
        loss = (out**2).mean() if by_hand else F.cross_entropy(out, label, ignore_index=1)
        if by_hand:
            early = next(batches, None)
        optim.zero_grad()
        loss.backward()
        optim.step()
        print(f"loss {loss.item()}")
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
)


def test_the_next_batch_may_be_fetched_early(work):
    lines, weights = plain(work, EARLY)
    same_run(work, EARLY, lines, weights, 2)


def refused(work, body, words):
    run = Run(work, launch(2))
    text = HEAD.replace("lumi_moai.enable_advanced_parallelization()", "") + body
    ranks = run.ranks(submitit(2), run.script(text))
    assert [rank.code for rank in ranks] == [1, 1]
    notes = ("certificate", "parallel", "[info]", "full cop", "self-check", "a count read")
    errors = [line for rank in ranks for line in rank.err.splitlines() if not any(note in line for note in notes)]
    assert len(errors) == 1, errors
    assert words in errors[0]


BATCHES = """
lumi_moai.enable_advanced_parallelization()
def train(model, loader):
    for (x,) in loader:
        model(x).mean().backward()
rows = TensorDataset(torch.randn(8, 4))
trained = nn.Linear(4, 4)
optim = torch.optim.SGD(trained.parameters(), lr=0.1)
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("lumi_moai.enable_advanced_parallelization(num_stages=True)", "num_stages=True is no int"),
        (BATCHES + "train(nn.Linear(4, 4), DataLoader(rows, batch_size=8, in_order=False))", "in_order=False"),
        (
            BATCHES + "model = nn.Sequential(nn.Embedding(9, 4, sparse=True)); "
            "train(lambda x: model((x > 0).long()), DataLoader(rows, batch_size=8))",
            "sparse=False",
        ),
        (
            BATCHES + "class Mean(nn.Linear):\n    def forward(self, x): self.loss = super().forward(x).mean()\n"
            "model = Mean(4, 4)\ntrain(lambda x: (model(x), model.loss)[1], iter(list(DataLoader(rows, batch_size=3))))",
            "batches of 2, 3 rows before",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_in_one_sentence(work, body, words):
    refused(work, body, words)


SPARSE = (
    HEAD
    + """
model = nn.EmbeddingBag(9, 4, sparse=True)
optim = torch.optim.SparseAdam(model.parameters(), lr=0.1)
for (x,) in DataLoader(TensorDataset(torch.arange(24).view(8, 3) % 9), batch_size=4):
    optim.zero_grad(); loss = model(x).pow(2).mean(); loss.backward(); optim.step()
    print(f"loss {loss.item()}")
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
)


def test_one_rank_alone_averages_nothing_so_sparse_gradients_train(work):
    same_run(work, SPARSE, *plain(work, SPARSE), 1)


def test_a_rank_that_fails_in_training_ends_all(work):
    run = Run(work, launch(2))
    body = """
from lumi_moai.runtime.here import here
model = nn.Linear(4, 4)
for step, (x,) in enumerate(DataLoader(TensorDataset(torch.randn(64, 4)), batch_size=8)):
    if step == 3 and here().ranks.rank == 1:
        raise ValueError("bad row")
    model(x).mean().backward()
"""
    ranks = run.ranks(submitit(2), run.script(HEAD + body))
    assert [rank.code for rank in ranks] == [1, 1]
    assert "ValueError: bad row" in ranks[1].err
    assert "Traceback" not in ranks[0].err


def test_a_script_without_a_loader_or_an_optimizer_is_shared_out_from_its_second_call_on(work):
    run = Run(work, launch(2))
    body = """
model = nn.Linear(4, 1)
x = torch.ones(8, 4)
with torch.no_grad():
    for p in model.parameters(): p.fill_(0.5)
for step in range(2):
    model.zero_grad()
    loss = F.mse_loss(model(x), torch.zeros(8, 1), reduction="sum")
    loss.backward()
    print(loss.item(), model.bias.grad.item())
lumi_moai.enable_advanced_parallelization()
"""
    ranks = run.ranks(submitit(2), run.script(HEAD + body))
    assert [rank.out for rank in ranks] == ["50.0 40.0\n50.0 40.0\n", ""]
    assert ranks[0].err.count("no DataLoader made it, and its rows are shared out within the model") == 1


@given(st.integers(1, 500), st.integers(1, 64))
def test_the_shares_of_all_ranks_are_the_batch(total, ranks):
    batch = list(range(total))
    parts = [cut(batch, rank, ranks) for rank in range(ranks)]
    assert [row for part, share in parts for row in part[: share.rows]] == batch
    assert sum(share.weight for _, share in parts) == pytest.approx(1)
    assert max(share.rows for _, share in parts) - min(share.rows for _, share in parts) <= 1
    assert all(part for part, _ in parts)
    assert all(share.scale == 1.0 for _, share in parts) == (total % ranks == 0)


def test_six_rows_on_four_ranks():
    assert [bounds(6, rank, 4)[:2] for rank in range(4)] == [(0, 2), (2, 4), (4, 5), (5, 6)]


@pytest.mark.parametrize(
    "choices", [{}, dict.fromkeys(options.KNOWN, "auto"), {"num_stages": 1}, {"mixed_precision": None}]
)
def test_options_that_are_kept(choices):
    options.wishes(choices)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"num_stage": 2}, "did you mean 'num_stages'"),
        ({"num_stages": True}, "num_stages=True"),
        ({"num_stages": 0}, "pp is 0"),
        ({"mixed_precision": "bf16"}, "mixed_precision='bf16'"),
        ({"activation_recomputation": 2}, "activation_recomputation=2"),
    ],
)
def test_options_that_are_not(choices, words):
    with pytest.raises(RequestError, match=r"^[^\n]+$") as caught:
        options.wishes(choices)
    assert words in str(caught.value)


def test_a_whole_model_is_saved_as_the_script_made_it(work):
    run = Run(work, launch(2))
    body = """
model = nn.Sequential(nn.Linear(4, 1)).cuda()
for (x,) in DataLoader(TensorDataset(torch.ones(4, 4)), batch_size=4):
    model(x).mean().backward()
torch.save(model, "model.pt")
"""
    ranks = run.ranks(submitit(2), run.script(HEAD + body))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err + ranks[1].err
    with torch.serialization.safe_globals([torch.nn.Sequential, torch.nn.Linear]):
        loaded = torch.load(run.folder / "model.pt")
    assert type(loaded) is torch.nn.Sequential
    assert b"lumi_moai" not in (run.folder / "model.pt").read_bytes()


@pytest.mark.parametrize("number", [0.0, 0.5, 99.0, float("nan"), float("inf")])
def test_a_number_of_another_exchange_is_told_in_words(number):
    """It ended in a ValueError of ours."""
    assert alike.words(number) == "exchanges something else"
    assert alike.words(float(alike.Doing.loss)) == "computes a loss"
