"""What a script sees of a batch in a library's loop: names, widths, rows in the second dimension, its own globals."""

import pytest
from one_device import plain, same_run

HEAD = """
import sys, warnings
warnings.simplefilter("ignore")
from collections import Counter
import torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
class Words(Dataset):
    def __init__(self, rows):
        chance = torch.Generator().manual_seed(5)
        self.words = [torch.randint(1, 30, (int(n),), generator=chance) for n in torch.randint(2, 9, (rows,), generator=chance)]
        self.labels = torch.randint(0, 3, (rows,), generator=chance)
    def __len__(self):
        return len(self.words)
    def __getitem__(self, row):
        return {"words": self.words[row], "y": self.labels[row], "name": f"text {row}"}
def padded(rows):
    words = nn.utils.rnn.pad_sequence([row["words"] for row in rows], batch_first=True)
    y = torch.stack([row["y"] for row in rows])
    return {"words": words, "mask": words != 0, "y": y, "name": [row["name"] for row in rows]}
def by_steps(rows):
    batch = padded(rows)
    lengths = [len(row["words"]) for row in rows]
    return batch["words"].T.contiguous(), batch["mask"].T.contiguous(), batch["y"], tuple(batch["name"]), lengths
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(30, 8), nn.Linear(8, 3)
    def forward(self, words, mask):
        return self.out((self.table(words) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
class NetBySteps(Net):
    def forward(self, words, mask):
        return super().forward(words.T, mask.T)
def store(model):
    torch.save([each.detach() for each in model.parameters()], sys.argv[1])
"""
ACCELERATE = (
    HEAD
    + """
from accelerate import Accelerator
device = Accelerator(cpu=True)
net = NetBySteps()
optimizer = torch.optim.AdamW(net.parameters(), 0.01)
net, optimizer, loader, held_out = device.prepare(
    net, optimizer, DataLoader(Words(23), 6, shuffle=True, collate_fn=by_steps),
    DataLoader(Words(9), 4, collate_fn=by_steps))
seen, lengths_seen, width = [], Counter(), 0
for epoch in range(2):
    net.train()
    for words, mask, y, names, lengths in loader:
        out = net(words, mask)
        loss = F.cross_entropy(out, y) + 0.1 * (1 - mask.float().mean())
        device.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        seen.extend(names)
        lengths_seen.update(lengths)
        width = max(width, words.shape[0])
        wrong = [name for name, p, t in zip(names, out.argmax(1), y) if p != t]
        print(loss.item(), words.shape, mask.sum().item(), names, max(lengths), words[-1].tolist(), wrong, width)
    net.eval()
    for words, mask, y, names, lengths in held_out:
        with torch.no_grad():
            p, t = device.gather_for_metrics((net(words, mask).argmax(1), y))
        print([name for name, a, b in zip(names, p, t) if a == b], words.shape)
    print(len(seen), seen, sorted(lengths_seen.items()))
store(net)
"""
)
FABRIC = (
    HEAD
    + """
from lightning.fabric import Fabric
fabric = Fabric(accelerator="cpu", devices=1)
net = Net()
net, optimizer = fabric.setup(net, torch.optim.AdamW(net.parameters(), 0.01))
loader = fabric.setup_dataloaders(DataLoader(Words(23), 6, shuffle=True, collate_fn=padded))
seen = []
for epoch in range(2):
    for batch in loader:
        out = net(batch["words"], batch["mask"])
        loss = F.cross_entropy(out, batch["y"])
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        seen += batch["name"]
        print(loss.item(), batch["words"].shape, batch["name"][-1], len(seen), batch["mask"].float().mean().item())
        print([name for name, p in zip(batch["name"], out.argmax(1).tolist()) if p == 1])
store(net)
"""
)
LIGHTNING = (
    HEAD
    + """
import lightning.pytorch as L
steps = []
class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net, self.hard = NetBySteps(), Counter()
    def training_step(self, batch, at):
        words, mask, y, names, lengths = batch
        out = self.net(words, mask)
        loss = F.cross_entropy(out, y)
        steps.append(at)
        self.log("loss", loss, on_epoch=True, batch_size=words.shape[1])
        self.log("longest", float(max(lengths)), reduce_fx="max", on_epoch=True)
        self.hard.update(name for name, p, t in zip(names, out.argmax(1), y) if p != t)
        print(loss.item(), words.shape, names, sum(lengths), words.numel(), len(steps))
        return {"loss": loss, "out": out.detach()}
    def on_before_batch_transfer(self, batch, which):
        print("before", batch[0].shape, batch[3])
        return batch
    def on_train_batch_end(self, outputs, batch, at):
        print("end", batch[3], batch[0].shape, outputs["out"].argmax(1).tolist(), [*zip(batch[3], batch[4])])
    def validation_step(self, batch, at):
        print("held out", batch[3], batch[0].shape)
        self.log("held", F.cross_entropy(self.net(*batch[:2]), batch[2]), batch_size=len(batch[3]))
    def on_train_epoch_end(self):
        print({key: float(value) for key, value in self.trainer.callback_metrics.items()}, sorted(self.hard.items()))
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.01)
def trainer():
    quiet = {each: False for each in ("enable_progress_bar", "enable_model_summary", "logger", "enable_checkpointing")}
    return L.Trainer(max_epochs=2, accelerator="cpu", devices=1, num_sanity_val_steps=0, **quiet)
model = Model()
held_out = DataLoader(Words(9), 4, collate_fn=by_steps)
trainer().fit(model, DataLoader(Words(23), 6, shuffle=True, collate_fn=by_steps), held_out)
print(steps)
store(model)
"""
)
SEVERAL = LIGHTNING.partition("class Model(")[0] + (
    """
class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net, self.seen = Net(), []
    def on_before_batch_transfer(self, batch, which):
        print("before", batch["a"]["words"].shape, batch["b"]["name"])
        return batch
    def training_step(self, batch, at):
        loss = 0
        for key, part in batch.items():
            out = self.net(part["words"], part["mask"])
            loss = loss + F.cross_entropy(out, part["y"])
            self.seen += part["name"]
            print(key, part["name"], part["words"].shape, [n for n, p in zip(part["name"], out.argmax(1)) if p == 1])
        print(loss.item())
        return loss
    def on_train_epoch_end(self):
        print(self.seen)
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.01)
"""
    + LIGHTNING[LIGHTNING.index("def trainer()") : LIGHTNING.index("held_out = ")]
    + """
a, b = (DataLoader(Words(rows), size, shuffle=True, collate_fn=padded) for rows, size in ((23, 6), (15, 5)))
trainer().fit(model, {"a": a, "b": b})
store(model)
"""
)
TRAINER = (
    HEAD
    + """
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
widths, seen, calls = [], [], 0
class Model(nn.Module):
    main_input_name = "words"
    def __init__(self):
        super().__init__()
        self.net = Net()
    def forward(self, words, mask, y):
        out = self.net(words, mask)
        return {"loss": F.cross_entropy(out, y), "logits": out}
class Own(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **words):
        global calls
        calls += 1
        names = inputs.pop("name")
        out = model(**inputs)
        widths.append(inputs["words"].shape[1])
        seen.extend(names)
        loss = out["loss"] + 0.1 * (1 - inputs["mask"].float().mean())
        return (loss, out) if return_outputs else loss
class Shown(TrainerCallback):
    def on_log(self, arguments, state, control, logs=None, **words):
        print({key: float(value) for key, value in logs.items() if "second" not in key and "runtime" not in key})
arguments = TrainingArguments(
    "out", per_device_train_batch_size=6, num_train_epochs=2, learning_rate=0.01, logging_steps=1, report_to="none",
    save_strategy="no", disable_tqdm=True, use_cpu=True, remove_unused_columns=False, gradient_accumulation_steps=2,
    include_num_input_tokens_seen="all")
model = Model()
trainer = Own(model, arguments, train_dataset=Words(23), data_collator=padded, callbacks=[Shown()])
trainer.remove_callback(PrinterCallback)
trainer.train()
print(widths, seen, calls, trainer.state.num_input_tokens_seen)
store(model)
"""
)
SCRIPTS = {
    "accelerate": ACCELERATE,
    "fabric": FABRIC,
    "lightning": LIGHTNING,
    "several": SEVERAL,
    "trainer": TRAINER,
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_sees_the_whole_batch_in_a_librarys_loop(work, script):
    _, ranks = same_run(work, SCRIPTS[script], *plain(work, SCRIPTS[script]), 3)
    assert "self-check of the first step: loss" in ranks[0].err or script == "several"
