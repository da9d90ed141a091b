"""Optimizers of libraries that bring compiled programs of their own, such as bitsandbytes' with states of eight bits."""

import pytest
from one_device import plain, same_run

HEAD = """
import sys, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(1)
x, y = torch.randn(20, 64), torch.randint(0, 5, (20,))
model = nn.Sequential(nn.Linear(64, 80), nn.Tanh(), nn.Linear(80, 5)).cuda()
"""

LOOP = """
for epoch in range(2):
    for a, b in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True):
        loss = nn.functional.cross_entropy(model(a), b)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"loss {loss.item()}")
print({name: tuple(value.shape) for name, value in optimizer.state_dict()["state"].get(0, {}).items()
       if torch.is_tensor(value)})
torch.save([parameter.detach().clone() for parameter in model.parameters()], sys.argv[1])
"""

EIGHT_BITS = HEAD + "import bitsandbytes\noptimizer = bitsandbytes.optim.AdamW8bit(model.parameters(), lr=0.01)" + LOOP


@pytest.mark.parametrize("layout", ["replicate", "fsdp"])
def test_states_of_eight_bits_are_those_of_one_device(work, layout):
    pytest.importorskip("bitsandbytes")
    lines, weights = plain(work, EIGHT_BITS)
    same_run(work, EIGHT_BITS, lines, weights, 2, layout=layout)


# An operation of a library whose program writes where torch does not look; its result looks at all numbers of a weight.
OWN_PROGRAM = (
    HEAD
    + """
library = torch.library.Library("guest", "DEF")
library.define("scaled_step(Tensor(a!) weight, Tensor gradient, float rate) -> ()")

def scaled_step(weight, gradient, rate):
    numbers = weight.detach().numpy()
    numbers -= rate / float(abs(numbers).max()) * gradient.numpy()

library.impl("scaled_step", scaled_step, "CPU")

class Guest(torch.optim.Optimizer):
    def __init__(self, parameters, rate):
        super().__init__(parameters, {"rate": rate})
    @torch.no_grad()
    def step(self):
        for entry in self.param_groups:
            for weight in entry["params"]:
                torch.ops.guest.scaled_step(weight, weight.grad, entry["rate"])

optimizer = Guest(model.parameters(), 0.1)
"""
    + LOOP
)


@pytest.mark.parametrize("layout", ["fsdp", "zero2"])
def test_what_a_librarys_own_program_writes_reaches_weights_in_parts(work, layout):
    lines, weights = plain(work, OWN_PROGRAM)
    same_run(work, OWN_PROGRAM, lines, weights, 2, layout=layout)
