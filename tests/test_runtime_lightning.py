"""Lightning: steps and hooks of the script count the rows of all ranks, and hooks look at whole batches."""

import pytest
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit

HEAD = """
import sys, warnings
warnings.simplefilter("ignore")
import lumi_moai
lumi_moai.enable_advanced_parallelization()
import torch, torch.nn.functional as F
from torch import nn
import lightning.pytorch as L
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(3)
def fit(model, data, *callbacks):
    quiet = {each: False for each in ("enable_progress_bar", "enable_model_summary", "logger", "enable_checkpointing")}
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", callbacks=list(callbacks), **quiet)
    trainer.fit(model, data)
    print({key: float(value) for key, value in trainer.callback_metrics.items()}, trainer.global_step)
    torch.save([each.detach() for each in model.parameters()], sys.argv[1])
"""
# A mean over masks that weighs unlike on each rank, what a step and hooks count, batches that hooks take amid training.
COUNTS = (
    HEAD
    + """
x, m = torch.randn(17, 6), (torch.arange(17 * 6).reshape(17, 6) % 3 > 0).float()
m[5:] = (torch.arange(12 * 6).reshape(12, 6) % 5 > 2).float()
data = DataLoader(TensorDataset(x, m), batch_size=7, shuffle=True)
class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 6))
        self.seen = self.right = 0
    def forward(self, x):
        return self.net(x)
    def training_step(self, batch, at):
        x, mask = batch
        out = self(x)
        loss = ((out - x) ** 2 * mask).sum() / mask.sum()
        self.seen += x.size(0)
        self.right += (out > 0).sum().item()
        self.log("loss", loss, on_epoch=True, batch_size=x.size(0))
        self.log("masked", mask.sum(), reduce_fx="sum", on_step=False, on_epoch=True)
        self.log("rows", float(len(x)), on_step=False, on_epoch=True)
        self.log("number", len(x), on_step=False, on_epoch=True)
        self.log("hits", (out > 0).sum(), reduce_fx="sum", on_step=False, on_epoch=True)
        self.log("all", float(len(x)), reduce_fx="sum", on_step=False, on_epoch=True)
        self.log("plain", F.relu(out).detach().as_subclass(torch.Tensor).max(), reduce_fx="max", on_step=False, on_epoch=True)
        return {"loss": loss, "out": out.detach()}
    def on_train_batch_end(self, outputs, batch, at):
        print("step", len(batch[0]), batch[0].mean().item(), outputs["out"].std().item(), batch[1].sum(1).tolist())
    def on_train_epoch_end(self):
        x, mask = next(iter(data))
        print("epoch", self.seen, self.right, x.shape[0], x[:3].sum().item(), self(x).mean().item())
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)
class Look(L.Callback):
    def on_train_batch_start(self, trainer, module, batch, at):
        x, mask = next(iter(trainer.train_dataloader))
        out = module(x)
        print("start", len(x), out.sum().item(), F.mse_loss(out, x).item(), x.tolist()[-1][:2], len(batch[0]))
    def on_train_batch_end(self, trainer, module, outputs, batch, at):
        x, mask = next(iter(trainer.train_dataloader))
        with torch.no_grad():
            print("end", len(x), module(x).sum().item(), outputs["loss"].item(), [float(row.sum()) for row in x[:3]])
        for some, _ in data:
            print("loop", len(some), some.mean().item())
fit(Model(), data, Look())
"""
)
# Manual optimization: two optimizers that take turns, noise for as many rows as the batch has, a clip of one of them.
BY_HAND = (
    HEAD
    + """
class Gan(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.g = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(), nn.Linear(8, 6))
        self.d = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(), nn.Linear(8, 1))
        self.seen = 0
    def loss(self, out, y):
        return F.binary_cross_entropy_with_logits(out, y)
    def training_step(self, batch, at):
        (real,) = batch
        og, od = self.optimizers()
        ones, zeros = torch.ones(real.size(0), 1).type_as(real), torch.zeros(real.size(0), 1).type_as(real)
        z = torch.randn(real.shape[0], 4).type_as(real)
        self.toggle_optimizer(og)
        g_loss = self.loss(self.d(self.g(z)), ones)
        self.manual_backward(g_loss)
        og.step()
        og.zero_grad()
        self.untoggle_optimizer(og)
        self.toggle_optimizer(od)
        d_loss = (self.loss(self.d(real), ones) + self.loss(self.d(self.g(z).detach()), zeros)) / 2
        self.manual_backward(d_loss)
        self.clip_gradients(od, gradient_clip_val=0.05, gradient_clip_algorithm="norm")
        od.step()
        od.zero_grad()
        self.untoggle_optimizer(od)
        self.log_dict({"g_loss": g_loss, "d_loss": d_loss}, on_epoch=True)
        self.seen += real.size(0)
        print("losses", g_loss.item(), d_loss.item(), float((self.d(real) > 0.1).float().mean()), self.seen)
    def configure_optimizers(self):
        return [torch.optim.Adam(self.g.parameters(), lr=0.01), torch.optim.SGD(self.d.parameters(), lr=0.1)], []
fit(Gan(), DataLoader(TensorDataset(torch.randn(17, 6)), batch_size=7))
"""
)


@pytest.mark.parametrize("script", [COUNTS, BY_HAND], ids=["counts", "by_hand"])
def test_steps_and_hooks_are_those_of_one_device(work, script):
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert "over 2 ranks: global batch 7" in ranks[0].err
    assert ranks[0].err.count("self-check of the first step: loss") == 1


# Steps of which the check compares nothing, or what the ranks cannot keep: a sum in a line that is not the script's.
BY_HAND_ALONE = (
    HEAD
    + """
added = eval("lambda rows: rows.square().sum()")
class Alone(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Linear(6, 6)
    def training_step(self, batch, at):
        (x,) = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        STEP
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
fit(Alone(), DataLoader(TensorDataset(torch.randn(17, 6)), batch_size=7))
"""
)
CLOSURE = """
        def closure():
            loss = LOSS
            self.manual_backward(loss)
            print("loss", loss.item())
        optimizer.step(closure)
"""


def test_a_sum_in_manual_optimization_is_found(work):
    run = Run(work, launch(2))
    text = BY_HAND_ALONE.replace("STEP", CLOSURE).replace("LOSS", "added(self.net(x))")
    ranks = run.ranks(submitit(2), run.script(text))
    assert [rank.code for rank in ranks] == [1, 1]
    assert "the self-check of the first step failed: loss " in ranks[0].err + ranks[1].err


LATE = """optimizer.step()
        loss = F.mse_loss(self.net(x), x)
        self.manual_backward(loss)
        print("loss", loss.item())"""
ITSELF = (
    ("self.automatic_optimization = False", ""),
    ("self, batch, at):", "self, dataloader_iter):\n        batch = next(dataloader_iter)[0]"),
    ("optimizer = self.optimizers()\n        optimizer.zero_grad()\n        STEP", "return F.mse_loss(self.net(x), x)"),
)
UNCHECKED = (
    ([("STEP", LATE)], "before backward training_step takes a step (step)"),
    (ITSELF, "training_step takes its batches from the loader itself (dataloader_iter)"),
)


@pytest.mark.parametrize(("changes", "said"), UNCHECKED, ids=["late", "itself"])
def test_a_step_that_cannot_be_checked_is_said(work, changes, said):
    text = BY_HAND_ALONE
    for change in changes:
        text = text.replace(*change)
    _, ranks = same_run(work, text, *plain(work, text), 2)
    assert ranks[0].err.count(f"the self-check could not be made: {said}") == 1
