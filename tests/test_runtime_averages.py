"""Averages of weights that scripts keep by hand, and put in the place of a model's own for a while."""

import pytest
from one_device import plain, same_run
from test_runtime_parallel import HEAD

# The class that most scripts copy: `backup` is no copy, so it must keep the numbers that the parameter gives up.
AVERAGED = (
    HEAD
    + """
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 16), nn.Linear(16, 8)
    def forward(self, x):
        return x + self.fc2(F.relu(self.fc1(x)))
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.head = nn.Linear(8, 1)
    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)
model = Net()
optim = torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-3)
class EMA:
    def __init__(self, model, decay):
        self.model, self.decay, self.shadow, self.backup = model, decay, {}, {}
        for name, param in self.model.named_parameters():
            if param.requires_grad:
                self.shadow[name] = param.data.clone()
    def update(self):
        for name, param in self.model.named_parameters():
            new_average = (1.0 - self.decay) * param.data + self.decay * self.shadow[name]
            self.shadow[name] = new_average.clone()
    def apply_shadow(self):
        for name, param in self.model.named_parameters():
            self.backup[name] = param.data
            param.data = self.shadow[name]
    def restore(self):
        for name, param in self.model.named_parameters():
            param.data = self.backup[name]
        self.backup = {}
ema = EMA(model, 0.8)
for epoch in range(2):
    for (a,) in DataLoader(TensorDataset(torch.randn(20, 8)), batch_size=6):
        loss = model(a).pow(2).mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        ema.update()
        print(loss.item(), sum(p.double().abs().sum().item() for p in ema.shadow.values()))
    ema.apply_shadow()
    model.eval()
    with torch.no_grad(): print("val", model(torch.ones(3, 8)).sum().item(), sum(p.double().abs().sum().item() for p in model.parameters()))
    ema.restore()
    model.train()
    with torch.no_grad(): print("val", model(torch.ones(3, 8)).sum().item(), sum(p.double().abs().sum().item() for p in model.parameters()))
torch.save(model.state_dict(), sys.argv[1])
"""
)
SWAPPED = """    def apply_shadow(self):
        for name, param in self.model.named_parameters():
            param.data, self.shadow[name] = self.shadow[name], param.data
    restore = apply_shadow
"""


@pytest.mark.parametrize("layout", ["fsdp", "fsdp,offload", "tp=2", "pp=2"])
@pytest.mark.parametrize("is_swapped", [False, True])
def test_averages_take_the_place_of_weights_and_give_it_back(work, layout, is_swapped):
    ahead, behind = AVERAGED.split("    def apply_shadow(self):")
    text = ahead + SWAPPED + behind[behind.index("ema = EMA") :] if is_swapped else AVERAGED
    same_run(work, text, *plain(work, text), 2, layout=layout)
