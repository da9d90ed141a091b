"""Batches that a library has fetched before the script is at them: what they are filled up to, and whose rows they are."""

import json

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
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
torch.manual_seed(3)
class Rows(Dataset):
    def __len__(self):
        return 19
    def __getitem__(self, place):
        return torch.arange(1, 3 + (place // 4) % 3 * 2 + place % 2), torch.tensor(place % 3)
class Stream(IterableDataset):
    def __iter__(self):
        return (Rows()[place] for place in range(19))
def collate(rows):
    texts, targets = zip(*rows)
    longest = max(map(len, texts))
    return {"texts": pad_sequence(texts, batch_first=True), "targets": torch.stack(targets), "longest": longest}
class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.recurrent, self.head = nn.Embedding(9, 5), nn.LSTM(5, 7, batch_first=True), nn.Linear(7, 3)
    def forward(self, texts):
        return self.head(self.recurrent(self.embedding(texts))[1][0][0])
model = Reader()
"""
ACCELERATE = (
    HEAD
    + """
from accelerate import Accelerator
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(Rows(), batch_size=7, collate_fn=collate, shuffle=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
for epoch in range(2):
    for batch in loader:
        with accelerator.accumulate(model):
            out = model(batch["texts"])
            loss = F.cross_entropy(out, batch["targets"])
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        print(batch["texts"].shape[1], batch["longest"], len(out), loss.item(), out.sum().item())
torch.save([each.detach() for each in model.parameters()], sys.argv[1])
"""
)
LIGHTNING = (
    HEAD
    + """
import lightning.pytorch as L
class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = model
        self.automatic_optimization = BY_ITSELF
    def training_step(self, batch, at):
        out = self.net(batch["texts"])
        loss = F.cross_entropy(out, batch["targets"])
        print("step", batch["texts"].shape[1], batch["longest"], len(out), loss.item(), out.sum().item())
        if BY_ITSELF:
            return loss
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
    def HOOK(self, *given):
        print("hook", *(each["texts"].shape[1] for each in given if "texts" in (each if isinstance(each, dict) else ())))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
quiet = {each: False for each in ("enable_progress_bar", "enable_model_summary", "logger", "enable_checkpointing")}
L.Trainer(max_epochs=2, accelerator="cpu", **quiet).fit(Module(), DataLoader(DATA, batch_size=7, collate_fn=collate))
torch.save([each.detach() for each in model.parameters()], sys.argv[1])
"""
)
# Labels that count the padding as tokens, by which the losses of three batches are divided.
TRAINER = (
    HEAD
    + """
from transformers import PrinterCallback, Trainer, TrainingArguments
class Sums(nn.Module):
    accepts_loss_kwargs = True
    def __init__(self):
        super().__init__()
        self.net = model
    def forward(self, texts, labels, longest=0, num_items_in_batch=None):
        out = self.net(texts)
        return {"loss": F.cross_entropy(out, labels[:, 0], reduction="sum") / num_items_in_batch, "logits": out}
def labelled(rows):
    texts = collate([(each["texts"], each["labels"]) for each in rows])["texts"]
    return {"texts": texts, "labels": texts % 3, "longest": texts.shape[1]}
class Named(Dataset):
    def __len__(self):
        return 19
    def __getitem__(self, place):
        return dict(zip(("texts", "labels"), Rows()[place]))
arguments = TrainingArguments(
    "out", per_device_train_batch_size=7, num_train_epochs=2, learning_rate=0.1, logging_steps=1, report_to="none",
    optim="sgd", save_strategy="no", disable_tqdm=True, use_cpu=True, gradient_accumulation_steps=2)
trainer = Trainer(Sums(), arguments, train_dataset=Named(), data_collator=labelled)
trainer.remove_callback(PrinterCallback)
trainer.train()
for entry in trainer.state.log_history:
    print([float(entry[key]) for key in ("loss", "train_loss", "grad_norm") if key in entry])
torch.save([each.detach() for each in model.parameters()], sys.argv[1])
"""
)
WHOLE = "each rank puts whole batches together, as one device does"


def lightning(hook="on_train_batch_end", data="Rows()", *, by_itself=True):
    return LIGHTNING.replace("HOOK", hook).replace("DATA", data).replace("BY_ITSELF", str(by_itself))


FETCHED = {
    "accelerate": ACCELERATE,
    "accelerate's stream": ACCELERATE.replace("Rows(), ", "Stream(), ").replace(", shuffle=True", ""),
    "lightning": lightning(),
    "lightning's stream": lightning(data="Stream()", by_itself=False),
    "trainer": TRAINER,
}
# Nothing but what it fills in is unlike in a batch of all rows.
FILLED = TRAINER.replace(', "longest": texts.shape[1]}', "}")


def test_a_recurrent_layer_that_a_step_calls_by_itself_may_be_spread(work):
    """It has a list of its weights beside those that the ranks' parts were put in the place of."""
    text = lightning()
    _, ranks = same_run(work, text, *plain(work, text), 2, layout="fsdp")
    assert WHOLE in ranks[0].err


@pytest.mark.parametrize("text", FETCHED.values(), ids=FETCHED)
def test_a_model_that_reads_the_padding_gets_that_of_one_device(work, text):
    """In batches that were fetched ahead of the check, too."""
    run, ranks = same_run(work, text, *plain(work, text), 2)
    assert WHOLE in ranks[0].err
    assert (run.folder / "whole-batches.json").exists()


def test_rows_of_a_trainer_are_filled_up_to_the_longest_of_all_ranks(work):
    """Ahead of the count of tokens, which the padding is part of here."""
    _, ranks = same_run(work, FILLED, *plain(work, FILLED), 2)
    assert WHOLE not in ranks[0].err


def test_a_hook_that_has_seen_the_padding_of_a_rank_stops_the_run(work):
    """The next start of a run that puts whole batches together begins with them."""
    text = lightning("on_train_batch_start")
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(text), "weights.pt")
    assert [rank.code for rank in ranks] == [1, 1]
    assert any("how far rows are padded" in rank.err for rank in ranks)
    (work / "run2").mkdir()
    (work / "run2" / "whole-batches.json").write_text(json.dumps({"reason": "an earlier start"}))
    _, ranks = same_run(work, text, *plain(work, text), 2)
    assert WHOLE in ranks[0].err


SEVERAL = (
    HEAD
    + """
import lightning.pytorch as L
from lightning.pytorch.utilities import CombinedLoader
class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 4)
        self.seen = 0
    def training_step(self, batch, at):
        (x,), (y,) = batch["x"], batch["y"]
        loss = F.mse_loss(self.net(x), x) + 0.5 * ((self.net(y) - y) ** 2).mean()
        self.seen += len(x) + len(y)
        self.log("y", y.mean(), on_step=False, on_epoch=True, batch_size=len(y))
        print(at, len(x), len(y), self.seen, loss.item(), x.sum().item(), y.std().item())
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
x, y = (DataLoader(TensorDataset(torch.randn(rows, 4)), batch_size=size) for rows, size in ((17, 5), (22, 8)))
module, quiet = Module(), ("enable_progress_bar", "enable_model_summary", "logger", "enable_checkpointing")
for mode in "max_size_cycle", "min_size":
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", **{each: False for each in quiet})
    trainer.fit(module, CombinedLoader({"x": x, "y": y}, mode))
    print({key: float(value) for key, value in trainer.callback_metrics.items()})
torch.save([each.detach() for each in module.parameters()], sys.argv[1])
"""
)


def test_batches_of_several_loaders_at_once(work):
    _, ranks = same_run(work, SEVERAL, *plain(work, SEVERAL), 2)
    assert "could not be made: training_step gets batches of several loaders at once" in ranks[0].err


# A search for a learning rate trains within a hook, where batches are whole ones; and behind it all a loop of the script's.
SEARCH = (
    HEAD
    + """
import lightning.pytorch as L
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.lr = 0.1
        self.net = nn.Linear(4, 4)
    def training_step(self, batch, at):
        (x,) = batch
        return F.mse_loss(self.net(x), x)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)
x = DataLoader(TensorDataset(torch.randn(17, 4)), batch_size=5)
quiet = ("enable_progress_bar", "enable_model_summary", "logger", "enable_checkpointing")
module, finder = Module(), LearningRateFinder(num_training_steps=5, early_stop_threshold=None)
L.Trainer(max_epochs=2, accelerator="cpu", callbacks=[finder], **{each: False for each in quiet}).fit(module, x)
print(finder.optimal_lr.results["loss"], module.lr)
optimizer, seen = torch.optim.SGD(module.parameters(), lr=0.1), 0
for (rows,) in x:
    out = module.net(rows)
    loss = ((out - rows) ** 2 * (rows > 0)).sum() / (rows > 0).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    seen += len(rows)
    print(seen, loss.item(), (out > 0).sum().item())
torch.save([each.detach() for each in module.parameters()], sys.argv[1])
"""
)


def test_a_search_for_a_learning_rate_shares_out_its_batches(work):
    _, ranks = same_run(work, SEARCH, *plain(work, SEARCH), 2)
    assert "no DataLoader gave this batch" not in ranks[0].err
    assert ranks[0].err.count("self-check of the first step: loss") == 1


def test_a_search_for_a_batch_size_is_refused(work):
    run = Run(work, launch(2))
    text = SEARCH.replace("LearningRateFinder(num_training_steps=5, early_stop_threshold=None)", "BatchSizeFinder()")
    ranks = run.ranks(submitit(2), run.script(text), "weights.pt")
    assert [rank.code for rank in ranks] == [1, 1]
    assert any("BatchSizeFinder looks for the batch that fills the memory" in rank.err for rank in ranks)
