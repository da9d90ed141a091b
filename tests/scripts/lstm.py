"""A word-level LSTM on sentences of unequal length, padded in the collate function, with clipped gradients."""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

import lumi_moai

lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
device = "cuda" if torch.cuda.is_available() else "cpu"
words = ("the cat sat on the mat . a dog ran . the dog saw a cat and ran to the mat . " * 4).split()
vocabulary = {word: number for number, word in enumerate(sorted(set(words)), start=1)}
numbers = [vocabulary[word] for word in words]
sentences = [torch.tensor(numbers[start : start + 4 + start % 5]) for start in range(0, 64, 4)]


class Model(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.embedding = nn.Embedding(size, 12, padding_idx=0)
        self.lstm = nn.LSTM(12, 16, num_layers=2, batch_first=True)
        self.out = nn.Linear(16, size)

    def forward(self, tokens):
        return self.out(self.lstm(self.embedding(tokens))[0])


model = Model(len(vocabulary) + 1).to(device)
optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
loader = DataLoader(
    sentences, batch_size=int(sys.argv[2]), shuffle=True, collate_fn=lambda rows: pad_sequence(rows, batch_first=True)
)
for epoch in range(2):
    for tokens in loader:
        tokens = tokens.to(device)
        out = model(tokens[:, :-1])
        loss = F.cross_entropy(out.transpose(1, 2), tokens[:, 1:], ignore_index=0)
        model.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        print(f"loss {loss.item():.7f} norm {float(norm):.7f}")
torch.save(model.state_dict(), sys.argv[1])
