"""The first step is compared with one device's: what the ranks cannot keep is found, and a check leaves nothing behind."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit

from lumi_moai.plan import Layout, Wishes
from lumi_moai.runtime.parallel.selfcheck import Result, rounding

HEAD = """
import random, sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7)
random.seed(7)
x, y = torch.randn(24, 6), torch.randn(24, 3)
mask = (torch.arange(3)[None] <= torch.arange(24)[:, None] % 3).float()
model = nn.Linear(6, 3).cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(TensorDataset(x, y, mask), batch_size=8)
"""
LOOP = """
for a, b, m in loader:
    loss = {loss}
    optim.zero_grad()
    loss.backward()
    optim.step()
    print("stepped")
"""
# Inside of a model that returns rows, where these are not followed.
INSIDE = """
class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = model
    def forward(self, a, b, m):
        return {rows}
mixing = Mixing()
for a, b, m in loader:
    loss = F.mse_loss(mixing(a, b, m), b)
    optim.zero_grad()
    loss.backward()
    optim.step()
    print("stepped")
"""
WRONG = {
    "sum": "self.net(a) - self.net(a).sum(0)",
    "contrastive": "(self.net(a) @ b.t()).softmax(1) @ b",
    "noisy": "self.net(a + torch.randn_like(a) * torch.rand(len(a), 1)) - self.net(a).sum(0)",
}
MASKED = "(((self.net(a) - b) ** 2) * m).sum() / m.sum()"


@pytest.mark.parametrize("rows", WRONG)
def test_what_the_ranks_cannot_keep_is_found(work, rows):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(HEAD + INSIDE.format(rows=WRONG[rows])))
    assert [rank.code for rank in ranks] == [1, 1]
    assert [rank.out for rank in ranks] == ["", ""]
    said = [rank.err for rank in ranks if "the self-check of the first step failed" in rank.err]
    assert len(said) == 1
    assert "on one device and" in said[0]
    assert "on 2 ranks, gradient norm" in said[0]


ILL = """
torch.manual_seed(3)
far = x[:, :1] * 1e-2 + 100  # BatchNorm takes away nearly all of it: the first digits cancel
model = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8, eps=1e-12), nn.ReLU(), nn.Linear(8, 3)).cuda()
optim = torch.optim.SGD(model.parameters(), lr=1e-9)
loader = DataLoader(TensorDataset(far, y, mask), batch_size=8)
"""


def test_what_rounding_alone_moves_is_no_fault_of_the_ranks(work):
    run = Run(work / "right", launch(2))
    ranks = run.ranks(submitit(2), run.script(HEAD + ILL + LOOP.format(loss="F.mse_loss(model(a), b)")))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert "the last digit of the weights alone moves them by" in ranks[0].err
    run = Run(work / "wrong", launch(2))
    ranks = run.ranks(submitit(2), run.script(HEAD + ILL + INSIDE.format(rows=WRONG["sum"])))
    assert [rank.code for rank in ranks] == [1, 1]
    assert any("the self-check of the first step failed" in rank.err for rank in ranks)


@given(moved=st.floats(0, rounding.MOST), tolerance=st.sampled_from([1e-3, 2e-2]))
def test_rounding_never_explains_a_gradient_that_is_counted_twice(moved, tolerance):
    allowed = rounding.allowed(moved, tolerance)
    assert tolerance <= allowed < 0.5
    assert not Result(loss=1.0, norm=1.0).agrees(Result(loss=1.0, norm=2.0), allowed, allowed)


# A step that changes for good once the ranks have computed it together: nothing can put an iterator back.
STICKY = """
import itertools
calls = itertools.count(1)
class Changing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, out):
        ctx.calls = next(calls)
        return out.clone()
    @staticmethod
    def backward(ctx, gradient):
        return gradient * min(ctx.calls, 2)
"""


def test_a_step_that_changed_meanwhile_is_no_rounding(work):
    run = Run(work, launch(2))
    loop = LOOP.format(loss="F.mse_loss(Changing.apply(model(a)), b)")
    ranks = run.ranks(submitit(2), run.script(HEAD + STICKY + loop))
    assert [rank.code for rank in ranks] == [1, 1]
    assert any("the self-check of the first step failed" in rank.err for rank in ranks)


# What stages or pieces would compute otherwise: a number that blocks of one stage count, a mean over unequal masks.
STAGED = """
depth = [0]
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 6)
    def forward(self, x):
        depth[0] += 1
        return x + torch.tanh(self.up(x)) {counted}
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.net = nn.ModuleList(Block() for _ in range(4)), nn.Linear(6, 3)
    def forward(self, a, b, m):
        depth[0] = 0
        for block in self.blocks:
            a = block(a)
        return {loss}
model = Model().cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for a, b, m in loader:
    loss = model(a, b, m)
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(loss.item())
"""


@pytest.mark.parametrize(
    ("counted", "loss", "said"),
    [
        ("", "F.mse_loss(self.net(a), b)", "self-check of the first step: loss"),
        ("* depth[0]", "F.mse_loss(self.net(a), b)", "the self-check of the first step failed"),
        ("", MASKED, "the self-check of the first step failed"),
    ],
)
def test_stages_are_checked_against_one_device(work, counted, loss, said):
    run = Run(work, launch(2), Wishes(layout=Layout.parse("pp=2")))
    ranks = run.ranks(submitit(2), run.script(HEAD + STAGED.format(counted=counted, loss=loss)))
    assert [rank.code for rank in ranks] == ([1, 1] if "failed" in said else [0, 0]), ranks[0].err
    found = [line for rank in ranks for line in rank.err.splitlines() if said in line]
    assert len(found) == 1
    assert "on one device and" in found[0]
    assert "in 2 stages, gradient norm" in found[0]
    assert len(ranks[0].out.splitlines()) == (0 if "failed" in said else 3)


# Loops of several forms, with habits ahead of backward, each in a script of its own place: a counter of an object, lists,
# random numbers, dropout, BatchNorm, a running mean in a tensor.
FORMS = {
    "module": """
seen, running = [], torch.zeros(())
net = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)).cuda()
optim = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)  # Adam would blow up the rounding of a bias
for i, (a, b, m) in enumerate(loader):
    seen += [i, random.random(), len(seen)]
    loss = F.mse_loss(net(a), b)
    running += loss.detach()
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(i, seen[-2:], loss.item(), running.item(), net[1].running_mean.sum().item())
model = net
""",
    "method": """
from tqdm import tqdm
class Trainer:
    def __init__(self):
        self.step, self.history = 0, {"loss": []}
    def loss(self, a, b):
        self.step += 1
        return F.mse_loss(F.dropout(model(a), 0.0), b)
    def fit(self, factor):
        pbar = tqdm(enumerate(loader))
        for i, (a, b, m) in pbar:
            if i > 1:
                return
            loss = self.loss(a, b) * factor
            self.history["loss"].append(i)
            optim.zero_grad(), loss.backward(), optim.step()
            print(self.step, self.history, loss.item())
Trainer().fit(0.5)
""",
    "function": """
nn.init.ones_(model.weight)
drop = nn.Dropout(0.0)
def train(count):
    def score(a):
        return drop(model(a)) / count
    for batch in loader:
        loss = F.l1_loss(score(batch[0]), batch[1])
        loss.backward()
        optim.step()
        model.zero_grad()
        print(loss.item())
train(3)
""",
    "table that makes what it is asked for": """
class Models(dict):  # as transformers' tables of models are, which import what they are asked for
    def __iter__(self):
        return iter(["never installed"])
    keys = __iter__
    def __getitem__(self, name):
        raise ImportError(name)
MODELS, known = Models(), {"counted": 0}
known_too = Models(seen=known)
for a, b, m in loader:
    known["counted"] += 1
    loss = F.mse_loss(model(a), b)
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(loss.item(), known)
""",
}


@pytest.mark.parametrize("form", FORMS)
def test_loops_of_every_form_are_checked_and_left_alone(work, form):
    text = HEAD + FORMS[form] + "torch.save([p.detach() for p in model.parameters()], sys.argv[1])\n"
    lines, weights = plain(work, text)
    _, ranks = same_run(work, text, lines, weights, 2)
    assert "self-check of the first step: loss" in ranks[0].err, ranks[0].err


def test_pieces_are_checked_against_the_whole(work):
    contrastive = "F.cross_entropy(whole(a)[0], torch.arange(len(a)) % 3)"
    text = (
        HEAD
        + "class Over(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.net = model\n"
        + (
            "    def forward(self, a):\n        out = self.net(a)\n        return (out - out.mean(0), out)\nwhole = Over()\n"
        )
    )
    run = Run(work, launch(1), Wishes(layout=Layout.parse("micro_batches=2")))
    (rank,) = run.ranks(submitit(1), run.script(text + LOOP.format(loss=contrastive)))
    assert rank.code == 1
    assert "the self-check of the first step failed" in rank.err
    assert "in 2 micro-batches" in rank.err


# Every way to draw noise for rows; it is held still while the first step is checked.
NOISY = """
from torch.distributions import Bernoulli, Normal
for a, b, m in loader:
    noise = torch.randn_like(a) + torch.empty_like(a).normal_(1, 2) + torch.empty_like(a).uniform_(-1, 1)
    noise += torch.normal(torch.zeros_like(a), 1.0) + Normal(a, torch.ones_like(a)).rsample()
    noise *= torch.bernoulli(torch.full_like(a, 0.7)) + Bernoulli(torch.full_like(a, 0.7)).sample()
    noise += torch.randint(0, 9, (len(a), 1)) + torch.randint_like(a, 5) + torch.rand(len(a), 6)
    noise += torch.empty_like(a).exponential_() + torch.empty_like(a).bernoulli_(0.4)
    loss = F.mse_loss(model(a + noise), b)
    optim.zero_grad()
    loss.backward()
    optim.step()
"""


def test_a_step_that_draws_noise_is_checked(work):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(HEAD + NOISY))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert "self-check of the first step: loss" in ranks[0].err


# A boundary condition, as networks that are trained on an equation have: its point is a leaf of the step's own.
EDGE = """
for a, b, m in loader:
    edge = torch.zeros(1, 6, requires_grad=True)
    out = model(edge)
    slope = torch.autograd.grad(out, edge, torch.ones_like(out), create_graph=True)[0]
    loss = F.mse_loss(model(a), b) + 0.1 * (slope - 1).pow(2).sum() + 9 * (out - 1).pow(2).sum()
    optim.zero_grad()
    loss.backward()
    optim.step()
"""


def test_a_leaf_of_the_steps_own_is_no_weight(work):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(HEAD + EDGE))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert "self-check of the first step: loss" in ranks[0].err


# Single numbers of torch's for row after row, which are alike on all ranks, behind an order and by themselves.
BY_ROW = {
    "uniform": "torch.cat([torch.rand(1) for _ in range(len(a))])",
    "beta": "torch.stack([torch.distributions.Beta(0.4, 0.4).sample() for _ in range(len(a))])",
    "behind an order": "(torch.randperm(8), torch.cat([torch.rand(1) for _ in range(len(a))]))[1]",
}
MIXED = """
for a, b, m in loader:
    order, weight = torch.randperm(len(a)), torch.distributions.Beta(0.4, 0.4).sample((len(a), 1))
    mixed, kind = weight * a + (1 - weight) * a[order], torch.multinomial(model(a).softmax(1), 1).squeeze(1)
    (F.mse_loss(model(mixed), b) + 0 * torch.rand(1).item() + F.cross_entropy(model(a), kind)).backward()
"""


@pytest.mark.parametrize("kind", BY_ROW)
def test_single_numbers_drawn_row_by_row_are_refused(work, kind):
    body = LOOP.format(loss="F.mse_loss(model(a) * " + BY_ROW[kind] + "[:, None], b)")
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(HEAD + body))
    assert [rank.code for rank in ranks] == [1, 1]
    said = "".join(rank.err for rank in ranks)
    assert "draws single random numbers, and fewer of them for the rows of a rank" in said
    assert ranks[0].out == ""


def test_a_step_that_draws_an_order_or_a_choice_is_checked(work):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(HEAD + MIXED))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert "self-check of the first step: loss" in ranks[0].err


def test_a_step_that_draws_an_order_of_a_ranks_own_rows_is_stopped(work):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(HEAD + MIXED.replace("randperm(len(a))", "randperm(a.numpy().shape[0])")))
    assert [rank.code for rank in ranks] == [1, 1]
    assert "the self-check of the first step failed" in ranks[0].err + ranks[1].err


UNFIT = {
    "other = iter(list(range(9)))\nfor a, b, m in loader: (next(other), F.mse_loss(model(a), b).backward())": "(next)",
    "for a, b, m in loader: F.mse_loss(F.rrelu(model(a), training=True), b).backward()": "cannot be steadied",
    "it = iter(loader)\na, b, m = next(it)\nF.mse_loss(model(a), b).backward()": "not taken by a for loop",
    "for a, b, m in loader: F.mse_loss(model(a).view(2, 6), b.view(2, 6)).backward()": "does not run by itself (RuntimeError",
    "print(2)\nfor a, b, m in loader: len(b) > 9 and F.mse_loss(model(a), b).backward()": "first turn has no backward",
}


@pytest.mark.parametrize("body", UNFIT, ids=["next", "random", "no loop", "size", "no backward"])
def test_a_check_that_cannot_be_made_is_said(work, body):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(HEAD + body))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    (said,) = [line for line in ranks[0].err.splitlines() if "self-check could not be made: " in line]
    assert UNFIT[body] in said


def test_a_logarithm_is_no_log(work):
    body = """
from math import log
def info(out): return torch.log(out.exp()).mean() + out.exp().log().mean() * log(2) + np.log(2) + math.log(2)
for a, b, m in loader:
    loss = F.mse_loss(model(a), b) + info(model(a))
    optim.zero_grad(); loss.backward(); optim.step()
"""
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(HEAD + "import math\nimport numpy as np\n" + body))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert "self-check of the first step: loss" in ranks[0].err


# What sentence-transformers gives to its Trainer: words and numbers beside the rows.
NAMED = """
def named(rows):
    a, b, m = map(torch.stack, zip(*rows))
    return {"a": a, "kind": "text", "limit": 3, "scale": torch.tensor(2.0), "none": None, "b": b, "m": m}
loader = DataLoader(TensorDataset(x, y, mask), batch_size=8, collate_fn=named)
class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = model
    def forward(self, a, b):
        return ROWS
mixing = Mixing()
for batch in loader:
    loss = F.mse_loss(mixing(batch["a"], batch["b"]) * batch["scale"], batch["b"])
    loss.backward()
    optim.step()
"""


@pytest.mark.parametrize(("rows", "said"), [("self.net(a)", "step: loss"), (WRONG["contrastive"], "step failed: loss")])
def test_a_batch_with_things_that_are_of_no_row_is_checked(work, rows, said):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(HEAD + NAMED.replace("ROWS", rows)))
    assert f"self-check of the first {said}" in "".join(rank.err for rank in ranks)


def test_off(work):
    run = Run(work, launch(2), Wishes(self_check=False))
    ranks = run.ranks(submitit(2), run.script(HEAD + INSIDE.format(rows=WRONG["sum"])))
    assert [rank.code for rank in ranks] == [0, 0]
    assert "self-check" not in ranks[0].err


# Rows that the collate function fills up to the longest: of the rank's own rows, which the model may make something of.
PADDED = """
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 24
    def __getitem__(self, place):
        random.random()
        return torch.arange(1, 3 + (place // 4) % 3 * 2 + place % 2), torch.tensor(place % 3)
def collate(rows):
    random.shuffle([1, 2, 3]) if NOISY else None
    texts, targets = zip(*rows)
    return pad_sequence(texts, batch_first=True), torch.tensor([len(each) for each in texts]), torch.stack(targets)
class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.recurrent, self.head = nn.Embedding(9, 5), nn.LSTM(5, 7, batch_first=True), nn.Linear(7, 3)
    def forward(self, texts, sizes):
        rows = self.embedding(texts)
        READ
        return self.head(found)
NOISY = False
model = Reader().cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(Rows(), batch_size=8, collate_fn=collate)
for texts, sizes, targets in loader:
    print(random.random())
    loss = F.cross_entropy(model(texts, sizes), targets)
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(f"loss {loss.item()}")
torch.save(model.state_dict(), sys.argv[1])
"""


def numbered(script):
    """The same with batches that are more than rows filled up: they have the number of the longest row."""
    script = script.replace("torch.stack(targets)\n", "torch.stack(targets), max(map(len, texts))\n")
    return script.replace("for texts, sizes, targets in", "for texts, sizes, targets, longest in")


LAST = "found = self.recurrent(rows)[1][0][0]"
PACKED = """found = self.recurrent(pack_padded_sequence(rows, sizes, batch_first=True, enforce_sorted=False))[0]
        found = pad_packed_sequence(found, batch_first=True)[0].sum(1)"""
STEPS = PACKED + "\n        [random.random() for _ in range(texts.shape[1])]"


MEAN = "found = self.recurrent(rows)[0].mean(1)"
NOTHING_DRAWN = ("        random.random()\n", "")
ALIKE = ("(place // 4) % 3 * 2 + place % 2", "place % 4")
"""The first batch is as wide on both ranks."""
LATER = (ALIKE[0], "2 * (place % 8 > 2) + (place % 8 > 6)")
"""The longest rows of rank 0 are as long as the shortest of rank 1."""


@pytest.mark.parametrize("change", [ALIKE[:1] * 2, ALIKE, LATER], ids=["unlike", "alike", "later"])
@pytest.mark.parametrize("read", [LAST, MEAN, STEPS], ids=["last", "mean", "steps"])
def test_a_model_that_reads_the_padding_gets_that_of_one_device(work, read, change):
    script = numbered(HEAD + PADDED.replace(*NOTHING_DRAWN).replace("READ", read).replace(*change))
    run, ranks = same_run(work, script, *plain(work, script), 2)
    assert "each rank puts whole batches together, as one device does" in ranks[0].err
    assert "how far rows are padded" in json.loads((run.folder / "whole-batches.json").read_text())["reason"]


@pytest.mark.parametrize(("workers", "layout"), [(0, "fsdp"), (2, "")])
def test_padding_of_one_device_stays_in_later_epochs(work, workers, layout):
    """Batches that workers had fetched already are put together anew, and a second loader does as the first."""
    lines = (
        PADDED.replace("READ", MEAN).replace(*NOTHING_DRAWN).replace("print(random.random())", "print(texts.shape[1])")
    )
    before, loop = lines.replace("return 24", "return 23").split("for texts, sizes, targets in loader:\n")
    loop, after = loop.split("torch.save")
    before = before.replace("collate_fn=collate)", f"collate_fn=collate, shuffle=True, num_workers={workers})")
    inner = loop.replace("    ", "        ")
    script = f"""{HEAD}{before}
again = DataLoader(Rows(), batch_size=5, collate_fn=collate)
for each in loader, loader, again:
    for texts, sizes, targets in each:
{inner}torch.save{after}"""
    script = numbered(script)
    _, ranks = same_run(work, script, *plain(work, script), 3, layout=layout)
    assert "each rank puts whole batches together" in ranks[0].err


STREAM = """
class Rows(torch.utils.data.IterableDataset):
    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        yield from ((torch.arange(1, 3 + WIDTH), torch.tensor(place % 3))
            for place in (range(info.id, 23, info.num_workers) if info else range(23)))
def collate("""


@pytest.mark.parametrize("workers", [0, 2])
def test_padding_of_one_device_in_a_stream(work, workers):
    """Every rank reads all samples of a stream, so that they need not be asked for again."""
    script = PADDED.replace(PADDED[PADDED.index("class Rows") : PADDED.index("def collate(") + 12], STREAM.strip())
    script = HEAD + script.replace("WIDTH", ALIKE[0]).replace("READ", LAST)
    # A function that no worker could send back.
    script = script.replace("collate_fn=collate)", f"collate_fn=lambda rows: collate(rows), num_workers={workers})")
    script = numbered(script)
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert "each rank puts whole batches together" in ranks[0].err


def test_samples_are_not_fetched_beside_a_worker_that_reads_a_file(work):
    """The two would share the place in it."""
    script = HEAD + PADDED.replace(*NOTHING_DRAWN).replace("READ", PACKED)
    script = script.replace("collate_fn=collate)", "collate_fn=collate, num_workers=1)")
    reads = script.replace("NOISY = False", "NOISY = False\nfile = open(__file__)")
    for text, is_compared in (script, True), (reads, False):
        _, ranks = same_run(work / str(is_compared), text, *plain(work, text), 2)
        assert ("could not be compared: their samples cannot be fetched" in ranks[0].err) != is_compared


def test_padding_of_one_device_with_time_first(work):
    read = MEAN.replace("mean(1)", "mean(0)")
    script = numbered(HEAD + PADDED.replace(*NOTHING_DRAWN).replace("READ", read).replace(", batch_first=True", ""))
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert "each rank puts whole batches together" in ranks[0].err


@pytest.mark.parametrize("read", [LAST, MEAN, STEPS], ids=["last", "mean", "steps"])
def test_a_model_that_reads_the_padding_of_drawn_samples_is_stopped(work, read):
    """Which random numbers, and so which lengths, would be each rank's."""
    run = Run(work, launch(2))
    script = run.script(numbered(HEAD + PADDED.replace("READ", read)))
    ranks = run.ranks(submitit(2), script, str(work / "weights.pt"))
    assert [rank.code for rank in ranks] == [1, 1]
    assert not any("loss" in rank.out for rank in ranks)
    (said,) = [rank.err for rank in ranks if "the self-check of the first step failed" in rank.err]
    assert "each rank pads its rows to the longest of its own" in said
    assert "contrastive" not in said


def test_rows_that_are_mixed_are_not_laid_to_the_padding(work):
    run = Run(work, launch(2))
    mixed = PACKED + "\n        found = found - found.sum(0)"
    ranks = run.ranks(submitit(2), run.script(HEAD + PADDED.replace("READ", mixed)), str(work / "weights.pt"))
    assert [rank.code for rank in ranks] == [1, 1]
    (said,) = [rank.err for rank in ranks if "the self-check of the first step failed" in rank.err]
    assert "contrastive" in said
    assert "pads its rows" not in said


def test_a_model_that_packs_the_padding_is_compared_at_two_widths(work):
    script = HEAD + PADDED.replace("READ", PACKED).replace(*NOTHING_DRAWN)
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert "self-check of the first step: loss" in ranks[0].err
    assert "could not be" not in ranks[0].err


def test_what_samples_draw_when_they_are_fetched_again_is_put_back(work):
    script = HEAD + PADDED.replace("READ", PACKED)
    said = []
    for is_on in True, False:
        run = Run(work / str(is_on), launch(2), Wishes(self_check=is_on))
        said.append(run.ranks(submitit(2), run.script(script), str(work / "weights.pt"))[0])
    assert "self-check of the first step: loss" in said[0].err
    assert said[0].out == said[1].out


def test_rows_that_cannot_be_put_together_anew_are_checked_at_one_width(work):
    run = Run(work, launch(2))
    script = HEAD + PADDED.replace("READ", PACKED).replace("NOISY = False", "NOISY = True")
    ranks = run.ranks(submitit(2), run.script(script), str(work / "weights.pt"))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert "self-check of the first step: loss" in ranks[0].err
    assert "rows of different widths could not be compared: the collate function draws random numbers" in ranks[0].err


BESIDE = """
def collate(rows):
    a, b, m = map(torch.stack, zip(*rows))
    return a, b, torch.ones(4)
loader = DataLoader(TensorDataset(x, y, mask), batch_size=7, collate_fn=collate)
for a, b, weights in loader:
    loss = F.mse_loss(model(a), b)
    optim.zero_grad(); loss.backward(); optim.step()
    print(loss.item())
torch.save(model.state_dict(), sys.argv[1])
"""


def test_a_part_that_is_as_long_as_the_rows_of_one_rank_does_not_part_the_ranks(work):
    """One of them left the check then, and the other waited for it."""
    script = HEAD + BESIDE
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert "self-check of the first step: loss" in ranks[0].err


# Classes that only the function knows which made them, so that no other process finds them by their name.
LOCAL = """
from collections import namedtuple
from dataclasses import dataclass
def main():
    @dataclass
    class Batch:
        pair: object
        names: list
    Pair = namedtuple("Rows", "a b")
    def collate(rows):
        a, b, m = map(torch.stack, zip(*rows))
        return Batch(Pair(a, b), [str(len(row)) for row in rows])
    for batch in DataLoader(TensorDataset(x, y, mask), batch_size=7, collate_fn=collate):
        assert type(batch) is Batch and type(batch.pair) is Pair and type(batch.names) is list
        loss = F.mse_loss(model(batch.pair.a), batch.pair.b)
        optim.zero_grad(); loss.backward(); optim.step()
        print(loss.item(), len(batch.names))
    torch.save(model.state_dict(), sys.argv[1])
main()
"""


def test_a_batch_of_a_class_that_a_function_made_is_checked(work):
    """Its rows travelled in it, and pickle refused them."""
    script = HEAD + LOCAL
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert "self-check of the first step: loss" in ranks[0].err
    assert "asks whether type(...) is a list or a tuple (line 29 of script.py)" in ranks[0].err


# What functions share with those that made them, their attributes and their defaults.
CLOSED = """
def counter():
    n, seen = 0, []
    def step(k, *, by=[0]):
        nonlocal n
        n += 1
        seen.append(k)
        by[0] += 1
        return n, len(seen), by[0]
    return step
step = counter()
def tick():
    tick.calls += 1
    return tick.calls
tick.calls = 0
class Meter:
    def __init__(self): self.n = 0
    def add(self, k): self.n += k
meter = Meter()
add = meter.add
def train():
    it = 0
    def rate():
        nonlocal it
        it += 1
        return 0.1 / it
    for a, b, m in loader:
        optim.param_groups[0]["lr"] = rate()
        loss = F.mse_loss(model(a), b)
        add(len(a))
        print(step(len(a)), tick(), meter.n)
        optim.zero_grad(); loss.backward(); optim.step()
        print(loss.item(), it)
    torch.save(model.state_dict(), sys.argv[1])
train()
"""


def test_functions_are_as_they_were_behind_it(work):
    """A count of steps in a closure was two more, and with it the learning rate was another one."""
    script = HEAD + CLOSED
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert "self-check of the first step: loss" in ranks[0].err


PENALTY = """
from torch.utils.flop_counter import FlopCounterMode
for a, b, m in loader:
    {drawn}
    loss = F.mse_loss(model(a), b) + 0.1 * sum(p.pow(2).sum() for p in model.parameters())
    optim.zero_grad()
    {backward}
    optim.step()
    print(f"loss {{loss.item()}} {{model.weight.grad.norm().item()}}")
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""


@pytest.mark.parametrize(
    ("drawn", "backward"),
    [
        ("a = a + 0.1 * a[torch.randperm(len(a))]", "loss.backward()"),  # which the check makes steady
        ("pass", "with FlopCounterMode(display=False): loss.backward()"),
    ],
    ids=["steady", "counted"],
)
def test_weights_in_parts_keep_their_gradients_where_torch_is_looked_at_beneath(work, drawn, backward):
    # A dispatch mode hands operators on to a weight in parts, which answered as the whole one: gradients were lost.
    text = HEAD + PENALTY.format(drawn=drawn, backward=backward)
    same_run(work, text, *plain(work, text), 2, layout="fsdp")


BREAKING = """
class Breaking(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, gradient):
        if gradient.shape[0] < 8:
            raise ValueError("8 rows are wanted")
        return gradient
model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)).cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for a, b, m in loader:
    optim.zero_grad()
    F.mse_loss(model[1](Breaking.apply(model[0](a))), b).backward()
    optim.step()
"""


def test_a_backward_of_weights_in_parts_that_breaks_off_ends_the_run(work):
    run = Run(work, launch(2), Wishes(layout=Layout.parse("fsdp")))
    ranks = run.ranks(submitit(2), run.script(HEAD + BREAKING))
    assert [rank.code for rank in ranks] == [1, 1]
    assert "broke off in backward" in ranks[0].err
    assert "8 rows are wanted" in ranks[0].err
