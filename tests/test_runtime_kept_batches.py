"""Batches that a script keeps and comes back to: `itertools.cycle(loader)`, `list(loader)`, amid evaluations.

Each script was composed by tests/composed_more.py: rows had been a rank's own without a word.
"""

import pytest
from one_device import plain, same_run
from test_runtime_parallel import HEAD

KEPT = (
    HEAD
    + """
import itertools
np.random.seed(3)
import torch.nn.functional as F
X, Y = torch.randn(23, 6), torch.randint(0, 4, (23,))
data = TensorDataset(X, Y)
model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 4))
optim = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(data, batch_size=7, shuffle=True)
batches = BATCHES
for epoch in range(3):
    model.train()
    total = n = 0
    for step, (x, y) in enumerate(itertools.islice(batches, 4)):
        x = x + 0.1 * torch.randn_like(x) * torch.rand(x.size(0), 1)
        x = x + torch.from_numpy(np.random.normal(0, 0.1, (len(x), 6))).float() + torch.empty_like(x).uniform_()
        out = model(x)
        loss = LOSS
        optim.zero_grad()
        loss.backward()
        optim.step()
        total += loss.item() * x.size(0)
        n += (out.argmax(1) == y).sum().item()
        print(step, y.tolist())
    print(total, n)
    model.eval()
    with torch.no_grad():
        print(sum(F.cross_entropy(model(x), y, reduction="sum").item() for x, y in DataLoader(data, batch_size=9)))
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
)
EXACT = "F.cross_entropy(out, y)"
BY_HAND = "-(out.log_softmax(1) * F.one_hot(y, 4)).sum() / len(y)"


@pytest.mark.parametrize(
    ("batches", "loss"), [("itertools.cycle(loader)", BY_HAND), ("itertools.cycle(list(loader))", EXACT)]
)
def test_a_batch_that_was_kept_is_that_of_all_rows_again(work, batches, loss):
    text = "import numpy as np\n" + KEPT.replace("BATCHES", batches).replace("LOSS", loss)
    same_run(work, text, *plain(work, text), 2)


LISTS = (
    HEAD
    + """
def collate(rows):
    x, names = zip(*rows)
    return torch.stack(x), list(names)
X = torch.randn(22, 6)
model = nn.Linear(6, 1)
optim = torch.optim.SGD(model.parameters(), lr=0.1)
seen = 0
for x, names in list(DataLoader([(X[i], f"row{i}") for i in range(22)], batch_size=4, collate_fn=collate)):
    x = torch.nn.functional.dropout(x, 0.3)
    loss = model(x).pow(2).mean()
    optim.zero_grad()
    loss.backward()
    optim.step()
    seen += len(names)
    print(loss.item(), seen, x.shape, x.sum().item(), len(torch.nn.functional.dropout(x, 0.3, training=False)))
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
)


def test_lists_of_a_batch_that_was_kept_and_dropout_in_the_loop_are_of_all_rows(work):
    same_run(work, LISTS, *plain(work, LISTS), 2)


CHANNELS = (
    HEAD
    + """
X = torch.randn(14, 3, 4, 4)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(0.4), nn.Flatten(), nn.Linear(16, 1))
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for (x,) in DataLoader(TensorDataset(X), batch_size=5):
    loss = model(x).pow(2).mean()
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(loss.item())
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
)


def test_dropout_of_channels_is_that_of_one_device_where_the_cpu_stands_in(work):
    same_run(work, CHANNELS, *plain(work, CHANNELS), 2)


FETCHED = (
    HEAD
    + """
X, Y = torch.randn(20, 6), torch.randint(0, 4, (20,))
model = nn.Linear(6, 4)
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for x, y in list(DataLoader(TensorDataset(X, Y), batch_size=9)):
    out = model(x)
    loss = F.hinge_embedding_loss((out**2).sum(1), 2 * (y > 1).long() - 1)
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(loss.item(), out.softmax(-1).multinomial(1).flatten().tolist(), out.sigmoid().bernoulli().sum().item())
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
)


def test_a_mean_weighs_ranks_by_its_own_batch_and_methods_draw_for_its_rows(work):
    same_run(work, FETCHED, *plain(work, FETCHED), 2)


# Behind the first epoch each batch comes out of the cycle: a frozen copy with BatchNorm, and rows that are joined.
CYCLE = (
    "from itertools import cycle\n"
    + HEAD
    + """
import copy
X, Y = torch.randn(23, 6), torch.randint(0, 4, (23,))
loader = DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True)
model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
teacher = copy.deepcopy(model)
optim = torch.optim.SGD(model.parameters(), lr=0.1)
batches = cycle(loader)
for epoch in range(3):
    model.train()
    for step in range(5):
        x, y = next(batches)
        both, which = torch.cat([x, x.flip(-1)]), torch.arange(2).repeat_interleave(len(x))
        with torch.no_grad():
            soft = teacher(x)
        out = model(x)
        loss = torch.nn.functional.cross_entropy(out, y) + (out - soft).square().mean()
        loss = loss + 0.1 * torch.nn.functional.cross_entropy(model(both), which)
        optim.zero_grad()
        loss.backward()
        optim.step()
        print(loss.item(), len(y), (out.argmax(1) == y).sum().item(), y.tolist())
    model.eval()
    with torch.no_grad():
        print(sum((model(x).argmax(1) == y).sum().item() for x, y in DataLoader(TensorDataset(X, Y), batch_size=9)))
torch.save([p.detach() for p in model.parameters()][-1:], sys.argv[1])
"""
)


@pytest.mark.parametrize("count", [2, 3])
def test_batches_out_of_a_cycle_are_trained_as_new_ones(work, count):
    same_run(work, CYCLE, *plain(work, CYCLE), count)


TWICE = (
    HEAD
    + """
critic, model = nn.Linear(4, 1), nn.Linear(3, 4)
of_critic, optim = torch.optim.SGD(critic.parameters(), lr=0.1), torch.optim.SGD(model.parameters(), lr=0.1)
def ahead(loader):
    it = iter(loader)
    held = next(it, None)
    while held is not None:
        now, held = held, next(it, None)
        yield now
for rows, _ in ahead(DataLoader(TensorDataset(torch.randn(20, 4), torch.zeros(20)), batch_size=6)):
    made = model(torch.randn(rows.size(0), 3))
    loss = critic(made.detach()).tanh().mean() - critic(rows).tanh().mean()
    of_critic.zero_grad()
    loss.backward()
    of_critic.step()
    fooled = -critic(made).tanh().mean()
    optim.zero_grad()
    fooled.backward()
    optim.step()
    print(loss.item(), fooled.item(), F.mse_loss(critic(made), critic(rows)).item())
torch.save([*critic.parameters(), *model.parameters()], sys.argv[1])
"""
)


def test_two_backwards_for_one_batch_leave_the_one_fetched_ahead_alone(work):
    """The last one has two rows on three ranks: its weights were taken for those of the one before."""
    same_run(work, TWICE, *plain(work, TWICE), 3)
