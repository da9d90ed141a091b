"""Lightning's Trainer on a residual network: logged values, validation, clipped gradients."""

import sys
import warnings

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lumi_moai

warnings.simplefilter("ignore")
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(9)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.first, self.blocks, self.last = nn.Linear(6, 8), nn.Sequential(Block(8), Block(8)), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.blocks(self.first(x)))

    def training_step(self, batch, place):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, place):
        self.log("held_out", F.cross_entropy(self(batch[0]), batch[1]))

    def on_train_batch_end(self, outputs, batch, place):
        print(f"loss {float(self.trainer.callback_metrics['loss_step']):.7f}")

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.02, eps=1e-3)


x, y = torch.randn(21, 6), torch.randint(0, 3, (21,))
train = DataLoader(TensorDataset(x[:16], y[:16]), batch_size=int(sys.argv[2]), shuffle=True)
held_out = DataLoader(TensorDataset(x[16:], y[16:]), batch_size=3)
model = Model()
trainer = pl.Trainer(
    max_epochs=2,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    num_sanity_val_steps=0,
    gradient_clip_val=0.5,
)
trainer.fit(model, train, held_out)
print({key: float(value) for key, value in sorted(trainer.callback_metrics.items())})
torch.save(model.state_dict(), sys.argv[1])
