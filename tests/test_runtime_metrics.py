"""Metrics of libraries in the script's own loop: a training batch is measured with the rows of all ranks."""

import pytest
from one_device import plain, same_run

HEAD = """
import sys, warnings
warnings.simplefilter("ignore")
import lumi_moai
lumi_moai.enable_advanced_parallelization()
import torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(3)
"""
# Functions and objects, ahead of backward and behind it, numbers for each class (as many as a rank has rows), a metric as a loss.
TENSORS = (
    HEAD
    + """
import torchmetrics
from torchmetrics.functional import pearson_corrcoef, r2_score
from torchmetrics.functional.classification import multiclass_f1_score
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
torch.set_default_dtype(torch.float64)
x, y = torch.rand(19, 1, 16, 16), torch.randint(0, 3, (19,))
net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1), nn.Sigmoid())
head = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
weights = [*net.parameters(), *head.parameters()]
optimizer = torch.optim.SGD(weights, lr=0.1)
error, kept = torchmetrics.MeanSquaredError(), torchmetrics.CatMetric()
each = torchmetrics.Accuracy(task="multiclass", num_classes=3, average=None)
for epoch in range(2):
    for some, label in DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True):
        made = net(some)
        scores = head(made)
        likeness, far = ssim(made, some, data_range=1.0), error(made, some)
        loss = 1 - likeness + far + F.cross_entropy(scores, label)
        print("ahead", multiclass_f1_score(scores, label, num_classes=3).item(), likeness.item(), far.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        kept.update(loss)
        print("behind", loss.item(), multiclass_f1_score(scores, label, num_classes=3, average=None).tolist())
        print("each", each(scores, label).tolist(), each(scores, label).mean().item(), each(scores.t().t(), label).sum().item())
        print("one", pearson_corrcoef(scores[:, 0], scores[:, 1]).item(), r2_score(made.flatten(), some.flatten()).item())
    print("epoch", error.compute().item(), each.compute().tolist(), kept.compute().tolist())
torch.save([weight.detach() for weight in weights], sys.argv[1])
"""
)
# Lists with an entry for each row: texts that came with a batch, texts made of the scores, a dictionary for each row.
LISTS = (
    HEAD
    + """
import torchmetrics
from torchmetrics.functional.text import char_error_rate
from torchmetrics.text import WordErrorRate
WORDS = "abcde"
class Texts(torch.utils.data.Dataset):
    tokens = torch.randint(0, 5, (17, 4))
    def __len__(self):
        return 17
    def __getitem__(self, row):
        return self.tokens[row], " ".join(WORDS[token] for token in self.tokens[row].tolist())
class Boxes(torchmetrics.Metric):
    full_state_update = False
    def __init__(self):
        super().__init__()
        self.add_state("found", [], dist_reduce_fx=None)
    def update(self, made, wanted):
        for place, (one, other) in enumerate(zip(made, wanted, strict=True)):
            self.found.append((one["box"] - other["box"]).abs().sum().view(1) * (place + 1))
    def compute(self):
        return torch.cat(self.found)
model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
errors, boxes = WordErrorRate(), Boxes()
for epoch in range(2):
    for tokens, texts in DataLoader(Texts(), batch_size=7, shuffle=True):
        scores = model(tokens)
        said = [" ".join(WORDS[token] for token in row) for row in scores.argmax(-1).tolist()]
        print("ahead", char_error_rate(said, texts).item(), errors(said, list(texts)).item())
        loss = F.cross_entropy(scores.flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        said = [" ".join(WORDS[token] for token in row) for row in scores.argmax(-1).tolist()]
        print("behind", char_error_rate(said, texts).item(), errors(said, texts).item())
        boxes.update([{"box": row} for row in scores.detach()], [{"box": row} for row in F.one_hot(tokens, 5)])
    print("epoch", errors.compute().item(), boxes.compute().tolist())
torch.save([weight.detach() for weight in model.parameters()], sys.argv[1])
"""
)
# Arrays and lists of numbers ahead of backward; a list of labels is an option, of as many entries as a rank has rows.
ARRAYS = (
    HEAD
    + """
sys.path.insert(0, "SITE")
from sklearn.metrics import f1_score, scored
x, y = torch.randn(17, 4), torch.randint(0, 3, (17,))
model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(2):
    for some, label in DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True):
        scores = model(some)
        best = scores.argmax(1)
        for _ in range(2):  # ahead of backward, and behind it
            print(f1_score(label.numpy(), best.numpy(), labels=[0, 1, 2]), f1_score(y_true=label, y_pred=best))
            print(f1_score(label.tolist(), best.tolist(), [2, 1, 0]), f1_score([0, 1], [1, 1]), scored(label, best))
            print(f1_score(label[best > 0].tolist(), best[best > 0].numpy()))
            loss = F.cross_entropy(model(some), label)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
torch.save([weight.detach() for weight in model.parameters()], sys.argv[1])
"""
)
STAND_IN = """
import numpy as np

def f1_score(y_true, y_pred, labels=(0, 1, 2)):
    true, pred = np.asarray(y_true), np.asarray(y_pred)
    hits = [2 * ((true == each) & (pred == each)).sum() / max(((true == each).sum() + (pred == each).sum()), 1) for each in labels]
    return [round(float(each), 6) for each in hits]

def scored(y_true, y_pred):
    return f1_score(y_true, y_pred)  # a call of the library's own, of all rows
"""


# A metric that keeps what it measures of each batch, given tensors and lists with one for each row.
KEPT = (
    HEAD
    + """
sys.path.insert(0, "SITE")
from monai.metrics.metric import CumulativeIterationMetric
x, y = torch.randn(17, 4), torch.rand(17, 3)
model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
kept = CumulativeIterationMetric()
for some, label in DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True):
    scores = model(some)
    loss = F.mse_loss(scores, label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    found = kept(scores.detach(), label)
    print(len(found), found.mean().item(), kept(list(scores.detach()), y=[row for row in label]).sum().item())
print(torch.cat(kept.found).tolist())
torch.save([weight.detach() for weight in model.parameters()], sys.argv[1])
"""
)
MONAI = """
import torch

class CumulativeIterationMetric:
    def __init__(self):
        self.found = []
    def __call__(self, y_pred, y):
        self.found.append(torch.stack([(one - other).abs().sum() for one, other in zip(y_pred, y, strict=True)]))
        return self.found[-1]
"""


@pytest.mark.parametrize(("script", "rows"), [(TENSORS, 7), (LISTS, 7)], ids=["tensors", "lists"])
def test_torchmetrics_see_the_rows_of_all_ranks(work, script, rows):
    _, ranks = same_run(work, script, *plain(work, script), 2)
    assert f"over 2 ranks: global batch {rows}" in ranks[0].err


def test_scores_of_arrays_are_those_of_all_rows(work):
    """scikit-learn is not installed by the tests; a stand-in has its name, its place and its arguments."""
    package = work / "site-packages" / "sklearn"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "metrics.py").write_text(STAND_IN)
    script = ARRAYS.replace("SITE", str(package.parent))
    same_run(work, script, *plain(work, script), 2)


def test_a_metric_that_keeps_what_it_measures_sees_all_rows(work):
    """MONAI is not installed by the tests; a stand-in has its name, its place and its arguments."""
    package = work / "site-packages" / "monai" / "metrics"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "metric.py").write_text(MONAI)
    script = KEPT.replace("SITE", str(work / "site-packages"))
    same_run(work, script, *plain(work, script), 2)
