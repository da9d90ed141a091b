"""A killed run of a library's loop, or of an optimizer that takes a closure, goes on where it was."""

import textwrap

import pytest
import torch
from one_device import assert_same_weights, plain
from runtime_ranks import Run, ended, launch
from test_runtime_resume import assert_one_run, killed_after, start, whole
from test_runtime_seen_in_libraries import HEAD

# Sums that Lightning keeps for its log, its best checkpoint and its table; a metric, a schedule, an evaluation.
LIGHTNING = (
    HEAD
    + """
import csv, os, time, torchmetrics
import lightning.pytorch as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net, self.seen, self.losses = Net(), [], []
        self.right = torchmetrics.classification.MulticlassAccuracy(3, average="micro")
    def training_step(self, batch, at):
        out = self.net(batch["words"], batch["mask"])
        loss = F.cross_entropy(out, batch["y"])
        self.right(out, batch["y"])
        self.losses.append(loss.detach())
        self.seen += batch["name"]
        self.log("loss", loss, on_step=True, on_epoch=True, batch_size=len(batch["y"]))
        self.log("right", self.right, on_step=False, on_epoch=True)
        print(loss.item(), batch["name"], [name for name, p in zip(batch["name"], out.argmax(1)) if p == 1], flush=True)
        time.sleep(PAUSE)
        return loss
    def validation_step(self, batch, at):
        self.log("held", F.cross_entropy(self.net(batch["words"], batch["mask"]), batch["y"]), batch_size=len(batch["y"]))
    def on_train_epoch_end(self):
        print(torch.stack(self.losses).mean().item(), len(self.seen))
        print({key: float(value) for key, value in self.trainer.callback_metrics.items()}, flush=True)
        self.losses.clear()
    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.8)]
best = ModelCheckpoint(dirpath="best", monitor="held", filename="{epoch}")
trainer = L.Trainer(
    max_epochs=6, accelerator="cpu", devices=1, num_sanity_val_steps=0, logger=CSVLogger("logs"), gradient_clip_val=0.5,
    callbacks=[best, EarlyStopping("held", patience=20)], enable_progress_bar=False, enable_model_summary=False,
    log_every_n_steps=1)
model = Model()
trainer.fit(model, DataLoader(Words(23), 6, shuffle=True, collate_fn=padded), DataLoader(Words(9), 4, collate_fn=padded))
print(os.path.basename(best.best_model_path), float(best.best_model_score), os.listdir("best"), os.listdir("logs/lightning_logs"))
with open("logs/lightning_logs/version_0/metrics.csv") as file:
    rows = [row for row in csv.DictReader(file) if row["loss_step"]]
print({row["step"]: float(row["loss_step"]) for row in rows})
store(model)
"""
)
BY_HAND = LIGHTNING.partition("import csv")[0] + (
    """
import time
import lightning.pytorch as L
class Gan(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.maker, self.judge, self.total = nn.Linear(2, 4), nn.Linear(4, 1), 0.0
    def training_step(self, batch, at):
        of_maker, of_judge = self.optimizers()
        noise = torch.randn(len(batch), 2)
        self.toggle_optimizer(of_judge)
        judged = F.softplus(-self.judge(batch)).mean() + F.softplus(self.judge(self.maker(noise).detach())).mean()
        of_judge.zero_grad()
        self.manual_backward(judged)
        of_judge.step()
        self.untoggle_optimizer(of_judge)
        made = F.softplus(-self.judge(self.maker(noise))).mean()
        of_maker.zero_grad()
        self.manual_backward(made)
        of_maker.step()
        self.total += made.item()
        self.log_dict({"made": made, "judged": judged}, on_epoch=True)
        print(judged.item(), made.item(), self.total, flush=True)
        time.sleep(PAUSE)
    def on_train_epoch_end(self):
        print({key: float(value) for key, value in self.trainer.callback_metrics.items()}, flush=True)
    def configure_optimizers(self):
        return [torch.optim.Adam(each.parameters(), 0.01) for each in (self.maker, self.judge)]
quiet = {each: False for each in ("enable_progress_bar", "enable_model_summary", "logger", "enable_checkpointing")}
model = Gan()
L.Trainer(max_epochs=6, accelerator="cpu", devices=1, **quiet).fit(model, DataLoader(torch.randn(30, 4), 7, shuffle=True))
store(model)
"""
)
TRAINER = (
    HEAD
    + """
import os, time
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()
    def forward(self, words, mask, y, name=None):
        out = self.net(words, mask)
        return {"loss": F.cross_entropy(out, y), "logits": out}
class Shown(TrainerCallback):
    def on_log(self, arguments, state, control, logs=None, **words):
        print({key: float(value) for key, value in logs.items() if "second" not in key and "runtime" not in key}, flush=True)
    def on_step_end(self, *given, **words):
        time.sleep(PAUSE)
arguments = TrainingArguments(
    "out", per_device_train_batch_size=6, num_train_epochs=6, learning_rate=0.01, logging_steps=1, report_to="none",
    save_strategy="epoch", eval_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="loss",
    save_total_limit=2, disable_tqdm=True, use_cpu=True, remove_unused_columns=False, label_names=["y"])
model = Model()
trainer = Trainer(
    model, arguments, train_dataset=Words(23), eval_dataset=Words(9), data_collator=padded, callbacks=[Shown()])
trainer.remove_callback(PrinterCallback)
trainer.train()
print(trainer.state.best_model_checkpoint, trainer.state.best_metric, trainer.state.total_flos, sorted(os.listdir("out")))
store(model)
"""
)
# In doubles, since a line search makes much of the last digit.
CLOSURE = (
    HEAD
    + """
import time
torch.set_default_dtype(torch.float64)
x, y = torch.randn(30, 6), torch.randint(0, 3, (30,))
net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=3, history_size=4, line_search_fn="strong_wolfe")
calls, losses, total = 0, [], torch.zeros(1)
for epoch in range(5):
    for rows, labels in DataLoader(torch.utils.data.TensorDataset(x, y), 7, shuffle=True):
        def closure():
            global calls
            calls += 1
            optimizer.zero_grad()
            out = net(rows)
            loss = F.cross_entropy(out, labels)
            loss.backward()
            losses.append(loss.item())
            total.add_(loss.detach())
            if calls % 5 == 0:
                print(calls, (out.argmax(1) == labels).sum().item())
            return loss
        print(optimizer.step(closure).item(), calls, sum(losses), total.item(), flush=True)
        time.sleep(PAUSE)
store(net)
"""
)
SCRIPTS = {"lightning": LIGHTNING, "by hand": BY_HAND, "trainer": TRAINER, "closure": CLOSURE}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_killed_run_goes_on(tmp_path, script):
    """On another number of ranks, with the files and the best checkpoint of one device."""
    text = SCRIPTS[script]
    lines, weights = plain(tmp_path, textwrap.dedent(text.replace("PAUSE", "0")))
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, text, 2), 8)
    last = whole(ended(start(run, text, 3, job="78")))
    assert "resumed at step" in last.err
    assert_one_run(first[0], last, lines)
    assert_same_weights(torch.load(run.folder / "weights.pt"), weights)
