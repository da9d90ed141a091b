"""A tiny Llama of Hugging Face in the shape of MoAI's tutorials: padded rows, masked labels, a loss of the model."""

import sys

import torch
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

torch.moreh.option.enable_advanced_parallelization() if hasattr(torch, "moreh") else None
torch.manual_seed(5)
device = "cuda" if torch.cuda.is_available() else "cpu"
config = LlamaConfig(
    vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0
)
model = LlamaForCausalLM(config).to(device)
model.train()
rows = []
for row in range(16):
    length = 5 + row % 6  # never as many as a rank has rows
    ids = torch.cat([torch.randint(1, 40, (length,)), torch.zeros(10 - length, dtype=torch.long)])
    rows.append({"input_ids": ids, "attention_mask": (ids != 0).long()})
loader = DataLoader(rows, batch_size=int(sys.argv[2]), shuffle=True)
optim = torch.optim.AdamW(model.parameters(), lr=0.01)
for step, batch in enumerate(loader, start=1):
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    outputs = model(
        batch["input_ids"].to(device),
        attention_mask=batch["attention_mask"].to(device),
        labels=labels.to(device),
        use_cache=False,
    )
    outputs[0].backward()
    optim.step()
    model.zero_grad(set_to_none=True)
    print(f"[Step {step}/{len(loader)}] | Loss: {outputs[0].item():.7f}")
torch.save(model.state_dict(), sys.argv[1])
