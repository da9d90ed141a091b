"""Single numbers of a batch: losses of shape (1,), those that a model returns, and either times a number of rows."""

import pytest
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit

MADE = """
import sys, torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
X, Y = torch.randn({rows}, 3), torch.randn({rows})
"""
LOOP = """
optimizer = torch.optim.SGD(linear.parameters(), 0.01)
seen, total = 0, torch.zeros(1)
for epoch in range(2):
    for x, y in DataLoader(TensorDataset(X, Y), 8):
        loss = LOSS
        print("before", loss.item(), loss.tolist(), (loss.detach() * x.size(0)).sum().item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach().view(1) * len(x)
        print(loss.item(), linear.weight.grad.norm().item(), (total / len(x)).tolist())
    with torch.no_grad():
        for x, y in DataLoader(TensorDataset(X, Y), 7):
            print("check", (LOSS * len(x)).item())
torch.save([linear.weight.detach()], sys.argv[1])
"""


@pytest.mark.parametrize(
    ("rows", "loss"),
    [
        (19, "torch.zeros(1) + F.mse_loss(linear(x)[:, 0], y)"),
        (22, "F.mse_loss(linear(x)[:, 0], y).view(1)"),
        (17, "((linear(x)[:, 0] - y) ** 2).mean(0, keepdim=True)"),
        (22, "torch.zeros(1, 1).add_(F.l1_loss(linear(x)[:, 0], y)) * len(x)"),
    ],
    ids=["added", "view", "kept", "in-place"],
)
def test_a_loss_of_one_element_is_one_number(work, rows, loss):
    text = f"{MADE.format(rows=rows)}linear = nn.Linear(3, 1)\n{LOOP.replace('LOSS', loss)}"
    same_run(work, text, *plain(work, text), 3)


BODIES = {
    "scaled": "return 0.5 * F.mse_loss(out, y)",
    "sum": "return F.mse_loss(out, y) + F.l1_loss(out, y)",
    "element": "z = torch.zeros(1); z += F.mse_loss(out, y); return z",
    "by hand": "return ((out - y) ** 2).mean() + 0.1 * self.linear.weight.norm()",
}


@pytest.mark.parametrize("body", BODIES)
def test_a_number_that_a_model_returns_is_taken_times_all_rows(work, body):
    model = (
        "class Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.linear = nn.Linear(3, 1)\n"
        f"    def forward(self, x, y):\n        out = self.linear(x)[:, 0]\n        {BODIES[body]}\n"
        "model = Model()\nlinear = model.linear\n"
    )
    text = MADE.format(rows=22) + model + LOOP.replace("LOSS", "model(x, y) / 2 * len(x)")
    same_run(work, text, *plain(work, text), 3)


EYE = (
    MADE.format(rows=11)
    + """
linear = nn.Linear(3, 9)
optimizer = torch.optim.SGD(linear.parameters(), 0.01)
for x, y in DataLoader(TensorDataset(X, Y), 5):
    made = linear(x).view(-1, 3, 3) + torch.eye(3, requires_grad=True)
    loss = (made @ x[:, :, None]).sum((1, 2)).sub(y).square().mean() + made.diagonal(0, 1, 2).sum(1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item(), linear.weight.grad.norm().item())
torch.save([linear.weight.detach()], sys.argv[1])
"""
)


def test_a_constant_may_want_a_gradient_and_be_as_long_as_the_rows_of_one_rank(work):
    same_run(work, EYE, *plain(work, EYE), 2)


# The labels, words and offsets of a batch of 6 are as many fields as 2 ranks have rows, and the words are flat.
BAG = """
import sys, torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
data = [(torch.randint(1, 12, (int(n),)), int(n) % 4) for n in torch.randint(2, 7, (20,))]
def collate(rows):
    words, labels = zip(*rows)
    starts = torch.tensor([0, *map(len, words)])[:-1].cumsum(0)
    return torch.tensor(labels), torch.cat(words), starts
bag, linear = nn.EmbeddingBag(12, 8, mode="sum"), nn.Linear(8, 4)
optimizer = torch.optim.SGD([*bag.parameters(), *linear.parameters()], 0.1)
right = seen = 0
for labels, words, starts in DataLoader(data, 6, shuffle=True, collate_fn=collate):
    out = linear(bag(words, starts))
    loss = F.cross_entropy(out, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    right += (out.argmax(1) == labels).sum().item()
    seen += len(labels)
    print(loss.item() * len(labels), right, seen)
torch.save([linear.weight.detach()], sys.argv[1])
"""


def test_a_batch_of_as_many_fields_as_rows_is_no_list_of_rows(work):
    same_run(work, BAG, *plain(work, BAG), 2)


# The last batch is fetched, and the loader at its end, ahead of the backward of the one before.
AHEAD = (
    MADE.format(rows=24)
    + """
linear = nn.Linear(3, 1)
optimizer = torch.optim.SGD(linear.parameters(), 0.1)
def ahead(loader):
    batches = iter(loader)
    held = next(batches, None)
    while held is not None:
        now, held = held, next(batches, None)
        yield now
for x, y in ahead(DataLoader(TensorDataset(X, Y), 6, shuffle=True)):
    with torch.no_grad():
        noise = linear(x + torch.randn_like(x)) + torch.normal(0, 0.1, (len(x), 1))
    loss = F.mse_loss(linear(x) + noise, y[:, None])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item(), noise.sum().item())
torch.save([linear.weight.detach()], sys.argv[1])
"""
)


def test_noise_for_a_batch_that_was_fetched_ahead_is_that_of_one_device(work):
    same_run(work, AHEAD, *plain(work, AHEAD), 2)


def test_a_step_that_draws_by_mean_and_deviation_is_checked(work):
    run = Run(work / "run", launch(2))
    ranks = run.ranks(submitit(2), run.script(AHEAD.replace("ahead(DataLoader", "(DataLoader")), str(work / "w.pt"))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert "self-check of the first step: loss" in ranks[0].err
