"""Steps of optimizers while the blocks are in stages: a closure, L-BFGS's own state, a scaler that leaves a step out."""

import pytest
from one_device import plain, same_run

MODEL = """
import sys, torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(4)
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
    def forward(self, h):
        return h + self.fc2(F.gelu(self.fc1(self.norm(h))))
model = nn.Sequential(nn.Linear(5, 8), nn.Sequential(*[Block() for _ in range(3)]), nn.Linear(8, 2))
x, y = torch.randn(26, 5), torch.randn(26, 2)
loader = DataLoader(TensorDataset(x, y), batch_size=7)
def trained(step):
    for epoch in range(2):
        for number, (a, b) in enumerate(loader):
            step(epoch * len(loader) + number, a, b)
"""
SAVE = """
trained(step)
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
STEPS = {
    # Ahead of this step the weights of one stage alone must not move, or the backward in it finds others.
    "closure": """
opt = torch.optim.Adam(model.parameters(), lr=0.01, eps=1e-3)
def step(number, a, b):
    opt.zero_grad()
    loss = F.mse_loss(model(a), b)
    def closure():
        loss.backward()
        return loss
    opt.step(closure)
    print(f"closure {loss.item()} {sum(v.norm().item() for s in opt.state.values() for v in s.values() if v.dim())}")
""",
    # A loss of all rows is a tensor of ours, whose backward had turned off what tensors of other stages answer.
    "of all rows": """
opt = torch.optim.SGD(model.parameters(), lr=0.1)
def step(number, a, b):
    out = model(a)
    loss = F.mse_loss(out, b) + 0.1 * (out**2).sum() / len(out)
    opt.zero_grad()
    loss.backward()
    opt.step()
    print(f"of all rows {loss.item()}")
""",
    # A gradient for the rows goes back through the stages, and is no backward: the self-check took it for its end. The
    # second step, in which operations are counted, has fewer rows, and torch looks for the graph of these.
    "rows": """
loader = DataLoader(TensorDataset(x[:10], y[:10]), batch_size=7)
opt = torch.optim.SGD(model.parameters(), lr=0.1)
def step(number, a, b):
    a.requires_grad_(True)
    grad, = torch.autograd.grad(model(a).pow(2).sum(1).mean(), a)
    loss = F.mse_loss(model((a + 0.1 * grad.sign()).detach()), b)
    opt.zero_grad()
    loss.backward()
    opt.step()
    print(f"rows {loss.item()} {grad.norm().item()}")
""",
    # It looks for its state under the first weight of a list of its own, from before that weight was one stage's.
    "lbfgs": """
opt = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
def step(number, a, b):
    def closure():
        opt.zero_grad()
        loss = F.mse_loss(model(a), b)
        loss.backward()
        return loss
    print(f"lbfgs {opt.step(closure).item()} {len(opt.state)} {opt.state[opt.param_groups[0]['params'][0]]['n_iter']}")
""",
    # A number that is infinite in the block of one stage leaves the step out on all of them.
    "scaler": """
opt = torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-3)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
def step(number, a, b):
    opt.zero_grad()
    loss = F.mse_loss(model(a), b)
    scaler.scale(loss).backward()
    if number in (3, 5):
        model[1][0 if number == 3 else 2].fc1.weight.grad[0, 0] = float("inf")
    norm = 0.0
    if number % 2 == 0:
        scaler.unscale_(opt)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5).item()
    scaler.step(opt)
    scaler.update()
    print(f"scaler {loss.item()} {norm} {scaler.get_scale()}")
""",
}


@pytest.mark.parametrize("name", list(STEPS))
def test_a_step_is_that_of_one_device(tmp_path, name):
    text = MODEL + STEPS[name] + SAVE
    same_run(tmp_path, text, *plain(tmp_path, text), 4 if name == "of all rows" else 2, layout="pp=2")


def test_what_is_computed_again_behind_such_a_loss_has_its_columns(tmp_path):
    text = MODEL + STEPS["of all rows"] + SAVE
    same_run(tmp_path, text, *plain(tmp_path, text), 4, layout="tp=2,recompute=full")
