"""The Trainer of Hugging Face on a tiny Llama: masked labels, gradients of two batches added up, evaluation."""

import sys

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments

import lumi_moai

lumi_moai.enable_advanced_parallelization()
torch.manual_seed(8)


class Rows(Dataset):
    def __init__(self, rows, seed):
        chance = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(3, 32, (rows, 12), generator=chance)
        self.lengths = torch.randint(5, 13, (rows,), generator=chance)

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, row):
        tokens = self.tokens[row].clone()
        labels = tokens.clone()
        labels[self.lengths[row] :] = -100
        return {"input_ids": tokens, "labels": labels}


config = LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0
)
model = LlamaForCausalLM(config)
size = int(sys.argv[2])
arguments = TrainingArguments(
    sys.argv[1] + ".out",
    per_device_train_batch_size=size,
    per_device_eval_batch_size=3,
    num_train_epochs=2,
    gradient_accumulation_steps=2,
    learning_rate=0.02,
    adam_epsilon=1e-3,
    max_grad_norm=0.5,
    logging_steps=1,
    eval_strategy="epoch",
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
)
trainer = Trainer(model, arguments, train_dataset=Rows(16, 3), eval_dataset=Rows(5, 4))
trainer.remove_callback(PrinterCallback)
trainer.train()
for entry in trainer.state.log_history:
    print({key: float(entry[key]) for key in ("loss", "grad_norm", "eval_loss", "learning_rate") if key in entry})
torch.save(trainer.model.state_dict(), sys.argv[1])
