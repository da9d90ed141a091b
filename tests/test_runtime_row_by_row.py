"""Scripts that go through the rows of a batch one by one and compute something of their places: as on one device."""

import pytest
from one_device import plain, same_run
from test_runtime_parallel import refused

HEAD = """
import sys, torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(0)
X, Y = torch.randn(25, 6), torch.randn(25, 2)
model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
LOOP = """
for step, (x, y) in enumerate(DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True)):
    x = changed(x.clone())
    loss = F.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item(), x.square().sum().item())
torch.save(list(model.parameters()), sys.argv[1])
"""
BY_REMAINDER = """
    for i in range(x.size(0)):
        left = (i * 5 + 1) % 4
        x[i, left : left + 2] = i % 3
"""
BY_PART = """
    n = len(x)
    for i in range(n):
        x[i] *= 1 + i / n + (i + 2) / 10
"""
COUNTED = """
    for i, row in enumerate(x):
        row[i % 6] = 2 * i / 7
"""
BESIDE = """
    rows = x[:2]
    for i in range(len(x)):
        x[i, 0] = x[i, 1] + 3
        x[i, i % 2] += rows[i % 2, 3]
"""
# A loop over a list of layers, of which there are as many as a rank has rows, is none over rows.
LAYERS = """
    layers = [1.0, 2.0, 3.0]
    for i, layer in enumerate(layers):
        x = x * (layer + i % 2 + i / 3)
"""


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("way", [BY_REMAINDER, BY_PART, COUNTED, BESIDE, LAYERS])
def test_what_is_computed_of_a_rows_place_is_of_that_in_the_whole_batch(work, way, count):
    script = HEAD + "def changed(x):" + way + "    return x\n" + LOOP
    same_run(work, script, *plain(work, script), count)


TAKEN = """
    for i in range(len(x)):
        x[i] = x[i % 2] + 1
"""


def test_a_row_by_a_remainder_of_another_ones_place_is_refused(work):
    refused(work, HEAD + "def changed(x):" + TAKEN + "    return x\n" + LOOP, "make rows = x[:n] ahead")
