"""Hooks on the gradients of parameters: they see the gradient of all rows, once, in one device's order."""

import pytest
from one_device import plain, same_run

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
