"""Libraries that train: a script for one device that uses one of them gives the one-device result on several ranks."""

import copy
import sys

import pytest
import torch
from one_device import plain, same_run
from runtime_ranks import Run, launch, slurm, submitit

from lumi_moai.plan import Wishes
from lumi_moai.runtime import late
from lumi_moai.runtime.parallel.libraries import environment, whole

HEAD = """
import sys, torch
from torch.utils.data import Dataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()

class Rows(Dataset):
    def __init__(self, rows, seed=3):
        chance = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(3, 32, (rows, 12), generator=chance)
        self.lengths = torch.randint(4, 13, (rows,), generator=chance)
    def __len__(self):
        return len(self.tokens)
    def __getitem__(self, row):
        tokens = self.tokens[row].clone()
        labels = tokens.clone()
        labels[self.lengths[row]:] = -100
        return {"input_ids": tokens, "labels": labels}

def llama():
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(5)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2))

def shown(entries, hidden=()):
    for entry in entries:
        print({key: float(value) for key, value in entry.items() if not any(
            word in key for word in ("runtime", "per_second", *hidden))})
"""

TRAINER = (
    HEAD
    + """
from transformers import PrinterCallback, Trainer, TrainingArguments

def metrics(predicted):
    return {"right": float((predicted.predictions.argmax(-1)[:, :-1] == predicted.label_ids[:, 1:]).mean()),
            "rows": float(len(predicted.label_ids))}

def train(**words):
    model = llama()
    arguments = TrainingArguments(
        "out", per_device_train_batch_size=4, per_device_eval_batch_size=3, num_train_epochs=2, learning_rate=0.02,
        logging_steps=1, report_to="none", save_strategy="no", max_grad_norm=0.5, adam_epsilon=1e-3,
        disable_tqdm=True, use_cpu=True,
        **words)
    trainer = Trainer(model, arguments, train_dataset=Rows(18), eval_dataset=Rows(7, 4), compute_metrics=metrics)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    shown(trainer.state.log_history)
    print(trainer.args.world_size, trainer.args.n_gpu, float(trainer.state.total_flos))
    return trainer.model

def resume():
    def made(**words):
        arguments = TrainingArguments(
            "kept", per_device_train_batch_size=4, num_train_epochs=2, learning_rate=0.02, logging_steps=1,
            report_to="none", save_steps=2, save_total_limit=2, adam_epsilon=1e-3, disable_tqdm=True, **words)
        trainer = Trainer(llama(), arguments, train_dataset=Rows(14))
        trainer.remove_callback(PrinterCallback)
        return trainer
    whole = made()
    whole.train()
    again = made()
    again.train(resume_from_checkpoint="kept/checkpoint-6")
    shown(again.state.log_history, ["train_loss"])
    assert [entry["loss"] for entry in again.state.log_history[:-1]] == [
        entry["loss"] for entry in whole.state.log_history[:-1]]
    return again.model

weights = [parameter.detach() for parameter in resume().parameters()]
for words in (dict(gradient_accumulation_steps=2, eval_strategy="epoch", include_num_input_tokens_seen=True),
              dict(label_smoothing_factor=0.1, gradient_accumulation_steps=3, dataloader_num_workers=1)):
    weights += [parameter.detach() for parameter in train(**words).parameters()]
torch.save(weights, sys.argv[1])
"""
)


@pytest.mark.parametrize("count", [2, 4])
def test_the_trainer_of_transformers(work, count):
    lines, weights = plain(work, TRAINER)
    _, ranks = same_run(work, TRAINER, lines, weights, count)
    assert f"over {count} ranks: global batch 4" in ranks[0].err
    assert ranks[0].err.count("self-check of the first step: loss") == 1


SUMMED = (
    HEAD
    + """
from transformers import Trainer, TrainingArguments

added = eval("lambda rows: rows.square().sum()")  # no line of the script's, as a library's is none

class Summing(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return added(model(**inputs).logits)

Summing(llama(), TrainingArguments("out", report_to="none", use_cpu=True, disable_tqdm=True), train_dataset=Rows(8)).train()
"""
)


def test_the_first_step_of_a_trainer_is_checked(work):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(SUMMED))
    assert [rank.code for rank in ranks] == [1, 1]
    assert "the self-check of the first step failed: loss " in ranks[0].err + ranks[1].err


SFT = (
    HEAD
    + """
from datasets import Dataset as Table
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, PrinterCallback
from trl import SFTConfig, SFTTrainer

words = ["<pad>", "<s>", "</s>", *"the cat sat on a mat and dog ran off to sea or up hill".split()]
tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<pad>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
chance = torch.Generator().manual_seed(1)

def text(least):
    count = int(torch.randint(least, 9, (), generator=chance))
    return " ".join(words[int(place)] for place in torch.randint(3, len(words), (count,), generator=chance))

def train(table, **more):
    model = llama()
    arguments = SFTConfig(
        "out", per_device_train_batch_size=4, num_train_epochs=2, learning_rate=0.02, logging_steps=1, report_to="none",
        save_strategy="no", adam_epsilon=1e-3, disable_tqdm=True, use_cpu=True, gradient_checkpointing=False, bf16=False,
        gradient_accumulation_steps=2, **more)
    trainer = SFTTrainer(model, arguments, train_dataset=Table.from_list(table), processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    shown(trainer.state.log_history, ["flos"])  # which count the padding to the longest row of a rank
    return [parameter.detach() for parameter in model.parameters()]

weights = train([{"prompt": text(2), "completion": " " + text(1)} for _ in range(11)])
weights += train([{"text": text(3)} for _ in range(30)], packing=True, packing_strategy="wrapped", max_length=10)
torch.save(weights, sys.argv[1])
"""
)


def test_the_sft_trainer_of_trl(work):
    lines, weights = plain(work, SFT)
    _, ranks = same_run(work, SFT, lines, weights, 2)
    assert "over 2 ranks: global batch 4" in ranks[0].err


GRPO = (
    HEAD
    + """
from datasets import Dataset as Table
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer
words = ["<pad>", "<s>", "</s>", *"the cat sat on a mat".split()]
tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<pad>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
llama().save_pretrained("model"); tokenizer.save_pretrained("model")
table = Table.from_list([{"prompt": text} for text in ("the cat", "a cat sat", "the mat", "on a mat")])
arguments = GRPOConfig("out", per_device_train_batch_size=6, num_generations=3, max_completion_length=4, max_steps=1,
                       report_to=[], use_cpu=True, bf16=False, disable_tqdm=True)
trainer = GRPOTrainer("model", lambda completions, **_: [float(len(each)) for each in completions], arguments,
                      train_dataset=table, processing_class=tokenizer)
trainer.train()
print("trained")
"""
)


def test_a_trainer_that_draws_its_answers_is_refused_by_name(work):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(GRPO))
    assert [rank.code for rank in ranks] == [1, 1], ranks[0].err
    assert any("GRPOTrainer draws answers" in rank.err for rank in ranks), ranks[0].err
    assert ranks[0].out == ""


def test_the_mean_of_each_ranks_number_is_that_over_rows(work):
    found = whole._weighing(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0]).double())
    for mean in (found.mean(), torch.mean(input=found), (found * 1).cpu().mean(0), copy.deepcopy(found).nanmean()):
        assert mean.item() == 1.25
    assert (found.sum().item(), torch.stack([found, found]).mean().item()) == (3.0, 1.5)
    assert (whole._weighing(torch.tensor([1.0, torch.nan]), found.weights)).nanmean().item() == 1.0
    torch.save(found, "found.pt")
    assert type(torch.load("found.pt", weights_only=True)) is torch.Tensor


PEFT = (
    HEAD
    + """
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.utils.data import DataLoader, TensorDataset

model = get_peft_model(llama(), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
model.print_trainable_parameters()
optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=0.05, eps=1e-3)
tokens = torch.randint(3, 32, (12, 12))
for (rows,) in DataLoader(TensorDataset(tokens), batch_size=5):
    loss = model(input_ids=rows, labels=rows).loss
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    print(loss.item(), norm.item())
model.save_pretrained("adapter")
adapter = load_file("adapter/adapter_model.safetensors")
with torch.no_grad():
    for each in (model, PeftModel.from_pretrained(llama(), "adapter")):
        print(each.eval()(input_ids=tokens, labels=tokens).loss.item())
torch.save(adapter, sys.argv[1])
"""
)


@pytest.mark.parametrize("layout", ["replicate", "fsdp", "tp=2", "pp=2"])
def test_adapters_of_peft(work, layout):
    """A frozen model that is in parts when it gets its adapters: PEFT made them for the part."""
    same_run(work, PEFT, *plain(work, PEFT), 2, layout=layout)


ACCELERATE = (
    HEAD
    + """
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

accelerator = Accelerator(gradient_accumulation_steps=2, cpu=True)
set_seed(3)
print(accelerator.num_processes, accelerator.is_main_process, str(accelerator.distributed_type))
model = llama()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, eps=1e-3)
train, held_out = DataLoader(Rows(18), batch_size=5, shuffle=True), DataLoader(Rows(7, 4), batch_size=3)
schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 8)
model, optimizer, train, held_out, schedule = accelerator.prepare(model, optimizer, train, held_out, schedule)
for epoch in range(2):
    model.train()
    total, tokens = 0.0, 0
    for batch in train if epoch == 0 else skip_first_batches(train, 1):
        with accelerator.accumulate(model):
            loss = model(**batch).loss
            total += loss.detach().float()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                print("norm", float(accelerator.clip_grad_norm_(model.parameters(), 0.5)))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        tokens += accelerator.gather(batch["labels"].ne(-100).sum()).sum().item()
        lengths = accelerator.gather_for_metrics((batch["labels"] != -100).sum(1).float().mean())
        print("length", lengths.mean().item(), torch.nanmean(lengths.cpu() * 10).item())
        print("loss", loss.item(), accelerator.gather(loss.detach()).mean().item(), schedule.get_last_lr())
    print("epoch", float(total) / len(train), tokens)
    model.eval()
    right, seen = 0, 0
    for batch in held_out:
        with torch.no_grad():
            scores = model(**batch).logits
        guesses, labels = accelerator.gather_for_metrics((scores.argmax(-1), batch["labels"]))
        right, seen = right + int((guesses == labels).sum()), seen + len(labels)
    print("held out", right, seen)
torch.save([parameter.detach() for parameter in accelerator.unwrap_model(model).parameters()], sys.argv[1])
"""
)


def test_a_loop_of_accelerate(work):
    lines, weights = plain(work, ACCELERATE)
    _, ranks = same_run(work, ACCELERATE, lines, weights, 2)
    assert "over 2 ranks: global batch 5" in ranks[0].err


LIGHTNING = (
    HEAD
    + """
import os, pathlib, warnings
warnings.simplefilter("ignore")
NAME as L
import torchmetrics
from torch.utils.data import DataLoader, IterableDataset
from torch import nn
import torch.nn.functional as F

class Points(Dataset):
    def __init__(self, rows):
        chance = torch.Generator().manual_seed(2)
        self.x = torch.randn(rows, 4, generator=chance)
        self.y = (self.x.sum(1) > 0).long()
    def __len__(self):
        return len(self.x)
    def __getitem__(self, row):
        return self.x[row], self.y[row]

class Stream(IterableDataset):
    def __iter__(self):
        points = Points(11)
        return (points[row] for row in range(11))

class Model(L.LightningModule):
    def __init__(self, by_hand):
        super().__init__()
        self.automatic_optimization = not by_hand
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        self.right = torchmetrics.MeanMetric()
    def training_step(self, batch, place):
        x, y = batch
        scores = self.net(x)
        loss = F.cross_entropy(scores, y)
        hits = (scores.argmax(-1) == y).float()
        self.right.update(hits)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("hits", hits.mean(), on_step=True, on_epoch=True)
        self.log("count", hits.sum(), reduce_fx="sum", on_step=False, on_epoch=True)
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss
    def on_train_epoch_end(self):
        print("right", float(self.right.compute()))
        self.right.reset()
    def on_train_batch_end(self, outputs, batch, place):
        print("step", float(self.trainer.callback_metrics["loss_step"]))
    def validation_step(self, batch, place):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net(x), y))
        self.log("val_hits", (self.net(x).argmax(-1) == y).float().mean())
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.3)

weights = []
for by_hand, data in ((False, Points(19)), (True, Points(10)), (False, Stream())):
    torch.manual_seed(1)
    model = Model(by_hand)
    folder = f"out{len(weights)}"
    best = L.callbacks.ModelCheckpoint(monitor="val_loss", save_top_k=1, dirpath=folder, filename="{epoch}-{val_loss:.3f}")
    trainer = L.Trainer(
        max_epochs=3, accelerator=DEVICE, devices="auto", callbacks=[best], logger=L.loggers.CSVLogger("logs"),
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        gradient_clip_val=None if by_hand else 0.5, accumulate_grad_batches=1 if by_hand else 2)
    shuffled = not isinstance(data, IterableDataset)
    trainer.fit(model, DataLoader(data, batch_size=4, shuffle=shuffled), DataLoader(Points(7), batch_size=3))
    shown([trainer.callback_metrics])
    print(trainer.world_size, pathlib.Path(best.best_model_path).name, sorted(os.listdir(folder)), trainer.log_dir)
    state = torch.load(best.best_model_path, weights_only=False)["state_dict"]
    weights += [*state.values(), *(parameter.detach() for parameter in model.parameters())]
print(open("logs/lightning_logs/version_0/metrics.csv").read())
torch.save(weights, sys.argv[1])
"""
)


@pytest.mark.parametrize("name", ["import lightning.pytorch", "import pytorch_lightning"])
def test_the_trainer_of_lightning(work, name):
    script = LIGHTNING.replace("NAME", name)
    lines, weights = plain(work, script.replace("DEVICE", "'cpu'"))
    _, ranks = same_run(work, script.replace("DEVICE", "'gpu'"), lines, weights, 2)
    assert "over 2 ranks: global batch 4" in ranks[0].err
    assert ranks[0].err.count("self-check of the first step: loss") == 1


# Written for one device, without the line: `--parallel auto` must find it one, also where Slurm's variables say otherwise.
WITHOUT_THE_LINE = (
    LIGHTNING.replace("lumi_moai.enable_advanced_parallelization()", "").split("weights = []")[0]
    + """
import torch.distributed
print(os.environ.get("RANK"), os.environ.get("SLURM_NTASKS"), "SLURM_JOB_ID" in os.environ)
from accelerate import PartialState
assert PartialState().num_processes == 1
def is_initialized():
    return torch.distributed.is_initialized()
assert not is_initialized()
trainer = L.Trainer(max_epochs=1, enable_progress_bar=False, logger=False, enable_checkpointing=False)
print(trainer.world_size, trainer.num_devices, type(trainer.strategy).__name__)
torch.manual_seed(0)
model = Model(False)
trainer.fit(model, DataLoader(Points(6), batch_size=3))
"""
)


def test_a_script_without_the_line_finds_one_device_under_slurm(work):
    script = WITHOUT_THE_LINE.replace("NAME", "import lightning.pytorch")
    run = Run(work, launch(2, launcher="srun"), Wishes(mode="auto"))
    ranks = run.ranks(slurm(2), run.script(script))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err + ranks[1].err
    assert ranks[0].out.splitlines()[:2] == ["None None True", "1 1 SingleDeviceStrategy"]
    assert "global batch 3 is 1 or 2 rows a rank" in ranks[0].err


REFUSED = """
import lumi_moai
lumi_moai.enable_advanced_parallelization()
from lumi_moai.errors import RequestError
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from transformers import TrainingArguments
import lightning.pytorch as L

for ask in (
    lambda: Accelerator(fsdp_plugin=FullyShardedDataParallelPlugin()),
    lambda: TrainingArguments("out", fsdp=True),
    lambda: TrainingArguments("out", deepspeed={"zero_optimization": {"stage": 3}}),
    lambda: TrainingArguments("out", auto_find_batch_size=True),
    lambda: L.Trainer(devices=2, accelerator="cpu"),
    lambda: L.Trainer(strategy="ddp", accelerator="cpu"),
    lambda: L.Trainer(num_nodes=2),
):
    try:
        ask()
        print("nothing said")
    except RequestError as error:
        print(error)
"""


def test_a_distributed_mode_of_a_library_is_refused(work):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(REFUSED))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    asked = [line.partition(", ")[0].removeprefix("the script asks for ") for line in ranks[0].out.splitlines()]
    assert asked == [
        "Accelerator(fsdp_plugin=...)",
        "TrainingArguments(fsdp=...)",
        "TrainingArguments(deepspeed=...)",
        "auto_find_batch_size would change the global batch when one rank runs out of memory; leave it out",
        "Trainer(devices=2)",
        "Trainer(strategy='ddp')",
        "Trainer(num_nodes=2)",
    ]
    assert ranks[0].out.count("submit the script with --parallel script") == 6


def test_only_the_variables_of_ranks_are_hidden():
    gone = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE TORCHELASTIC_RUN_ID SLURM_PROCID SLURM_NTASKS SLURM_NTASKS_PER_NODE"
    gone = [*gone.split(), "SLURM_STEP_NUM_TASKS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"]
    kept = ["SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "MASTER_ADDR", "OMP_NUM_THREADS", "MY_RANK", "SLURM_CPUS_PER_TASK"]
    environ = dict.fromkeys([*gone, *kept], "1")
    environment.hide(environ)
    assert sorted(environ) == sorted(kept)


def test_several_calls_wait_for_several_modules(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("late_one", "late_two"):
        (tmp_path / f"{name}.py").write_text("here = True\n")
    said = []
    for word in ("a", "b"):
        late.after_import("late_one", lambda word=word: said.append(f"one {word} {sys.modules['late_one'].here}"))
    late.after_import("late_two", lambda: said.append("two"))
    from importlib.util import find_spec

    assert find_spec("late_one") is not None  # to ask is not to import
    assert said == []
    import late_one
    import late_two

    assert said == ["one a True", "one b True", "two"]
    assert late_one.__spec__.loader is late_one.__loader__
    assert type(late_two.__loader__).__name__ == "SourceFileLoader"
    late.after_import("late_one", lambda: said.append("at once"))
    assert said[-1] == "at once"


def test_a_call_waits_for_a_module_that_is_being_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "late_big.py").write_text("import late_small\nready = True\n")
    (tmp_path / "late_small.py").write_text("")
    late.expect("late_big")
    said = []
    late.after_import(
        "late_small", lambda: late.after_import("late_big", lambda: said.append(sys.modules["late_big"].ready))
    )
    import late_big

    assert said == [late_big.ready]
