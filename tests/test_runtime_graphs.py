"""Batches of graphs (torch_geometric): a row is a graph, and nodes and edges count over all ranks as well."""

import shutil

import pytest
import torch
from one_device import assert_same_weights, plain, same_run
from runtime_ranks import Run, ended, launch, submitit
from test_runtime_resume import assert_one_run, killed_after, start, whole

from lumi_moai.plan import Wishes


class Graphs(Run):
    """Ranks that fork from a Python that has imported what torch_geometric imports."""

    imported = ("pandas", "transformers.tokenization_utils_base")


HEAD = """
import sys, warnings
warnings.simplefilter("ignore")
import lumi_moai
lumi_moai.enable_advanced_parallelization()
import torch, torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.nn import (BatchNorm, GATConv, GCNConv, GINEConv, HeteroConv, LayerNorm, SAGEConv, global_add_pool,
                                global_max_pool, global_mean_pool)
from torch_geometric.utils import degree, scatter
torch.manual_seed(3)
g = torch.Generator().manual_seed(1)

def graph(i, least=2, **more):
    k = int(torch.randint(least, 12, (1,), generator=g))
    ends = torch.randint(0, k, (2, 2 * k), generator=g)
    x = torch.randn(k, 4, generator=g)
    return Data(x=x, edge_index=ends, edge_attr=torch.randn(2 * k, 3, generator=g), y=torch.tensor([i % 3]), **more)

def save(*models):
    torch.save([p.detach() for model in models for p in model.parameters()], sys.argv[1])
"""
# The usual classification: right answers, losses times graphs, and what a batch says of its own size.
CLASSES = (
    HEAD
    + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = GCNConv(4, 8), GCNConv(8, 8), nn.Linear(8, 3)
    def forward(self, x, edge_index, batch):
        x = self.second(self.first(x, edge_index).relu(), edge_index)
        return self.last(global_mean_pool(x, batch))

graphs = [graph(i) for i in range(23)]
loader, rest = DataLoader(graphs[:17], batch_size=5, shuffle=True), DataLoader(graphs[17:], batch_size=4)
model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(2):
    model.train()
    total = correct = 0
    for data in loader:
        data = data.clone()  # as data.to(device) on a GPU makes all of them anew
        optimizer.zero_grad()
        out = model(data.x, data.edge_index, data.batch)
        loss = F.cross_entropy(out, data.y)
        loss.backward()
        optimizer.step()
        total += float(loss) * data.num_graphs
        correct += int((out.argmax(dim=1) == data.y).sum())
        print("sizes", data.num_graphs, len(data), data.batch_size, data.num_nodes, data.num_edges, data.x.size(0),
              data.edge_index.size(1), data.edge_index.shape[1], data.ptr.numel() - 1, data.edge_attr.numel())
    model.eval()
    hits = sum(int((model(d.x, d.edge_index, d.batch).argmax(1) == d.y).sum()) for d in rest)
    print("epoch", total / len(loader.dataset), correct / len(loader.dataset), hits)
save(model)
"""
)
# A loss over all nodes, BatchNorm over nodes, edge attributes, the batch given as it is, masks, sums and means by hand.
NODES = (
    HEAD
    + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        first = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8, bias=False))
        self.first, self.norm, self.second = GINEConv(first, edge_dim=3), BatchNorm(8), GATConv(8, 2, heads=2)
    def forward(self, data):
        x = self.norm(self.first(data.x, data.edge_index, data.edge_attr)).relu()
        return self.second(x, data.edge_index)

graphs = [graph(i) for i in range(13)]
for each in graphs:
    each.label, each.kept = (each.x > 0.3).float(), each.x[:, 0] > -0.5
    each.side = each.x[:, 0].sign()
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(2):
    for data in DataLoader(graphs, batch_size=5, shuffle=True):
        out = model(data)
        chance = torch.sigmoid(out)[data.kept]
        loss = F.binary_cross_entropy_with_logits(out, data.label) + F.soft_margin_loss(out[:, 0], data.side)
        loss = loss - torch.log(chance + 1e-3).mean() + (out ** 2).sum() / out.numel() + (out @ torch.ones(4)).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        each = F.mse_loss(out, data.label, reduction="none")
        pred = out.argmax(dim=1)
        print(loss.item(), each.mean().item(), F.log_softmax(out, dim=-1).mean().item(), pred.float().mean().item())
        print(len(out), out.shape[0], out[data.kept].shape[0], chance.numel(), int(data.kept.sum()), out[:3].sum().item())
        print(((out > 0) == (data.label > 0.5)).float().mean().item(), torch.cat([out, -out]).abs().mean().item())
torch.save([p.detach() for p in model.parameters()] + [b.float() for b in model.buffers()], sys.argv[1])
"""
)
# What is counted by graph or by node in the loop itself, ends of edges, lists, names, attributes of graphs.
BY_GRAPH = (
    HEAD
    + """
graphs = [graph(i, name=f"mol{i}", u=torch.randn(1, 2, generator=g), weight=float(i % 4 + 1)) for i in range(13)]
first, last = SAGEConv(4, 6), nn.Linear(14, 3)
optimizer = torch.optim.SGD([*first.parameters(), *last.parameters()], lr=0.1)
for epoch in range(2):
    for data in DataLoader(graphs, batch_size=5, shuffle=True, num_workers=epoch):
        data = data.to("cpu")
        z = first(data.x, data.edge_index)
        pooled = torch.cat([global_add_pool(z, data.batch), global_max_pool(z, data.batch, size=data.num_graphs), data.u], 1)
        out = last(pooled)
        row, col = data.edge_index
        near = (z[row] * z[col]).sum(-1)
        loss = (F.cross_entropy(out, data.y, reduction="none") * data.weight).sum() / data.weight.sum()
        loss = loss + F.softplus(-near).mean() + 0.01 * (pooled ** 2).mean()
        ahead = len(data.to_data_list()), len(data.name), pooled.size(0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        own = torch.zeros(data.num_graphs, 4).index_add_(0, data.batch, data.x)
        far = degree(data.edge_index[0], data.num_nodes)
        mean = scatter(data.x, data.batch, dim=0, reduce="mean")
        noise = torch.randn(data.num_nodes, 3) + torch.ones(data.num_nodes, 3)
        print(noise.mean().item(), noise.pow(2).sum().item(), noise.shape, (noise * data.x[:, :3]).mean(0).norm().item())
        parts = data.to_data_list()
        print(loss.item(), *ahead, own.pow(2).mean().item(), far.max().item(), far.size(0), mean.size(0), mean.sum().item())
        print(data.batch.bincount().float().pow(2).mean().item(), (row == col).sum().item(), near.numel(), data.weight.sum().item())
        print([len(each.x) for each in parts], (out[data.batch].sum(1) * data.x[:, 0]).sum().item(), data.y.tolist())
save(first, last)
"""
)
# Graphs filled up to one size, stacked: each tensor has a row for each graph.
STACKED = (
    HEAD
    + """
from torch_geometric.loader import DenseDataLoader
from torch_geometric.nn import DenseGCNConv
from torch_geometric.transforms import ToDense
graphs = [ToDense(12)(Data(x=each.x, edge_index=each.edge_index, y=each.y)) for each in (graph(i) for i in range(13))]
first, last = DenseGCNConv(4, 6), nn.Linear(6, 3)
optimizer = torch.optim.SGD([*first.parameters(), *last.parameters()], lr=0.1)
for data in DenseDataLoader(graphs, batch_size=5, shuffle=True):
    out = last(first(data.x, (data.adj > 0).float(), data.mask).mean(dim=1))
    loss = F.cross_entropy(out, data.y.view(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item(), data.y.size(0), (out.argmax(1) == data.y.view(-1)).sum().item(), data.mask.sum().item())
save(first, last)
"""
)
# A list of graphs, which the script puts together itself; one graph in a batch; events one after the other.
LISTS = (
    HEAD
    + """
from torch_geometric.data import Batch, TemporalData
from torch_geometric.loader import DataListLoader, TemporalDataLoader
graphs, events = [graph(i) for i in range(13)], torch.randint(0, 9, (2, 40), generator=g)
events = TemporalData(src=events[0], dst=events[1], t=torch.arange(40), msg=torch.randn(40, 4, generator=g))
first, last = GCNConv(4, 6), nn.Linear(6, 3)
optimizer = torch.optim.SGD([*first.parameters(), *last.parameters()], lr=0.1)
def learn(loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
for listed in DataListLoader(graphs, batch_size=5, shuffle=True):
    data = Batch.from_data_list(listed)
    out = last(global_mean_pool(first(data.x, data.edge_index), data.batch))
    learn(F.cross_entropy(out, data.y))
    print(data.num_graphs, len(listed), data.num_nodes, (out.argmax(1) == data.y).sum().item(), data.batch[-1].item())
for data in DataLoader(graphs[:2], batch_size=1):
    nodes = last(first(data.x, data.edge_index))
    learn(F.cross_entropy(nodes, (data.x[:, 0] > 0).long()))
    print(data.num_nodes, nodes.mean().item(), len(nodes), (nodes.argmax(1) == 1).sum().item())
for data in TemporalDataLoader(events, batch_size=7):
    out = last(data.msg @ torch.ones(4, 6))
    learn(F.cross_entropy(out, (data.src > data.dst).long()))
    print(data.num_events, data.msg.size(0), (out.argmax(1) == 1).sum().item(), out.mean().item())
save(first, last)
"""
)
# Noise for nodes, drawn in the loop: that of one device, and the next decision of the script is the same on all ranks.
NOISE = (
    HEAD
    + """
first, last = SAGEConv(4, 6), nn.Linear(6, 3)
optimizer = torch.optim.SGD([*first.parameters(), *last.parameters()], lr=0.1)
for data in DataLoader([graph(i) for i in range(23)], batch_size=5, shuffle=True):
    if torch.rand(1).item() < 0.5:
        data.x = data.x + 0.1 * torch.randn_like(data.x)
    noise, kept = torch.randn(data.num_nodes, 4), torch.rand(data.x.size(0)) > 0.2
    z = first((data.x + noise) * kept.view(-1, 1), data.edge_index)
    loss = F.cross_entropy(last(global_mean_pool(z, data.batch)), data.y) + z[kept].pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item(), kept.sum().item(), noise.mean().item(), len(noise))
save(first, last)
"""
)
HETERO = (
    HEAD
    + """
def mixed(i):
    a, b = (int(torch.randint(2, 7, (1,), generator=g)) for _ in range(2))
    found = HeteroData()
    found["paper"].x, found["paper"].label = torch.randn(a, 4, generator=g), torch.randint(0, 2, (a,), generator=g)
    found["author"].x = torch.randn(b, 3, generator=g)
    ends = torch.stack([torch.randint(0, b, (7,), generator=g), torch.randint(0, a, (7,), generator=g)])
    found["author", "writes", "paper"].edge_index, found["paper", "by", "author"].edge_index = ends, ends.flip(0)
    found.y = torch.tensor([i % 2])
    return found

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = HeteroConv({("author", "writes", "paper"): SAGEConv((3, 4), 6), ("paper", "by", "author"): SAGEConv((4, 3), 6)})
        self.node, self.all = nn.Linear(6, 2), nn.Linear(6, 2)
    def forward(self, data):
        made = self.mix(data.x_dict, data.edge_index_dict)
        return self.node(made["paper"]), self.all(global_mean_pool(made["author"].relu(), data["author"].batch))

model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for data in DataLoader([mixed(i) for i in range(13)], batch_size=5):
    nodes, out = model(data)
    loss = F.cross_entropy(nodes, data["paper"].label) + F.cross_entropy(out, data.y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item(), (nodes.argmax(1) == data["paper"].label).float().mean().item(), (out.argmax(1) == data.y).sum().item())
    print(data.num_graphs, data.num_nodes, data.num_edges, data["paper"].num_nodes, data["author", "writes", "paper"].num_edges)
save(model)
"""
)


@pytest.mark.parametrize(
    ("text", "count"), [(CLASSES, 2), (CLASSES, 3), (NODES, 2), (NODES, 4), (BY_GRAPH, 2), (HETERO, 2), (STACKED, 2), (LISTS, 2), (NOISE, 3)],
    ids=["classes", "classes-3", "nodes", "nodes-4", "by-graph", "hetero", "stacked", "lists", "noise-3"],
)  # fmt: skip
def test_graphs_nodes_and_edges_are_those_of_all_ranks(work, text, count):
    lines, weights = plain(work, text)
    _, ranks = same_run(work, text, lines, weights, count, kind=Run if text is CLASSES else Graphs)
    assert ("self-check of the first step: loss" in ranks[0].err) == (text is not LISTS)


LOOP = """
first, last = GCNConv(4, 6), nn.Linear(6, 3)
optimizer = torch.optim.SGD([*first.parameters(), *last.parameters()], lr=0.1)
for data in DataLoader([graph(i) for i in range(13)], batch_size=5):
    BEFORE
    out = last(global_mean_pool(first(data.x, data.edge_index), data.batch))
    F.cross_entropy(out, data.y).backward()
    optimizer.step()
"""
CLUSTERS = """
from torch_geometric.loader import RandomNodeLoader
one = graph(0, least=11)
model = GCNConv(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for data in RandomNodeLoader(one, num_parts=2):
    F.cross_entropy(model(data.x, data.edge_index), torch.zeros(data.num_nodes, dtype=torch.long)).backward()
    optimizer.step()
"""
NORM = (
    LOOP.replace("first(data", "norm(first(data")
    .replace("_index), data.batch", "_index)), data.batch")
    .replace("optimizer =", "norm = LayerNorm(6)\noptimizer =")
)
REFUSED = {
    "batch": (LOOP.replace("BEFORE", "number = int(data.batch.max()) + 1"), "the script reads batch of a batch of graphs"),
    "ptr": (LOOP.replace("BEFORE", "sizes = data.ptr[1:] - data.ptr[:-1]"), "the script reads ptr of a batch of graphs"),
    "ends": (LOOP.replace("BEFORE", "last_node = data.edge_index.max().item()"), "the script reads edge_index of a batch"),
    "place": (LOOP.replace("BEFORE", "first_graph = data[0]"), "takes graphs of a batch by their place"),
    "one graph of parts": (CLUSTERS, "that is one graph made of"),
    "norm over all nodes": (NORM.replace("BEFORE", ""), "the self-check of the first step failed"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_rank_can_tell_of_graphs_is_refused(work, kind):
    text, reason = REFUSED[kind]
    run = Graphs(work, launch(2), Wishes())
    ranks = run.ranks(submitit(2), run.script(HEAD + text), str(run.folder / "weights.pt"))
    assert ranks[0].code == 1
    assert any(reason in rank.err for rank in ranks), ranks[0].err
    assert not any("Traceback" in rank.err for rank in ranks)


KILLED = (
    HEAD
    + """
import time
class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.last = GCNConv(4, 6), nn.Linear(6, 1)
    def forward(self, data):
        return self.last(global_max_pool(self.conv(data.x, data.edge_index), data.batch)).squeeze(-1)

class Parts(Pooled):
    def forward(self, x, edge_index, batch):
        return self.last(global_add_pool(self.conv(x, edge_index).tanh(), batch)).squeeze(-1)

model, last, pooled, parts = SAGEConv(4, 6), nn.Linear(6, 3), Pooled(), Parts()
optimizer = torch.optim.SGD([p for each in (model, last, pooled, parts) for p in each.parameters()], lr=0.01)
loader = DataLoader([graph(i) for i in range(19)], batch_size=5, shuffle=True)
for epoch in range(6):
    total = right = nodes = 0
    for data in loader:
        z = model(data.x, data.edge_index)
        out = last(global_mean_pool(z, data.batch))
        loss = F.cross_entropy(out, data.y) + (z ** 2).sum() / z.numel()
        loss = loss + F.mse_loss(pooled(data), data.y.float())
        loss = loss + F.mse_loss(parts(data.x, data.edge_index, data.batch), data.y.float())
        nodes += len(z)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * data.num_graphs
        right += int((out.argmax(1) == data.y).sum())
        nodes += data.num_nodes + data.edge_index.size(1)
        time.sleep(PAUSE)
    print("epoch", total / len(loader.dataset), right, nodes, flush=True)
save(model, last, pooled, parts)
"""
)


def test_a_killed_run_on_graphs_goes_on_where_it_was(work):
    """On as many ranks, and on one, whose numbers of nodes are others."""
    (lines, weights), run = plain(work, KILLED.replace("PAUSE", "0")), Graphs(work / "run", launch(2))
    first = killed_after(run, start(run, KILLED, 2), 6)
    for count in (2, 1):
        again = Graphs(work / f"again{count}", launch(count))
        shutil.copytree(run.folder, again.folder, dirs_exist_ok=True)
        last = whole(ended(start(again, KILLED, count, job="78")))
        assert "resumed at step" in last.err
        assert_one_run(first[0], last, lines)
        assert_same_weights(torch.load(again.folder / "weights.pt"), weights)
