"""torch's own encoder-decoder on pairs of unequal length."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lumi_moai

lumi_moai.enable_advanced_parallelization()
torch.manual_seed(6)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(20, 16, padding_idx=0)
        self.transformer = nn.Transformer(16, 2, 2, 2, 32, dropout=0.0, batch_first=True)
        self.out = nn.Linear(16, 20)

    def forward(self, source, target):
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=target.device)
        hidden = self.transformer(
            self.tokens(source),
            self.tokens(target),
            tgt_mask=causal,
            src_key_padding_mask=(source == 0).float() * -1e9,
            tgt_is_causal=True,
        )
        return self.out(hidden)


source, target = torch.randint(1, 20, (16, 7)), torch.randint(1, 20, (16, 6))
for row in range(16):
    source[row, 7 - row % 4 :] = 0
    target[row, 6 - row % 3 :] = 0
model = Model().to(device)
criterion = nn.CrossEntropyLoss(ignore_index=0)
optimizer = torch.optim.Adam(model.parameters(), lr=0.005, betas=(0.9, 0.98), eps=1e-3)
for epoch in range(2):
    for a, b in DataLoader(TensorDataset(source, target), batch_size=int(sys.argv[2]), shuffle=True):
        a, b = a.to(device), b.to(device)
        logits = model(a, b[:, :-1])
        loss = criterion(logits.reshape(-1, 20), b[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"loss {loss.item():.7f}")
torch.save(model.state_dict(), sys.argv[1])
