"""Rows that a script computes in pieces and puts together, and torch's functions of rows: as on one device."""

import pytest
from one_device import plain, same_run
from test_runtime_logged import HEAD, TAIL

STEP = """
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(loss.item())
"""
# All ranks have all rows of these; beside labels, masks and inputs of which each has its own they are its own as well.
PIECES = (
    HEAD
    + """
for x, y, index in loader:
    out = torch.cat([net(x[i : i + 4]) for i in range(0, len(x), 4)])
    both = torch.cat([net(part) for part in x.chunk(2)])
    likely = out.log_softmax(1)
    mask = y == 1
    loss = -likely[torch.arange(len(y)), y].mean() - likely.gather(1, y[:, None]).mean() - both.take_along_dim(y[:, None], 1).mean()
    loss = loss + (out[mask] - 1).pow(2).sum() / (mask.sum() + 1) + torch.cat([both, x], 1).pow(2).mean()
    loss = loss + torch.stack([out[:, 0], x[:, 0]]).prod(0).mean() + F.pairwise_distance(out, x[:, :3]).mean()
    print((out.argmax(1) == y).double().mean().item(), out[y == 0].shape, out[index % 2 == 0].sum().item(), len(out))
    table = torch.zeros(3, 3).index_put((y, out.argmax(1)), torch.ones(len(y)), accumulate=True)
    print(table.tolist(), F.cosine_similarity(out, x[:, :3]).mean().item(), torch.hstack([out, x]).sum().item(), (both @ both.T).sum().item())
"""
    + STEP
    + """
    print(out.gather(1, y[:, None]).sum().item(), out[y == 2].tolist(), both.tolist())
"""
    + TAIL
)
FUNCTIONS = (
    HEAD
    + """
for x, y, index in loader:
    out = net(x)
    chosen = torch.take_along_dim(out, y[:, None], 1)
    print(chosen.sum().item(), len(chosen), out.index_select(1, torch.tensor([0, 2])).sum().item(), x.take_along_dim(x.argsort(dim=1), dim=1)[:, -1].mean().item())
    print(x.movedim(1, 0).sum().item(), torch.moveaxis(x, 0, 1)[1].mean().item(), x.swapaxes(0, 1).sum().item(), x.swapdims(0, 1)[0].sum().item(), x.H.sum().item())
    print(x.tril().sum().item(), x.triu().sum().item(), x.diagonal().sum().item(), torch.msort(x)[0].sum().item(), torch.vander(x[:, 0]).sum().item(), x[:, 0].diag().shape)
    print(x.flip(1)[:, 0].sum().item(), x.roll(1, 1)[:, 0].sum().item(), x.tile(1, 2).sum().item(), x.repeat_interleave(2, dim=0).sum().item(), x.unfold(1, 2, 1).sum().item())
    loss = F.cross_entropy(out, y) - 0.1 * chosen.mean()
"""
    + STEP
    + TAIL
)
# A number of rows that is given to a method or a function, of plain tensors too.
NUMBERS = (
    HEAD
    + """
noise, joined = torch.randn(9, 3), np.array([])
for x, y, index in loader:
    n = len(x)
    out, t = net(x), torch.ones(2)
    print(t.mul(n).tolist(), torch.mul(t, n).tolist(), t.div(n).tolist(), torch.tensor(2.0).mul_(n).item(), torch.div(torch.tensor(1.0), n).item())
    print(np.repeat(0.5, n), np.tile([1, 2], n), np.repeat([1, 2], n).tolist())
    loss = F.mse_loss(out + noise.narrow(0, 0, n), 0.5 * torch.narrow(noise, 0, 0, n)) + F.cross_entropy(out, y).mul(n).div(n)
    loss = loss + (torch.tensor(np.repeat(2.0, n)) * out[:, 0]).mean()
"""
    + STEP
    + """
    joined = np.concatenate([joined, np.repeat(round(loss.item(), 6), n)])
    print(noise.narrow(0, 0, n).sum().item())
print(joined.tolist(), len(joined))
"""
    + TAIL
)
UNKNOWN = (
    HEAD
    + "for x, y, index in loader:\n    loss = net(x).pow(2).mean()\n    pairs = torch.combinations(y)\n"
    + STEP
    + TAIL
)


@pytest.mark.parametrize(
    ("text", "count", "layout"),
    [(PIECES, 3, ""), (PIECES, 2, "fsdp"), (FUNCTIONS, 3, ""), (NUMBERS, 3, "")],
    ids=["pieces", "pieces-fsdp", "functions", "numbers"],
)
def test_rows_in_pieces_and_functions_of_rows(work, text, count, layout):
    same_run(work, text, *plain(work, text), count, layout=layout)


def test_a_function_that_is_not_followed_is_said(work):
    _, ranks = same_run(work, UNKNOWN, *plain(work, UNKNOWN), 3)
    assert ranks[0].err.count("what combinations gives for the rows of a batch is not followed") == 1
