"""Numbers over all rows of a batch that are made by torch's other functions, and used with single rows; as on one device."""

import pytest
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit

from lumi_moai.plan import Wishes

HEAD = """
import sys
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7)
torch.set_default_dtype(torch.float64)
x, y, c = torch.randn(19, 6), torch.randn(19, 4), torch.randint(0, 4, (19,))
model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
optim = torch.optim.SGD(model.parameters(), lr=0.05)
def unit(out): return torch.eye(4) * 1e-3
def scatter(out):
    centred = out - out.mean(0)
    return centred, centred.T @ centred / (len(out) - 1) + unit(out)
"""
LOOP = """
loader = DataLoader(TensorDataset(x, y, c), batch_size=7, shuffle=True)
for rows, goal, label in loader:
    out = model(rows)
    losses = terms(rows, goal, label, out)
    optim.zero_grad()
    (sum(losses) / len(losses)).backward()
    optim.step()
    print(*[f"{float(each):.7f}" for each in losses])
torch.save([*model.parameters()], sys.argv[1])
"""
# Functions whose gradient is the same on all ranks, or not: of rows in the second dimension, of matrices, of two tensors.
FUNCTIONS = """
def terms(rows, goal, label, out):
    _, spread = scatter(out)
    together = torch.cat([out, goal[:, :2]], 1)
    return [
        torch.cov(out.T).triu(1).pow(2).sum(), torch.corrcoef(out.T).pow(2).sum(), torch.logdet(spread),
        (torch.cov(rows.T) - torch.cov(together.T)).pow(2).mean(), torch.linalg.norm(out), torch.dist(out, goal),
        torch.linalg.vector_norm(out, dim=0).sum(), torch.linalg.matrix_norm(out, "nuc"), torch.linalg.svdvals(out)[0],
        F.cosine_similarity(out, goal, dim=0).mean(), F.normalize(out, dim=0).pow(4).sum(), out.T.std(1).sum(),
        out.T.softmax(1).pow(2).sum(), torch.dot(out[:, 0], goal[:, 1]), out.nanmean(0).pow(2).sum(),
    ]
"""
# What is of all rows and used with single ones: its gradient is that of all rows.
USED = """
def terms(rows, goal, label, out):
    centred, spread = scatter(out)
    sizes, turn = torch.linalg.eigh(spread)
    factor = torch.linalg.cholesky(spread)
    return [
        F.mse_loss(centred / out.std(0).clamp(min=1e-3), goal), ((out * torch.sigmoid(out.mean(0))) ** 2).mean(),
        (out - F.softplus(out.mean(0))).abs().mean(), ((centred @ turn) / sizes.sqrt()).pow(4).mean(),
        torch.linalg.solve_triangular(factor, centred.T, upper=False).pow(4).mean(),
    ]
"""
# Rows by their numbers among all of them: the hardest of a batch, those that another model takes for easy.
HARDEST = """
other = nn.Linear(6, 4)
def terms(rows, goal, label, out):
    each = F.cross_entropy(out, label, reduction="none")
    hard = each.topk(max(1, int(0.5 * len(rows))))[1]
    easy = torch.argsort(F.cross_entropy(other(rows), label, reduction="none").detach())[: int(0.7 * len(rows))]
    third = torch.sort(each)[1][2]
    return [
        F.cross_entropy(out[hard], label[hard]), each[easy].mean(), out.index_select(0, hard).pow(2).mean(),
        out.gather(0, out.argsort(0)[:2]).pow(2).sum(), each[third], (out[hard, 1] * goal[hard, 2]).mean(),
        each.topk(max(1, len(rows) // 2)).values.mean(), out.topk(k=max(1, rows.size(0) // 2), dim=0)[0].sum(),
    ]
"""
# A BatchNorm without weights, called by the script itself, and a product edited in place (Barlow Twins).
TWINS = """
norm = nn.BatchNorm1d(4, affine=False)
def terms(rows, goal, label, out):
    other = model(rows + 0.1 * torch.randn_like(rows))
    crossed = norm(out).T @ norm(other)
    crossed.div_(rows.shape[0])
    return [torch.diagonal(crossed).add(-1).pow(2).sum(), crossed.triu(1).pow(2).sum()]
"""
# One number of Beta's, on ranks with two rows.
MIXED = """
def terms(rows, goal, label, out):
    lam = torch.distributions.Beta(0.4, 0.4).sample()
    order = torch.randperm(len(rows))
    return [F.mse_loss(model(lam * rows + (1 - lam) * rows[order]), goal), lam]
"""
# Distances within each row, and a queue of columns (MoCo).
QUEUE = """
queue, at = F.normalize(torch.randn(4, 14), dim=0), 0
def terms(rows, goal, label, out):
    global at
    points = out.view(-1, 2, 2)
    keys = F.normalize(goal, dim=1)
    queries = F.normalize(out, dim=1)
    found = torch.cat([(queries * keys).sum(1, keepdim=True), queries @ queue.clone()], 1) / 0.5
    with torch.no_grad():
        if len(rows) == 7:
            queue[:, at : at + keys.shape[0]] = keys.T
            at = (at + keys.shape[0]) % 14
    near = torch.cdist(points, goal.view(-1, 2, 2)).min(2)[0].mean()
    return [F.cross_entropy(found, torch.zeros(len(found), dtype=torch.long)), near, queue.norm()]
"""
# Tensors made for as many rows as the batch has, and written into: labels in one of many places, weights, masks.
MADE = """
def terms(rows, goal, label, out):
    hot = torch.zeros(label.size(0), 4).scatter_(1, label.unsqueeze(1), 1.0)
    smooth = torch.empty((len(rows), 4)).fill_(0.1)
    smooth[torch.arange(len(rows)), label] = 0.7
    weight = torch.ones(len(label))
    weight[label == 1] = 3.0
    halves = out.reshape(-1, 2)
    larger = torch.zeros(halves.shape[0], 2, dtype=torch.bool)
    larger[halves.argmax(1) == 1] = True
    step = torch.zeros(rows.shape, requires_grad=True)
    F.mse_loss(model(rows + step), goal).backward()
    return [
        -(hot * out.log_softmax(1)).sum() / hot.sum(), (out.softmax(1).mean(0) - smooth.mean(0)).pow(2).sum(),
        (weight * F.cross_entropy(out, label, reduction="none")).sum() / weight.sum(), larger.double().mean(),
        F.mse_loss(model(rows + step.grad.sign()), goal), step.grad.norm(), smooth.std(),
    ]
"""
# Two views of a batch that are computed as one (DINO, DPO), rows that come several times in turn (a group of answers for each question).
JOINED = """
def terms(rows, goal, label, out):
    n = rows.size(0)
    both = model(torch.cat([rows, 0.5 * rows.flip(1)]))
    labels, (first, second), (left, right) = label.repeat(2), both.chunk(2), torch.split(both, n)
    views, unit = both.view(2, n, -1), F.normalize(both, dim=1)
    group = model(rows.repeat_interleave(3, dim=0) + 0.1 * torch.arange(3).repeat(n)[:, None]).view(n, 3, -1)
    drawn = torch.multinomial(both.detach().softmax(1), 1)[:, 0]
    noise = torch.randn_like(both)
    return [
        F.cross_entropy(both, labels), both.mean(0).pow(2).sum(), (both - both.mean(0)).pow(2).mean(), both.std(0).sum(),
        (first.mean(0) - second.mean(0)).pow(2).sum(), (first.T @ second / n).pow(2).sum(), (left - right).std(),
        views.mean(1).pow(2).sum(), unit.mean(0).norm(), both[: len(rows)].mean(0).abs().sum(), both[n:].max(0)[0].sum(),
        both[2].sum(), both[:3].mean(), both[n // 2 :].pow(2).mean(), both[-1, 0], both.argmax(0).double().mean(),
        torch.einsum("nd,ne->de", unit, both).pow(2).mean(), (both.argmax(1) == labels).double().sum() / len(both),
        group.std(1).mean(), group.mean((0, 1)).norm(), rows.repeat(3, 1).std(0).mean(), label.repeat(2).sum() / labels.numel(),
        both.gather(1, drawn[:, None]).mean(), drawn.double().mean(), (noise * both).mean(0).abs().sum(),
        torch.vstack([out[:, 0], out[:, 1]]).std(1).sum(), torch.vstack([out, -out]).std(0).sum(), torch.hstack([out, rows]).mean(0).norm(),
        out[label > 0].softmax(1).max(1)[0].mean(), out[label > 0].norm(dim=1).std(),
    ]
"""


@pytest.mark.parametrize("terms", [FUNCTIONS, USED, HARDEST, TWINS, MIXED, QUEUE, MADE, JOINED])
def test_numbers_of_all_rows_have_the_value_and_the_gradient_of_one_device(work, terms):
    text = HEAD + terms + LOOP
    lines, weights = plain(work, text)
    for count in (2, 3):
        same_run(work, text, lines, weights, count)


CROSSED = """
def terms(rows, goal, label, out):
    return [PAIRS.pow(2).mean()]
"""


@pytest.mark.parametrize("pairs", ["torch.inner(out, out)", "F.linear(out, goal)", "torch.outer(out[:, 0], out[:, 1])"])
def test_other_products_of_rows_with_rows_are_refused(work, pairs):
    run = Run(work / "run", launch(2), Wishes(self_check=False))
    ranks = run.ranks(submitit(2), run.script(HEAD + CROSSED.replace("PAIRS", pairs) + LOOP), "weights.pt")
    assert {rank.code for rank in ranks} == {1}
    assert any("compares the rows of a batch with each other" in rank.err for rank in ranks)


# Two loaders whose batches weigh the ranks otherwise; the second batch is fetched between the losses of one backward.
BETWEEN = """
others = DataLoader(TensorDataset(torch.randn(16, 6)), batch_size=4, shuffle=True)
second = iter(others)
for rows, goal, label in DataLoader(TensorDataset(x, y, c), batch_size=5, shuffle=True, drop_last=True):
    out = model(rows)
    first = FIRST
    more, = next(second)
    found = model(more)
    last = found.pow(2).mean() + (torch.cov(found.T) - torch.cov(out.T)).pow(2).sum() + (found - out.mean(0)).abs().mean()
    optim.zero_grad()
    (first + last).backward()
    optim.step()
    print(f"{first.item():.8f} {last.item():.8f}")
torch.save([*model.parameters()], sys.argv[1])
"""


@pytest.mark.parametrize(
    "first",
    [
        "F.cross_entropy(out, label)",
        "(out - goal).pow(2).sum() / len(rows)",
        "out.std(0).sum() + (out / out.std(0)).mean()",
    ],
)
def test_a_batch_fetched_between_two_losses_may_weigh_the_ranks_otherwise(work, first):
    text = HEAD + BETWEEN.replace("FIRST", first)
    lines, weights = plain(work, text)
    for count in (2, 3):
        same_run(work, text, lines, weights, count)


# What becomes of rows that a mask has left: as many on each rank as it happens to have.
LEFT = """
def terms(rows, goal, label, out):
    mask = rows[:, 0] > -0.3
    some, right = out[mask], label[mask]
    sign = (right > 1).double() * 2 - 1
    likely, pred = F.log_softmax(some, dim=-1), some.argmax(dim=1)
    print(len(some), some.numel(), pred.size(0), some[some[:, 0] > 0].shape[0], torch.cat([some, some]).size(0))
    print(f"{pred.double().mean().item():.6f} {(pred == right).sum().item()} {some[:2].sum().item():.6f} {some[-1].sum().item():.6f}")
    return [-likely[:, 0].mean(), F.soft_margin_loss(some[:, 1], sign), (some @ torch.ones(4)).pow(2).mean(),
            F.cross_entropy(some, right, reduction="none").mean(), torch.cat([some, -some.relu()]).pow(2).mean()]
"""


@pytest.mark.parametrize("count", [2, 3])
def test_rows_that_a_mask_left_stay_rows(work, count):
    text = HEAD + LEFT + LOOP
    same_run(work, text, *plain(work, text), count)


# Rows of two batches at once, in one call of a model (FixMatch): numbers over rows of either, noise for each.
SEMI = (
    HEAD
    + """
model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
optim = torch.optim.SGD(model.parameters(), lr=0.1)
labelled = iter(DataLoader(TensorDataset(x, c), batch_size=4, shuffle=True, drop_last=True))
for (u,) in DataLoader(TensorDataset(torch.randn(17, 6)), batch_size=7, shuffle=True):
    rows, label = next(labelled)
    weak, strong = u + 0.05 * torch.randn_like(u), u + 0.3 * torch.randn_like(u)
    out = model(torch.cat([rows, weak, strong]))
    of_label, (of_weak, of_strong) = out[: len(rows)], out[len(rows) :].chunk(2)
    sure, guess = of_weak.detach().softmax(1).max(1)
    mask = sure.ge(0.35).double()
    unsure = (F.cross_entropy(of_strong, guess, reduction="none") * mask).mean()
    loss = F.cross_entropy(of_label, label) + unsure + 0.1 * of_strong.mean(0).pow(2).sum()
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(f"{loss.item():.7f} {unsure.item():.7f} {mask.mean().item():.4f} {mask.sum().item()} {len(out)} {of_weak.std().item():.6f}")
torch.save([*model.parameters()], sys.argv[1])
"""
)


@pytest.mark.parametrize("count", [2, 3])
def test_rows_of_two_batches_at_once_are_those_of_one_device(work, count):
    same_run(work, SEMI, *plain(work, SEMI), count)


# What `vmap` gives has an entry for each row: gradients of each row (privacy, importance), a loss for each task (MAML).
EACH = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7)
x = torch.randn(19, 4, dtype=torch.float64); y = torch.randint(0, 3, (19,))
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
optim = torch.optim.SGD(model.parameters(), lr=0.1)
def one(weights, row, label):
    return F.cross_entropy(functional_call(model, weights, (row[None],)), label[None])
for a, b in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True):
    fixed = {name: each.detach() for name, each in model.named_parameters()}
    each = vmap(grad(one), in_dims=(None, 0, 0))(fixed, a, b)
    norms = torch.stack([part.flatten(1).norm(dim=1) for part in each.values()]).norm(dim=0)
    print(len(norms), f"{norms.mean().item():.6f} {norms.max().item():.6f} {(norms > 1).sum().item()}")
    both = torch.vmap(lambda row, up: (row * up, row.square().sum()), in_dims=(1, None), out_dims=(1, 0))
    turned, squares = both(a.t(), a.new_ones(1))
    print(tuple(turned.shape), f"{turned.sum().item():.6f} {squares.mean().item():.6f}")
    kept = torch.func.vmap(lambda row: (model(row) ** 2).sum())(a)
    single = vmap(one, in_dims=(None, 0, 0))(dict(model.named_parameters()), a, b)
    loss = F.cross_entropy(model(a), b) + 0.1 * kept.mean() + 0.1 * single.std()
    optim.zero_grad(); loss.backward(); optim.step()
    print(f"{loss.item():.6f} {kept.sum().item():.6f}")
torch.save(list(model.parameters()), sys.argv[1])
"""


@pytest.mark.parametrize("count", [2, 3])
def test_what_vmap_gives_for_each_row_counts_over_all_ranks(work, count):
    same_run(work, EACH, *plain(work, EACH), count)
