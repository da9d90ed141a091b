"""Numbers of rows that meet what is the script's own: its tables, lists, arrays and plain tensors; as on one device."""

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
torch.manual_seed(3)
torch.set_default_dtype(torch.float64)
BATCH = 7
data = TensorDataset(torch.randn(33, 2), torch.randint(0, 2, (33,)))
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 1)
    def forward(self, x, z=None):
        return self.b(torch.tanh(self.a(x if z is None else x * z))).squeeze(1)
net, emb = Net(), nn.Parameter(torch.randn(9))
weights = [*net.parameters(), emb]
optim = torch.optim.SGD(weights, lr=0.1)
noise, soft, real, kept = torch.randn(9, 2), torch.rand(9), torch.ones(9, dtype=torch.long), torch.zeros(9, 2)
names, array, meter = list("abcdefghi"), np.random.RandomState(0).randn(9, 2), torch.zeros(3)
for epoch in range(2):
    for x, y in DataLoader(data, batch_size=BATCH, shuffle=True):
        n = x.size(0)
"""
TAIL = """
        optim.zero_grad(); loss.backward(); optim.step()
        print(f"{loss.item():.8f}")
torch.save(weights, sys.argv[1])
"""
# Each line gives a loss of its own, so that one that is wrong shows.
TRAINED = """
        out = net(x, noise[:n])
        losses = [
            F.binary_cross_entropy_with_logits(out, soft[:n]), nn.MSELoss()(out, soft[0:n]),
            F.binary_cross_entropy_with_logits(out, y.double(), weight=soft[:n]), (out * emb[:n]).square().mean(),
            (soft[:n] * F.softplus(out)).sum() / soft[:n].sum(), net(torch.cat([x, noise[:n]])).square().mean(),
            net(torch.cat([x[:, :1], noise[:n, 1:]], 1)).square().mean(), net(torch.stack([x, noise[:n]]).mean(0)).mean(),
            net(torch.where(x > 0, x, noise[:n])).mean(), net(x[soft[:n] > 0.5]).square().mean(),
            torch.einsum("bi,bi->b", net.a(x)[:, :2], noise[:n]).square().mean(), net(torch.lerp(x, noise[:n], 0.3)).mean(),
            (noise[:n].T @ net.a(x)).square().mean(), (net(x) - net(noise[:n])).square().mean(),
            F.cross_entropy(torch.stack([out, -out], 1), real[:n]), net(x + torch.from_numpy(array[:n])).square().mean(),
            F.binary_cross_entropy_with_logits(net(torch.cat([x, -x])), torch.tensor([0.0] * n + [1.0] * n)),
            0.5 * sum(p.pow(2).sum() for p in net.parameters()) / len(x), emb.square().sum() * n / 100,
        ]
        losses.append((torch.linspace(0, 1, n) * out).square().mean())
        order = torch.randperm(n)[:n]
        losses.append((0.3 * out + 0.7 * out[order] * y[order]).square().mean())
        if n == BATCH:
            losses.append(net(0.5 * x + 0.5 * x[torch.randperm(BATCH)[:n]]).square().mean())
        print([f"{each.item():.8f}" for each in losses])
        loss = sum(losses)
"""
COUNTED = """
        out = net(x)
        loss = F.binary_cross_entropy_with_logits(out, y.double())
        print(names[:n], names[-n:], names[n], "ab" * 2, array[:n].shape, f"{array[n - 1].sum():.8f}", np.arange(9)[-n:])
        print(f"{soft[:n].sum().item():.8f} {noise[n - 1].sum().item():.8f} {soft[-n:].sum().item():.8f}", len(soft[n:]))
        print([f"{each:.8f}" for each in soft[:n].tolist()], f"{noise[:n].numpy().sum():.8f}", soft[:n].shape)
        meter[0] = n
        meter[1:3] = n
        meter[1] += n
        print(meter.tolist(), (torch.ones(2) * n).tolist(), f"{(torch.tensor(loss.item()) * n).item():.8f}")
        print((n - torch.tensor(1.0)).item(), (torch.tensor(2.0) ** n).item(), (n / torch.tensor(2.0)).item(), (torch.tensor(35.0) / n).item(), (torch.arange(20) < n).sum().item())
        kept[:n] = net.a(x).detach()[:, :2]
        print(f"{kept.sum().item():.8f}")
        kept[:n] += net.a(x).detach()[:, :2]
        kept[1 : n + 1] = net.a(x).detach()[:, :2]
        print(f"{kept.sum().item():.8f}")
        kept[:n].add_(0.5)
        kept[:n][:, 0] += 1
        print(f"{kept.sum().item():.8f}")
        kept[:n].copy_(net.a(x).detach()[:, :2])
        print(f"{kept.sum().item():.8f} {kept[0, 0].item():.8f}")
        noise[:n].zero_()
        print(f"{noise.sum().item():.8f}")
"""
# Tables to which each batch is joined, before and after its backward.
GROWN = (
    HEAD.replace(
        "for epoch in range(2):\n",
        """
said, rights, labels, rows, both = torch.tensor([]), torch.tensor([], dtype=torch.bool), torch.tensor([]), [noise], None
queue, seen = torch.randn(12, 2), np.array([])
for epoch in range(2):
""",
        1,
    )
    + """
        queue = torch.cat([x, queue])[:12]
        out = net(x)
        loss = F.binary_cross_entropy_with_logits(out, y.double()) + 0.1 * (out[:, None] - queue.mean(1)).pow(2).mean()
        optim.zero_grad(); loss.backward(); optim.step()
        hits = (out > 0) == y
        said, rights = torch.hstack([said, out.detach()]), torch.cat((rights, hits), 0)
        labels, seen = torch.cat(tensors=(labels, y), dim=0), np.append(seen, out.detach().numpy())
        rows, both = [torch.vstack([*rows, x])], hits if both is None else torch.cat([both, hits])
        print(len(said), rights.shape, labels.numel(), seen.shape, rows[0].shape, both.size(), said.tolist()[-3:], queue.sum().item())
        print(f"{rights.double().mean():.6f} {(labels == 1).sum()} {seen[-1]:.6f} {rows[0][-1]} {both.sum()} {rows[0].mean(0)}")
        with torch.no_grad():
            rows.append(net(x)[:, None] * x)
torch.save(weights, sys.argv[1])
"""
)
# A batch in pieces by hand; `next` is what the self-check cannot follow.
PIECES = (
    HEAD.replace(
        "for x, y in DataLoader(data, batch_size=BATCH, shuffle=True):",
        """
    batches = iter(DataLoader(data, batch_size=BATCH, shuffle=True))
    while True:
        x, y = next(batches, (None, None))
        if x is None: break""",
    )
    + """
        optim.zero_grad()
        total, i = 0.0, 0
        for j in range(0, n, 3):
            part, wanted = x[j : j + 3], y[j : j + 3].double()
            loss = F.binary_cross_entropy_with_logits(net(part), wanted) * (len(part) / n)
            loss.backward(); total += loss.item()
        while i < n:
            loss = F.mse_loss(net(x[i : i + 2]), y[i : i + 2].double(), reduction="sum") / n
            loss.backward(); total += loss.item()
            i += 2
        optim.step()
        print(f"{total:.8f}", [f"{x[k : k + 2].sum().item():.8f}" for k in range(n - 2, 0, -2)])
torch.save(weights, sys.argv[1])
"""
)


@pytest.mark.parametrize("body", [TRAINED, COUNTED])
def test_as_many_rows_of_a_table_as_the_batch_has(work, body):
    text = HEAD + body + TAIL
    lines, weights = plain(work, text)
    for count, layout in ((2, ""), (3, ""), (2, "fsdp"), (8, "")):
        same_run(work, text, lines, weights, count, layout=layout)


@pytest.mark.parametrize("layout", ["", "fsdp"])
@pytest.mark.parametrize("text", [PIECES, GROWN], ids=["pieces", "grown"])
def test_a_batch_in_pieces_or_joined_to_a_table_is_gone_through_whole(work, text, layout):
    lines, weights = plain(work, text)
    same_run(work, text, lines, weights, 3, layout=layout)


def test_sizes_that_do_not_fit_are_explained(work):
    text = HEAD + "        loss = (torch.ones(BATCH, 2).T @ net.a(x)).mean()\n" + TAIL
    run = Run(work / "run", launch(2), Wishes())
    ranks = run.ranks(submitit(2), run.script(text), "weights.pt")
    assert {rank.code for rank in ranks} == {1}
    assert "this rank has 4 of the batch's 7 rows. Make a tensor that goes with rows" in ranks[0].err
