"""Blocks that are computed again in backward, and what of their arguments they may notice."""

import pytest
from one_device import plain, same_run

# Torch's attention computes otherwise where query, key and value are not one tensor; here it is the block itself.
SELVES = """
import sys, torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(4)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.attns = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(4))
        self.norms, self.head = nn.ModuleList(nn.LayerNorm(8) for _ in range(4)), nn.Linear(8, 2)
    def forward(self, h):
        for number, (attn, norm) in enumerate(zip(self.attns, self.norms)):
            n = norm(h)
            h = h + (attn(n, n, n) if number % 2 else attn(query=n, key=n, value=n, need_weights=False))[0]
        return self.head(h.mean(1))
model = Net()
opt = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(26, 5, 8), torch.randint(0, 2, (26,))
for a, b in DataLoader(TensorDataset(x, y), batch_size=7):
    loss = F.cross_entropy(model(a), b)
    opt.zero_grad()
    loss.backward()
    opt.step()
    print(f"loss {loss.item()}")
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""


@pytest.mark.parametrize("layout", ["recompute=full", "recompute=selective"])
def test_an_argument_that_is_given_twice_is_one_again(tmp_path, layout):
    same_run(tmp_path, SELVES, *plain(tmp_path, SELVES), 2, layout=layout)
