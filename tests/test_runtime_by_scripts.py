"""Loops and losses that a script writes itself around a library: accelerate's, and within transformers' Trainer."""

import pytest
from one_device import plain, same_run

HEAD = """
import os, sys, warnings
warnings.simplefilter("ignore")
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
import lumi_moai
lumi_moai.enable_advanced_parallelization()
import torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(3)
x, y = torch.randn(26, 6), torch.randint(0, 2, (26,))
mask = (torch.arange(26 * 6).reshape(26, 6) % 3 > 0).float()
mask[::3] = 1
net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8))
"""
# Counts, masks and noise by hand, three batches a step, numbers that are gathered although one device has them all.
COUNTED = (
    HEAD
    + """
from accelerate import Accelerator
helper = Accelerator(gradient_accumulation_steps=3)
data = DataLoader(TensorDataset(x, y, mask), batch_size=7, shuffle=True)
net, optimizer, data = helper.prepare(net, torch.optim.AdamW(net.parameters(), lr=0.02), data)
for epoch in range(2):
    seen = right = total = 0
    known = torch.zeros(2)
    for some, label, kept in data if epoch else helper.skip_first_batches(data, 1):
        with helper.accumulate(net):
            out = net(some)
            far = (((out[:, 2:] - some) ** 2) * kept).sum() / kept.sum()
            noise = torch.rand(some.shape[0], 1)
            loss = F.cross_entropy(out[:, :2], label) + far + ((out * noise) ** 2).sum() / len(some)
            helper.backward(loss)
            if helper.sync_gradients:
                print("norm", helper.clip_grad_norm_(net.parameters(), 0.4).item())
            optimizer.step()
            optimizer.zero_grad()
        best = out[:, :2].argmax(1)
        seen, right, total = seen + some.size(0), right + (best == label).sum().item(), total + loss.item() * len(some)
        known += torch.tensor([(best == label).sum().item(), len(some)])
        print(torch.tensor([len(some), 1]).tolist(), torch.full((2,), len(some)).tolist())
        made, wanted = helper.gather_for_metrics((best, label))
        print(loss.item(), far.item(), seen, right / seen, total / seen, (made == wanted).sum().item(), len(made))
        print(helper.gather((best == label).sum()).sum().item(), helper.gather(loss.detach()).mean().item())
        print(helper.reduce(far.detach(), "mean").item(), helper.reduce(torch.tensor(len(some))).item())
        print(helper.reduce(known).tolist(), helper.gather(out.detach()[:, 0]).tolist()[:2], helper.gather({"a": label})["a"].shape)
torch.save([weight.detach() for weight in net.parameters()], sys.argv[1])
"""
)
# Two loaders in turn, whose batches have unlike rows: what is gathered is of the batch that it was made of.
IN_TURN = (
    HEAD
    + """
from accelerate import Accelerator
helper = Accelerator()
data = DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True)
other = DataLoader(TensorDataset(x[:18], y[:18]), batch_size=4)
net, optimizer, data, other = helper.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1), data, other)
more = iter(other)
for some, label in data:
    try:
        second, also = next(more)
    except StopIteration:
        more = iter(other)
        second, also = next(more)
    out = net(some)
    loss = F.cross_entropy(out, label) + F.cross_entropy(net(second), also)
    helper.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
    made, wanted = helper.gather_for_metrics((out.argmax(1), label))
    print(loss.item(), made.tolist(), wanted.tolist(), len(helper.gather(also)), helper.reduce((made == wanted).sum()).item())
torch.save([weight.detach() for weight in net.parameters()], sys.argv[1])
"""
)
# What a script counts and adds up in a loss of its own, of batches that the Trainer of transformers fetches.
WITHIN = (
    HEAD
    + """
from transformers import Trainer, TrainingArguments
class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 26
    def __getitem__(self, row):
        return {"some": x[row], "labels": y[row], "kept": mask[row]}
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net
    def forward(self, some, labels=None, kept=None):
        return {"logits": self.net(some)}
class Own(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        out = model(inputs["some"])["logits"]
        far = (((out[:, 2:] - inputs["some"]) ** 2) * inputs["kept"]).sum() / inputs["kept"].sum()
        hits = (out[:, :2].argmax(1) == inputs["labels"]).float()
        print("own", far.item(), hits.mean().item(), len(hits), int(hits.sum()))
        self.log({"hits": hits.sum().item()})
        return F.cross_entropy(out[:, :2], inputs["labels"]) + far
def func(outputs, labels, num_items_in_batch=None):
    chances = outputs["logits"][:, :2].softmax(1)
    print("func", len(labels), num_items_in_batch, chances.max().item(), (labels > 0).sum().item())
    return -chances[torch.arange(len(labels)), labels].log().sum() / num_items_in_batch
weights = []
for steps, words in ((1, {}), (2, {"compute_loss_func": func})):
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1, "remove_unused_columns": False}
    about = TrainingArguments("out", per_device_train_batch_size=7, num_train_epochs=2, gradient_accumulation_steps=steps, learning_rate=0.01, **quiet)
    trainer = (Trainer if words else Own)(model=Model(), args=about, train_dataset=Rows(), **words)
    trainer.pop_callback(type(trainer.callback_handler.callbacks[-1]))
    trainer.train()
    print([(round(each["loss"], 5), round(each["grad_norm"], 5)) for each in trainer.state.log_history if "loss" in each])
    print([each["hits"] for each in trainer.state.log_history if "hits" in each])
    weights += [weight.detach().clone() for weight in net.parameters()]
torch.save(weights, sys.argv[1])
"""
)


@pytest.mark.parametrize("script", [COUNTED, IN_TURN], ids=["counted", "in_turn"])
def test_what_a_loop_of_accelerate_counts_is_of_all_rows(work, script):
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert ranks[0].err.count("self-check of the first step: loss") == (script is COUNTED)


def test_a_loss_of_the_script_within_the_trainer_is_of_all_rows(work):
    same_run(work, WITHIN, *plain(work, WITHIN), 2)
