"""Libraries that call a step for each batch, Ignite and skorch, give the one-device result."""

from one_device import plain, same_run

HEAD = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(0)
x, y = torch.randn(23, 6), torch.randint(0, 3, (23,))
"""
IGNITE = (
    HEAD
    + """
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Accuracy, Loss, RunningAverage

model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
optimizer, criterion = torch.optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss()
trainer = create_supervised_trainer(model, optimizer, criterion, output_transform=lambda x, y, out, loss: (loss, out, y))
RunningAverage(output_transform=lambda output: output[0].item()).attach(trainer, "average")
Accuracy(output_transform=lambda output: output[1:]).attach(trainer, "accuracy")
metrics = {"accuracy": Accuracy(), "loss": Loss(criterion)}

def step(engine, batch):
    model.eval()
    with torch.no_grad():
        return model(batch[0]), batch[1]

evaluators = [create_supervised_evaluator(model, metrics=metrics), Engine(step)]
Accuracy().attach(evaluators[1], "accuracy")

@trainer.on(Events.ITERATION_COMPLETED)
def show(engine):
    print(engine.state.iteration, engine.state.output[0].item(), engine.state.metrics["average"])

@trainer.on(Events.EPOCH_COMPLETED)
def evaluate(engine):
    print(engine.state.metrics["accuracy"])
    for evaluator in evaluators:
        model.train()
        evaluator.run(DataLoader(TensorDataset(x[:7], y[:7]), batch_size=3))
        print({name: float(value) for name, value in evaluator.state.metrics.items()})

trainer.run(DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True), max_epochs=2)
torch.save([each.detach() for each in model.parameters()], sys.argv[1])
"""
)


def test_engines_of_ignite(work):
    """An evaluator says so in its step, when the batch is there already: its metrics were of each rank's rows."""
    same_run(work, IGNITE, *plain(work, IGNITE), 2)


SKORCH = (
    HEAD
    + """
from skorch import NeuralNetClassifier
from skorch.callbacks import BatchScoring, EpochScoring

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(-1))
    def forward(self, x):
        return self.net(x)

words = dict(lr=0.1, batch_size=7, verbose=0, callbacks=[
    EpochScoring("accuracy", name="seen", on_train=True), BatchScoring("accuracy", name="each", on_train=True)])
held_out = NeuralNetClassifier(Net, max_epochs=2, iterator_train__shuffle=True, **words).fit(x.numpy(), y.numpy())
for epoch in held_out.history:
    print(epoch["train_loss"], epoch["valid_loss"], epoch["valid_acc"], epoch["seen"], epoch["each"])
all_rows = NeuralNetClassifier(Net, max_epochs=1, train_split=None, **words).fit(x.numpy(), y.numpy())
print(all_rows.predict_proba(x.numpy()).sum(0), all_rows.score(x.numpy(), y.numpy()))
torch.save([each.detach() for net in (held_out, all_rows) for each in net.module_.parameters()], sys.argv[1])
"""
)


def test_a_classifier_of_skorch(work):
    """Its accuracy on held-out rows was that of one rank's, and the mean of its losses weighed batches by them."""
    same_run(work, SKORCH, *plain(work, SKORCH), 2)
