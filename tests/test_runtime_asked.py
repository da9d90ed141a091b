"""What a script computes past `backward()`, or for a part of the rows: that of one device, or refused."""

from one_device import plain, same
from runtime_ranks import Run, launch, submitit
from test_runtime_parallel import HEAD

from lumi_moai.plan import Layout, Wishes

# 11 rows in batches of 4, the last one of 3. Each part begins anew, and a refusal ends that part only.
PARTS = (
    HEAD
    + """
x = torch.randn(11, 4, generator=torch.Generator().manual_seed(1))
def begin():
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.1), DataLoader(TensorDataset(x), batch_size=4, shuffle=True)
def show(name, model, *numbers):
    print(name, *(float(n) for n in numbers), *(p.detach().double().sum().item() for p in model.parameters()))
"""
)
KEPT = (
    PARTS
    + """
model, optim, loader = begin()                      # steps by hand
for (rows,) in loader:
    loss = F.mse_loss(model(rows), rows[:, :1])
    with torch.no_grad():
        for weight, grad in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters()))):
            weight -= 0.1 * grad
    show("by hand", model, loss)
model, optim, loader = begin()                      # a loss by hand, a weight that nothing reaches
spare = nn.Linear(2, 2)
optim.add_param_group({"params": spare.parameters()})
for (rows,) in loader:
    weights = [*model.parameters(), *spare.parameters()]
    grads = torch.autograd.grad((model(rows) - rows[:, :1]).pow(2).mean(), weights, allow_unused=True)
    for weight, grad in zip(weights, grads):
        weight.grad = grad
    optim.step()
    show("put in", model, sum(grad is None for grad in grads), nn.utils.clip_grad_norm_(weights, 9.0))
model, optim, loader = begin()                      # wrapped for devices that are not there
wrapped = nn.DataParallel(model)
for (rows,) in loader:
    loss = F.mse_loss(wrapped(rows), rows[:, :1])
    optim.zero_grad()
    loss.backward()
    optim.step()
    show(" ".join(wrapped.state_dict()), model, loss)
model, optim, loader = begin()                      # two losses weighed by the norms of their gradients
for (rows,) in loader:
    out = model(rows)
    one, two = F.mse_loss(out, rows[:, :1]), (out - rows[:, 1:2]).abs().mean()
    norms = [torch.autograd.grad(each, model[0].weight, retain_graph=True)[0].norm() for each in (one, two)]
    optim.zero_grad()
    (one + norms[0] / norms[1] * two).backward()
    optim.step()
    show("weighed", model, *norms)
model, optim, loader = begin()                      # a penalty on the gradient of single rows, as in WGAN-GP
for (rows,) in loader:
    mixed = (rows + torch.rand(len(rows), 1)).requires_grad_()
    out = model(mixed)
    grads = torch.autograd.grad(out, mixed, torch.ones_like(out), create_graph=True)[0]
    each = torch.func.vmap(torch.func.grad(lambda row: F.mse_loss(model(row[None]), row[None, :1])))(rows)
    loss = (grads.norm(dim=1) - 1).pow(2).mean() - out.mean() + each.pow(2).mean()
    optim.zero_grad()
    loss.backward()
    optim.step()
    show("penalty", model, loss)
model, optim, loader = begin()                      # sums divided by what the batch has
for (rows,) in loader:
    kept = rows[:, 0] > -0.5
    one = F.mse_loss(model(rows), rows[:, :1], reduction="sum") / len(rows)
    two = nn.MSELoss(reduction="sum")(model(rows), rows[:, :1]) * 0.5 / rows[:, 0].numel()
    three = F.mse_loss(model(rows)[kept], rows[kept, :1], reduction="sum") / kept.sum()
    half = nn.MSELoss(reduction="sum")(model(rows), rows[:, :1]) / 2   # as many as a rank has rows
    parts, fewer = 2, F.mse_loss(model(rows), rows[:, :1], reduction="sum") / len(rows) / 2
    optim.zero_grad()
    (one + two + three + half + fewer / parts).backward()
    optim.step()
    show("divided", model, one, two, three, half, fewer)
model, optim, loader = begin()                      # and by those of what the model made of them
for (rows,) in loader:
    out = model(rows)
    one = F.mse_loss(out, rows[:, :1], reduction="sum") / len(out)
    two = nn.MSELoss(reduction="sum")(out, rows[:, :1]) * 0.5 / out[:, 0].numel()
    kept = out[:, 0] > out[:, 0].min()
    three = F.mse_loss(out[kept], rows[kept, :1], reduction="sum") / kept.sum()
    optim.zero_grad()
    (one + two + three).backward()
    optim.step()
    show("divided by outputs", model, one, two, three)
model, optim, loader = begin()                      # rows moved along their gradient
for (rows,) in loader:
    moved = torch.zeros_like(rows, requires_grad=True)
    grad, = torch.autograd.grad(F.mse_loss(model(rows + moved), rows[:, :1]), moved)
    loss = F.mse_loss(model(rows + 5 * grad), rows[:, :1])
    optim.zero_grad()
    loss.backward()
    optim.step()
    show("moved", model, loss)
torch.save([], sys.argv[1])
"""
)
REFUSED = (
    PARTS
    + """
def of_grad(model, rows):
    torch.func.grad(lambda weight: (rows @ weight.T).pow(2).mean())(model[0].weight.detach())
def differentiated(model, rows):
    torch.autograd.grad(model(rows).mean(), model[0].weight, create_graph=True)
def put_in(model, rows):
    model[0].weight.grad = rows.mean(0).expand(8, 4).clone()
def by_rows(model, rows):
    loss = F.mse_loss(model(rows), rows[:, :1], reduction="sum") / len(rows.tolist())
def by_numbers(model, rows):
    loss = nn.MSELoss(reduction="sum")(model(rows), rows[:, :1]) * 0.5 / rows.numpy()[:, 0].size
def each_row(model, rows):
    out = model(rows)
    sum(F.mse_loss(out[row], rows[row, :1]) for row in range(len(rows))).backward()
def stacked(model, rows):
    torch.stack([F.mse_loss(row, given[:1]) for row, given in zip(model(rows), rows)]).mean().backward()
def with_max_norm(model, rows):
    nn.Embedding(8, 4, max_norm=1.0)(rows.argmax(1)).mean().backward()
for part in (of_grad, differentiated, put_in, by_rows, by_numbers, with_max_norm, each_row, stacked):
    model, optim, loader = begin()
    try:
        for (rows,) in loader:
            part(model, rows)
            optim.step()
    except Exception as error:
        print(error)
"""
)


def test_gradients_taken_without_backward_are_those_of_one_device(work):
    lines, _ = plain(work, KEPT)
    run = Run(work / "run", launch(2))
    ranks = run.ranks(submitit(2), run.script(KEPT), str(work / "mine.pt"))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    for line, expected in zip(ranks[0].out.splitlines(), lines, strict=True):
        same(line, expected)


def test_what_is_of_a_part_of_the_batch_is_refused(work):
    run = Run(work / "run", launch(2))
    ranks = run.ranks(submitit(2), run.script(REFUSED))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    of_grad, differentiated, put_in, *divided, with_max_norm, each_row, each_stacked = ranks[0].out.splitlines()
    assert "torch.func.grad of weights gives the gradient of this rank's rows" in of_grad
    assert "with create_graph=True would be of a part of the batch only" in differentiated
    assert "an optimizer is to step with gradients that no backward computed" in put_in
    assert [line.split("divides it by ")[1].split(",")[0] for line in divided[:2]] == ["2", "2"]
    assert len(divided) == 2
    assert all("with reduction='sum' is of the global batch" in line for line in divided)
    assert "edits its weight in forward (max_norm), on each rank for the words of its own rows" in with_max_norm
    assert "in a batch of 3 rows on 2 ranks, one rank computes a loss where another goes back from a loss" in each_row
    assert "one rank computes a loss where another asks for the value of a loss" in each_stacked


PARAMETRIZED = """
import lumi_moai
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
lumi_moai.enable_advanced_parallelization()
spectral_norm(nn.Linear(4, 8))
"""


def test_a_parametrization_of_a_weight_in_parts_is_refused_by_name(work):
    run = Run(work / "run", launch(2), Wishes(layout=Layout.parse("fsdp")))
    ranks = run.ranks(submitit(2), run.script(PARAMETRIZED))
    assert ranks[0].code == 1
    assert any("weight of a Linear is spread over ranks, and its parametrization" in rank.err for rank in ranks)


OF_EACH_ROW = """
import torch, lumi_moai
from torch import nn
from torch.utils.data import DataLoader
lumi_moai.enable_advanced_parallelization()
model = nn.Linear(5, 3)
torch.optim.SGD(model.parameters(), lr=0.1)
def loss(weights, row): return torch.func.functional_call(model, weights, (row[None],)).sum()
for x in DataLoader(torch.randn(8, 5), batch_size=4):
    weights = {name: p.detach() for name, p in model.named_parameters()}
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    each["weight"].flatten(1).norm(dim=1)
"""


def test_what_cannot_be_done_in_parts_is_explained(work):
    run = Run(work / "run", launch(2), Wishes(layout=Layout.parse("fsdp")))
    ranks = run.ranks(submitit(2), run.script(OF_EACH_ROW))
    assert [rank.code for rank in ranks] == [1, 1]
    assert "weights of this model are spread over ranks, and what the script computes with them by hand" in ranks[0].err
