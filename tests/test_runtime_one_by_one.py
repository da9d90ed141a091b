"""Rows that a script goes through one by one ahead of `backward()`: all of them for a log, this rank's for its loss."""

import pytest
from one_device import plain, same_run
from test_runtime_logged import HEAD, TAIL

STEP = """
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(loss.item())
"""
COUNTED = (
    HEAD
    + """
hits, total, table, counts, of_class, of_place = 0, 0, torch.zeros(3, 3), np.zeros((3, 3)), defaultdict(int), {}
said, wrong, hard, losses, histories = [], [], [], [], {i: [] for i in range(ROWS)}
seen, means, centres, queue = torch.zeros(3), torch.zeros(3), [torch.zeros(3) for _ in range(3)], deque(maxlen=5)
class Meter:
    def __init__(self): self.table = torch.zeros(3, 3)
    def update(self, p, y):
        for a, b in zip(p, y): self.table[b, a] += 1
meter, rows = Meter(), 0
for x, y, index in loader:
    out = net(x)
    p = out.argmax(1)
    for i in range(len(y)):
        if p[i] == y[i]: hits += 1
    for q, t in zip(p, y):
        if q == t: total += 1
        table[t, q] += 1
        counts[t, q] += 1
        of_class[t.item()] += int(q == t)
    said.extend([int(v) for v in p])
    wrong.append(sum(1 for q, t in zip(p, y) if q != t))
    for i, k in enumerate(index): of_place[k.item()] = i, p[i].item()
    for k, each in zip(index, F.cross_entropy(out.detach(), y, reduction="none")): losses.append((k.item(), round(each.item(), 6)))
    for n, o, t in zip(index, out.softmax(1), y): histories[n.item()].append(round(o[t].item(), 6))
    for i, (a, b) in enumerate(zip(p, y)):
        if a != b: hard.append((i, index[i].item()))
    mistaken = [n.item() for n, a, b in zip(index, p, y) if a != b]
    first = None
    for t in y:
        if t == 2:
            first = t.item()
            break
    for i in range(y.size(0)):
        rows += 1
        if rows % 5 == 0: print("row", rows, i, y[i].item(), p[i].item())
    meter.update(p, y)
    pairs, sizes = 0, index % 3
    for i in range(x.size(0)):
        for j in range(sizes[i]): pairs += int(x[i, j] > 0)
    for q, l in zip(p, y): hard.append((q.item(), l.tolist()))
    q, l = p.double().mean(), F.cross_entropy(out.detach(), y)
    print(pairs, q.item(), l.item(), len(hard))
    print(mistaken, first, any(t == 1 for t in y), all(t < 3 for t in y), round(max(o.max().item() for o in out), 6), hits, total, wrong)
    # What the loss is made of as well is that of all rows on one device, too.
    for t in y: means[t] = 0.9 * means[t] + 0.1
    for o, t in zip(out.detach(), y): centres[t] = 0.9 * centres[t] + 0.1 * o
    for o in out: queue.append(o.detach())
    per = F.cross_entropy(out, y, reduction="none") * means[y] + (out - torch.stack(centres)[y]).pow(2).mean(1)
    loss = per.mean() + 0.1 * (out - torch.stack(list(queue)).mean(0)).pow(2).mean()
"""
    + STEP
    + """
print(table, counts, sorted(of_class.items()), said, of_place, losses, hard, histories, meter.table, means, centres)
"""
    + TAIL
)
# Lists, arrays and tensors with an entry for each row that meet this rank's rows in its loss.
FOR_LOSS = (
    HEAD
    + """
of_class = [1.0, 2.0, 0.5]
def weights(y):
    found = []
    for t in y: found.append(of_class[t.item()])
    return torch.tensor(found)
def moved(x, y):
    for i in range(len(y)): x[i] += float(y[i]) * 0.1
    return x
class Kept:
    def __init__(self): self.rows = []
    def collect(self, out, y):
        for o, t in zip(out, y): self.rows.append(o[t])
    def loss(self):
        rows, self.rows = self.rows, []
        return -torch.stack(rows).mean()
kept = Kept()
for x, y, index in loader:
    out = net(moved(x.clone(), y))
    p = out.argmax(1)
    listed, mask, one_hot = [], torch.zeros(len(y)), np.zeros((len(y), 3))
    for t in y: listed.append(of_class[t])
    for i in range(len(y)): mask[i] = float(p[i] == y[i])
    for i, t in enumerate(y): one_hot[i, t] = 1
    turned = x.clone()
    for i in range(len(y)): turned[i] += float(y[i]) * 0.2
    loss = (F.cross_entropy(out, y, reduction="none") * torch.tensor(listed) * (1 + mask) * weights(y)).mean()
    loss = loss - (torch.from_numpy(one_hot) * out.log_softmax(1)).sum(1).mean() + F.cross_entropy(net(turned), y)
    loss = loss + (out[:, 0] * torch.tensor([of_class[t.item()] for t in y])).mean()
    kept.collect(out.log_softmax(1), y)
    loss = loss + kept.loss()
"""
    + STEP
    + TAIL
)
# Torch names the class of the first alone when `==` asks; numbers and rows of the whole batch may come first.
FIRST = (
    HEAD
    + """
for x, y, index in loader:
    out = net(x)
    top, pieces = out.max(), torch.cat([x[i : i + 2] for i in range(0, len(x), 2)])
    loss = F.cross_entropy(out, y) + 0.1 * (out * (y.min() == y)[:, None]).sum(1).mean()
    print((y.max() == y).sum().item(), (y.min() != y).sum().item(), (top == out).sum().item(), (y[-1] == y).tolist())
    print((pieces.sum(1) == x.sum(1)).sum().item(), (net(pieces).argmax(1) == y).double().mean().item())
"""
    + STEP
    + """
    print((y.max() == y).sum().item(), (loss == out).sum().item(), (y[-1] == y).tolist())
    print((pieces.sum(1) == x.sum(1)).sum().item(), (net(pieces).argmax(1) == y).double().mean().item())
"""
    + TAIL
)


@pytest.mark.parametrize(
    ("text", "count", "layout"),
    [(COUNTED, 3, ""), (COUNTED, 2, "fsdp"), (FOR_LOSS, 3, ""), (FIRST, 3, "")],
    ids=["counted", "counted-fsdp", "for-loss", "first"],
)
def test_rows_one_by_one_are_those_that_one_device_has(work, text, count, layout):
    _, ranks = same_run(work, text, *plain(work, text), count, layout=layout)
    assert ranks[0].err.count("goes through the rows of a batch one by one") == (text is FOR_LOSS)
