"""Hooks on the gradients of parameters: they see the gradient of all rows, once, in one device's order."""

import pytest
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit

# A clip, a print and a count of two backwards into one gradient; each weight's own step amid backward, till it is taken away.
SCRIPT = """
import sys, torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
x, y = torch.randn(17, 5) * 3, torch.randn(17, 2)
def mlp():
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
model = mlp()
optims = {p: torch.optim.Adam([p], lr=0.01) for p in model.parameters()}
def step(p):
    optims[p].step()
    optims[p].zero_grad()
handles = [p.register_post_accumulate_grad_hook(step) for p in model.parameters()]
for a, b in DataLoader(TensorDataset(x, y), batch_size=7):
    loss = F.mse_loss(model(a), b)
    loss.backward()
    print(f"loss {loss.item()}")
for handle in handles:
    handle.remove()
F.mse_loss(model(a), b).backward()
saved = [p.grad for p in model.parameters()] + [p.detach() for p in model.parameters()]
model = mlp()
optim = torch.optim.SGD(model.parameters(), lr=0.1)
calls = []
for name, p in model.named_parameters():
    p.register_hook(lambda g: g.clamp(-0.01, 0.01))
    p.register_hook(lambda g, name=name: calls.append(name) or print(f"{name} {g.norm().item()}"))
for step, (a, b) in enumerate(DataLoader(TensorDataset(x, y), batch_size=7)):
    F.mse_loss(model(a), b).backward()
    if step % 2:
        print("norm", torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())
        optim.step()
        optim.zero_grad()
print(calls)
torch.save(saved + [p.detach() for p in model.parameters()], sys.argv[1])
"""


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return plain(tmp_path_factory.mktemp("plain"), SCRIPT)


@pytest.mark.parametrize("count", [2, 3])
def test_hooks_see_the_gradient_of_all_rows(work, one, count):
    same_run(work, SCRIPT, *one, count)


HEAD = """
import sys, torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
x, y = torch.randn(17, 5) * 3, torch.randn(17, 2)
def hook(model):
    for name, p in model.named_parameters():
        p.register_hook(lambda g, name=name: print(name, g.norm().item()) or g.clamp(-0.05, 0.05))
        p.register_post_accumulate_grad_hook(lambda p, name=name: print(name, "kept"))
"""
# Gradients that a script asks for pass through the hooks as well: of a loader's batch, and of one that every rank has.
ASKED = (
    HEAD
    + """
model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
optim = torch.optim.SGD(model.parameters(), lr=0.1)
hook(model)
for a, b in (*DataLoader(TensorDataset(x, y), batch_size=7), (x, y)):
    asked = torch.autograd.grad(F.mse_loss(model(a), b), list(model.parameters())[1:])
    print("asked", *(each.norm().item() for each in asked))
    loss = F.mse_loss(model(a), b)
    loss.backward()
    optim.step()
    optim.zero_grad()
    print("loss", loss.item())
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
)
# A backward that raises: ahead of all gradients with hooks; amid, where 1 MiB of them is on its way already, without.
RAISES = (
    HEAD
    + """
class Fails(torch.autograd.Function):
    on = False
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, g):
        if Fails.on:
            Fails.on = False
            raise ValueError("no")
        return g
class Fail(nn.Module):
    def forward(self, x):
        return Fails.apply(x)
saved = []
for place, wide in ((3, 2), (1, 40000)):
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, wide))
    model.insert(place, Fail())
    if HOOKS or place == 3:
        hook(model)
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, (a, b) in enumerate(DataLoader(TensorDataset(x, y), batch_size=7)):
        Fails.on = step == 1
        loss = F.mse_loss(model(a)[:, :2], b)
        try:
            loss.backward()
        except ValueError as error:
            print("raised", error)
            optim.zero_grad()
            loss = F.mse_loss(model(a)[:, :2], b)
            asked = torch.autograd.grad(loss, list(model.parameters()))
            print("asked", *(each.norm().item() for each in asked))
            F.mse_loss(model(a)[:, :2], b).backward()
        optim.step()
        optim.zero_grad()
        print("loss", loss.item())
    saved += [p.detach() for p in model.parameters()]
torch.save(saved, sys.argv[1])
"""
)


@pytest.mark.parametrize("script", [ASKED, RAISES.replace("HOOKS", "False")], ids=["asked", "raises"])
def test_hooks_see_gradients_that_are_asked_for_and_none_waits_behind_an_error(work, script):
    same_run(work, script, *plain(work, script), 2)


def test_hooks_that_an_error_left_uncalled_are_refused(work):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(RAISES.replace("HOOKS", "True")))
    assert {rank.code for rank in ranks} == {1}
    assert "a backward raised an error that the script caught, and hooks on gradients" in ranks[0].err + ranks[1].err
