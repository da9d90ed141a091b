"""Whole logs in the manner of many programs and their versions, each with what a reader by hand extracts; written by us."""

import io
import math
import time

import pytest
from test_logs_columns import both
from test_logs_nasty import read

from lumi_moai.logs.series import read_series

TOKENS, SAMPLES = "tokens_per_second", "samples_per_second"
TENS = range(10, 81, 10)
CASES = {}


def case(name, line, *, steps=range(1, 9), epochs=(None,), head="", tail="", **want):
    """A log of *line* for each step of each epoch, whose loss falls to 1.5, between *head* and *tail*."""
    lines = [line.format(n=n, loss=9.5 - 8 * n / steps[-1], e=e) + "\n" for e in epochs for n in steps]
    CASES[name] = (head + "".join(lines) + tail, {"records": len(lines), "loss_last": 1.5, **want})


def said(log):
    rate, tokens = log.throughput, log.tokens_per_second
    found = {name: getattr(log, name) for name in vars(log)}
    found["throughput"] = rate and (rate.median, rate.unit, rate.scope)
    found["tokens"] = tokens and tokens.median
    found["outcome"] = log.evidence and log.evidence.outcome
    return found


def same(found, wanted):
    if isinstance(wanted, tuple):
        return found is not None and same(found[0], wanted[0]) and found[1:] == wanted[1:]
    if isinstance(wanted, float) and isinstance(found, int | float):
        return math.isclose(found, wanted, rel_tol=1e-6)
    return found == wanted


MEGATRON = " iteration {n:8d}/     500 | consumed samples: 256 | elapsed time per iteration (ms): 4508.5 |"

case("Megatron-LM of 2025, every ten steps", " [2025-05-10 10:10:10.123456]" + MEGATRON + " throughput per GPU (TFLOP/s/GPU): 411.2 |"
     " learning rate: 1.5E-06 | global batch size:   256 | lm loss: {loss:.6E} | load_balancing_loss: 1.0E+00 | loss scale: 1.0 |"
     " grad norm: 1.1 | num zeros: 12.0 | number of skipped iterations:   0 | number of nan iterations:   0 |", steps=TENS,
     head="  global_batch_size ............................... 256\n  seq_length ...................................... 4096\n",
     tail=" validation loss at iteration 80 | lm loss value: 1.4E+00 | lm loss PPL: 4.1E+00 | \n",
     format="megatron", total_steps=500, step_seconds=4.5085, tflops=411.2, tokens=256 * 4096 / 4.5085)  # fmt: skip
case("nanoGPT, every ten steps", "iter {n}: loss {loss:.4f}, time 561.94ms, mfu 30.10%", steps=TENS,
     head="tokens per iteration will be: 491,520\nstep 0: train loss 10.9, val loss 10.95\n",
     format="nanogpt", step_seconds=0.56194, mfu=0.301, tokens=491520 / 0.56194)  # fmt: skip
case("detectron2, every twenty steps", "[01/01 10:00:00 d2.utils.events]:  eta: 1 day, 0:14:11  iter: {n}  total_loss: {loss:.4g}"
     "  loss_cls: 1.169  time: 0.4365  last_time: 0.44  data_time: 0.0166  last_data_time: 0.01   lr: 1.6e-05  max_mem: 5120M",
     steps=range(19, 180, 20), tail="[01/01 10:00:00 d2.engine.hooks]: Total training time: 0:01:11 (0:00:10 on hooks)\n",
     format="detectron2", first_step=19, last_step=179, step_seconds=0.4365, memory_gib=5.0, outcome="completed")  # fmt: skip
case("megatron 2019", " iteration {n:8d}/ 1000000 | elapsed time per iteration (ms): 529.0 | learning rate 1.000E-05 | lm loss {loss:.6E} | loss scale 65536.0 |", steps=TENS,
     format="megatron", records=8, first_step=10, last_step=80, total_steps=1000000, loss_last=1.5, step_seconds=.529)  # fmt: skip
case("megatron bert 2020", " iteration {n:8d}/ 1000000 | elapsed time per iteration (ms): 529.0 | learning rate: 1.000E-05 | lm loss: {loss:.6E} | sop loss: 6.9E-01 | loss scale: 65536.0 | number of skipped iterations:   0 | number of nan iterations:   0 |\ntime (ms) | forward: 100.0 | backward: 200.0 | optimizer: 9.0", steps=TENS,
     format="megatron", records=8, last_step=80, loss_last=1.5, step_seconds=.529)  # fmt: skip
case("megatron vision", " iteration {n:8d}/  500000 | consumed samples: 1024 | elapsed time per iteration (ms): 529.0 | learning rate: 1.000E-05 | global batch size:  1024 | loss: {loss:.6E} | loss scale: 1.0 | grad norm: 0.5 | number of skipped iterations:   0 |", steps=TENS,
     format="megatron", records=8, loss_last=1.5)  # fmt: skip
case("megatron retriever", " iteration {n:8d}/  500000 | consumed samples: 1024 | elapsed time per iteration (ms): 529.0 | learning rate: 1.000E-05 | global batch size:  1024 | loss scale: 1.0 | retrieval loss: {loss:.6E} | top1_acc: 4.0E-01 |", steps=TENS,
     format="megatron", records=8, loss_last=1.5)  # fmt: skip
case("megatron energy", " [2025-05-10 10:10:10.123456] iteration {n:8d}/     500 | consumed samples:          256 | elapsed time per iteration (ms): 4508.5 | throughput per GPU (TFLOP/s/GPU): 411.2 | energy per GPU (J/iter/GPU): 1811.1 | power per GPU (W/GPU): 611.1 | learning rate: 1.500000E-06 | global batch size:   256 | lm loss: {loss:.6E} | mtp_1 loss: 1.0E+01 |", steps=TENS,
     format="megatron", records=8, loss_last=1.5)  # fmt: skip
case("megatron-deepspeed ms", " iteration {n:8d}/     500 | consumed samples:          256 | consumed tokens:       524288 | elapsed time per iteration (ms): 45110.5 | learning rate: 1.500E-06 | global batch size:   256 | lm loss: {loss:.6E} | grad norm: 10.123 | num zeros: 0.0 | actual seqlen:  2048 | number of skipped iterations:   0 | number of nan iterations:   0 | samples per second: 5.675 | tokens per gpu per second (tgs): 1452.8 | TFLOPs: 101.25 |",
     format="megatron-deepspeed", records=8, loss_last=1.5, tflops=101.25, throughput=(5.675, SAMPLES, "total"))  # fmt: skip
case("deepspeed logdist", "[2023-01-01 10:00:00,123] [INFO] [logging.py:96:log_dist] [Rank 0] step={n}, skipped=0, lr=[1e-05], mom=[(0.9, 0.999)]\n[2023-01-01 10:00:00,124] [INFO] [timer.py:260:stop] epoch=0/micro_step={n}/global_step={n}, RunningAvgSamplesPerSec=31.1, CurrSamplesPerSec=31.9, MemAllocated=3.96GB, MaxMemAllocated=9.5GB", steps=TENS,
     format="deepspeed", loss_last=None, records=8, last_step=80, throughput=(31.9, SAMPLES, "total"), memory_gib=9.5)  # fmt: skip
case("deepspeed old timer", "[2021-01-01 10:00:00,124] [INFO] [timer.py:154:stop] 0/{n}, SamplesPerSec=31.9", steps=TENS,
     format="deepspeed", loss_last=None, records=8, last_step=80, throughput=(31.9, SAMPLES, "total"))  # fmt: skip
case("deepspeed old timer 2022", "[2022-01-01 10:00:00,124] [INFO] [timer.py:197:stop] 0/{n}, RunningAvgSamplesPerSec=31.1, CurrSamplesPerSec=31.9, MemAllocated=3.96GB, MaxMemAllocated=9.5GB", steps=TENS,
     format="deepspeed", loss_last=None, records=8, last_step=80, throughput=(31.9, SAMPLES, "total"), memory_gib=9.5)  # fmt: skip
case("deepspeed + script loss", "[2023-01-01 10:00:00,124] [INFO] [timer.py:260:stop] epoch=0/micro_step={n}/global_step={n}, RunningAvgSamplesPerSec=31.1, CurrSamplesPerSec=31.9, MemAllocated=3.96GB, MaxMemAllocated=9.5GB\nstep {n} loss {loss:.4f}", steps=TENS,
     records=8, last_step=80, loss_last=1.5)  # fmt: skip
case("nanotron labelled k", "0: 07/28/2025 10:00:00 [INFO|DP=0|PP=0|TP=0|nid1]: iteration: {n} / 1000 | consumed_tokens: 1.05M | elapsed_time_per_iteration_ms: 1.25K | tokens_per_sec: 850K | tokens_per_sec_per_gpu: 13.3K | global_batch_size: 1.02K | lm_loss: {loss:.2f} | lr: 0.0001 | model_tflops_per_gpu: 120 | hardware_tflops_per_gpu: 130 | grad_norm: 0.7 | cuda_memory_allocated: 4.1G | cuda_max_memory_reserved: 9.4G | hd_total_memory_tb: 1.1T",
     format="nanotron", records=8, loss_last=1.5, step_seconds=1.25, throughput=(850000, TOKENS, "total"), tflops=120)  # fmt: skip
case("olmo1", "2024-01-01 10:00:00.123\tnid1:0\tolmo.train:816\tINFO\t[step={n}/739328,epoch=0]\n    optim/total_grad_norm=3.1\n    train/CrossEntropyLoss={loss:.3f}\n    train/Perplexity=45,692\n    throughput/total_tokens=8,388,608\n    throughput/total_training_Gflops=1,2\n    throughput/device/tokens_per_second=9,538\n    throughput/device/batches_per_second=0.0023\n    System/Peak GPU Memory (MB)=44,123",
     format="olmo", records=8, loss_last=1.5, throughput=(9538, TOKENS, "per_device"), memory_gib=44123e6 / 2**30)  # fmt: skip
case("olmo-core v2", "2025-03-01 12:00:00.123\thost:0\tolmo_core.train.callbacks.console_logger:120\tINFO\t[step={n}/1000,epoch=1,eta=1 day, 2:03:04]\n    optim/LR (group 0)=0.0001\n    optim/total grad norm=3.1\n    system/GPU active mem (GiB)=41.5\n    system/GPU reserved mem (GiB)=51.5\n    throughput/device/BPS=0.5\n    throughput/device/BPS (actual avg)=0.4\n    throughput/device/MFU=41.5\n    throughput/device/TPS=17,123\n    throughput/device/TPS (actual avg)=17,000\n    throughput/total tokens=4,194,304\n    train/CE loss={loss:.4f}\n    train/PPL=10,000\n    train/Z loss=0.0001",
     format="olmo", records=8, total_steps=1000, loss_last=1.5, throughput=(17123, TOKENS, "per_device"), mfu=.415, memory_gib=41.5)  # fmt: skip
case("lightning 1.5", "\rEpoch {e}:  {n}%|1    | {n}/100 [00:10<01:20,  2.00it/s, loss={loss:.3g}, v_num=12345]", epochs=(0,1), steps=range(10,101,10),
     format="lightning", records=20, new_epochs=1, restarts=0, total_steps=100, step_seconds=.5, loss_last=1.5)  # fmt: skip
case("lightning 2", "\rEpoch {e}:  {n}%|1    | {n}/100 [00:50<01:20,  2.00it/s, v_num=0, train/loss_step={loss:.3f}, train/loss_epoch=2.1, val/loss=3.1]", epochs=(0,1), steps=range(10,101,10),
     format="lightning", records=20, new_epochs=1, restarts=0, loss_last=1.5)  # fmt: skip
case("lightning 2 s/it", "\rEpoch {e}:  {n}%|1    | {n}/100 [00:50<01:20,  0.50s/it, v_num=abcd, train_loss_step={loss:.3f}, lr=1e-5]\rValidation:   0%|          | 0/10 [00:00<?, ?it/s]\rValidation DataLoader 0:  50%|##   | 5/10 [00:50<01:20,  2.00it/s]", epochs=(0,1), steps=range(10,101,10),
     format="lightning", records=20, new_epochs=1, restarts=0, step_seconds=.5, loss_last=1.5)  # fmt: skip
case("lightning it/s k", "\rEpoch {e}: |          | {n}/? [00:50<00:00,  2.00it/s, v_num=0, train_loss={loss:.3f}]", epochs=(0,), steps=range(10,101,10),
     records=10, last_step=100, loss_last=1.5)  # fmt: skip
case("lightning rich", "Epoch {e}/9  ━━━━╸━━━━━━━ {n}/100 0:00:01 • 0:00:12 2.00it/s v_num: 0.000 train/loss_step: {loss:.3f}", epochs=(0,1), steps=range(10,101,10),
     format="lightning-rich", records=20, new_epochs=1, loss_last=1.5, step_seconds=.5)  # fmt: skip
case("litgpt 2023", "iter {n} step {n}: loss {loss:.4f}, iter time: 548.72ms (optimizer.step)",
     format="litgpt", records=8, last_step=8, loss_last=1.5, step_seconds=.54872)  # fmt: skip
case("tinyllama", "iter {n} step {n}: loss {loss:.4f}, iter time: 548.72ms (optimizer.step) remaining time: 10.11 hours. \n or 0.42 days. ",
     records=8, last_step=8, loss_last=1.5, step_seconds=.54872)  # fmt: skip
case("composer bar", "\rtrain          Epoch   0:    {n}%|####      | {n}/100 [00:17<07:23,  2.00ba/s, loss/train/total={loss:.4f}]", steps=range(10,101,10),
     records=10, last_step=100, total_steps=100, loss_last=1.5)  # fmt: skip
case("composer bar 2", "\rtrain          Epoch   {e}:   {n}%|####                     | {n}/100 [00:17<07:23,  2.00ba/s, loss/train/total={loss:.4f}, metrics/train/LanguageCrossEntropy=2.1]\reval           Epoch   {e}:    5%|#   | 1/20 [00:00<00:00, 5.00ba/s, metrics/eval/Accuracy=0.1]", steps=range(10,101,10), epochs=(0,1),
     records=20, last_step=100, total_steps=100, loss_last=1.5, new_epochs=1, restarts=0)  # fmt: skip
case("nanogpt", "iter {n}: loss {loss:.4f}, time 561.94ms, mfu 30.10%", head="number of parameters: 123.59M\ntokens per iteration will be: 491,520\nstep 0: train loss 10.9, val loss 10.95\n", steps=TENS,
     format="nanogpt", records=8, loss_last=1.5, step_seconds=.56194, mfu=.301)  # fmt: skip
case("llm.c early", "step {n:4d}/74: train loss {loss:.6f} (acc 1.0) (12.3 ms, 12345 tok/s)", head="val loss 4.51\n",
     records=8, loss_last=1.5, total_steps=74, step_seconds=.0123, throughput=(12345., TOKENS, "total"))  # fmt: skip
case("llm.c 1", "step {n:4d}/74 | train loss {loss:.6f} | norm 1.1 | lr 6.00e-04 | 80.53 ms | 12.1% A100 fp16 MFU | 50868 tok/s", head="val loss 4.51\n",
     records=8, loss_last=1.5, total_steps=74, step_seconds=.08053, mfu=.121, throughput=(50868., TOKENS, "total"))  # fmt: skip
case("llama2.c", "{n} | loss {loss:.4f} | lr 5.0e-04 | 250.50ms | mfu 10.10%", head="step 0: train loss 10.4, val loss 10.4\n",
     records=8, first_step=1, last_step=8, loss_last=1.5, step_seconds=.2505, mfu=.101)  # fmt: skip
case("modded 2025", "step:{n}/2330 train_time:{n}30ms step_avg:130.01ms", tail="step:2330/2330 val_loss:3.2791 train_time:302000ms step_avg:129.6ms\npeak memory allocated: 31630 MiB reserved: 46800 MiB\n",
     format="modded-nanogpt-timing", loss_last=None, records=8, last_step=8, memory_gib=31630/1024)  # fmt: skip
case("timm 1.0", "Train: {e} [{n:>4d}/99 ({n:>3d}%)]  Loss: {loss:#.3g} ({loss:#.3g})  Time: 0.500s, 1024.00/s  (0.600s,  900.00/s)  LR: 1.000e-04  Data: 0.010 (0.030)", epochs=(0,1), steps=range(50,100,7),
     records=16, loss_last=1.5, throughput=(1024, SAMPLES, "total"), new_epochs=1)  # fmt: skip
case("torchvision", "Epoch: [{e}]  [{n:>4d}/1252]  eta: 0:02:08  lr: 0.5  img/s: 1024.5 (900.1)  loss: {loss:.4f} (9.1581)  acc1: 0.0 (0.1)  acc5: 0.7 (0.5)  time: 0.5601  data: 0.0091  max mem: 10240", epochs=(0,1), steps=TENS, tail="Epoch: [1] Total time: 0:10:01\nTest:   [ 0/98]  eta: 0:01:01  loss: 1.1 (1.1)  acc1: 1 (1)  time: 0.6  data: 0.4  max mem: 10240\nTest:  Acc@1 1.0 Acc@5 2.0\nTraining time 3:01:01\n",
     format="metriclogger", records=16, loss_last=1.5, step_seconds=.5601, memory_gib=10., throughput=(1024.5, SAMPLES, "total"), outcome="completed", new_epochs=1)  # fmt: skip
case("mmengine text 2023", "11/09 16:51:36 - mmengine - \x1b[5m\x1b[4m\x1b[37mINFO\x1b[0m - Epoch(train)  [{e}][{n:4d}/7330]  base_lr: 1.9e-02 lr: 1.9e-02  eta: 1 day, 13:14:51  time: 0.2980  data_time: 0.0051  memory: 5120  grad_norm: 1.1  loss: {loss:.4f}  loss_rpn_cls: 0.1", epochs=(1,2), steps=range(50,401,50), tail="11/09 16:51:36 - mmengine - INFO - Epoch(val)  [2][ 50/625]    eta: 0:00:21  time: 0.0373  data_time: 0.0008  memory: 500  \n",
     format="mmengine", records=16, loss_last=1.5, step_seconds=.298)  # fmt: skip
case("fairseq json", '2021-03-08 12:43:15 | INFO | train_inner | {{"epoch": 1, "update": 0.1, "loss": "{loss:.3f}", "ppl": "89530.6", "wps": "28100.7", "ups": "0.9", "wpb": "7000", "bsz": "200", "num_updates": "{n}", "lr": "4e-05", "gnorm": "3.1", "train_wall": "24", "gb_free": "9.3", "wall": "25"}}', steps=TENS,
     format="fairseq", records=8, last_step=80, loss_last=1.5, throughput=(28100.7, TOKENS, "total"))  # fmt: skip
case("fairseq tqdm", "\repoch 001:   {n}%|1    | {n}/4000 [00:24<10:24,  4.10it/s, loss={loss:.3f}, nll_loss=9.1, ppl=550, wps=28100.7, ups=4.1, wpb=7000, bsz=200, num_updates={n}, lr=4e-05, gnorm=3.1, train_wall=24, wall=25]", steps=TENS,
     records=8, last_step=80, loss_last=1.5)  # fmt: skip
case("keras 2 verbose 1", "\r {n}/206 [=>............................] - ETA: 10s - loss: {loss:.4f} - accuracy: 0.1", head="Epoch 1/2\n", steps=range(1,9), tail="\r206/206 [==============================] - 2s 12ms/step - loss: 1.5000 - accuracy: 0.9 - val_loss: 1.6 - val_accuracy: 0.5\nEpoch 2/2\n\r206/206 [==============================] - 2s 12ms/step - loss: 1.2500 - accuracy: 0.9 - val_loss: 1.6 - val_accuracy: 0.5\n",
     format="keras", records=2, last_step=206, loss_last=1.25, step_seconds=.012, restarts=0)  # fmt: skip
case("keras tf1", "60000/60000 [==============================] - 12s 200us/sample - loss: {loss:.4f} - acc: 0.9 - val_loss: 1.6 - val_acc: 0.5", head="Train on 60000 samples, validate on 10000 samples\nEpoch 1/8\n",
     records=8, loss_last=1.5, restarts=0)  # fmt: skip
case("keras us", "Epoch {n}/8\n1875/1875 [==============================] - 1s 501us/step - loss: {loss:.4f} - accuracy: 0.9",
     format="keras", records=8, loss_last=1.5, step_seconds=.000501)  # fmt: skip
case("keras 3 us", "Epoch {n}/8\n\x1b[1m1875/1875\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m\x1b[37m\x1b[0m \x1b[1m1s\x1b[0m 501us/step - accuracy: 0.8801 - loss: {loss:.4f}",
     format="keras-3", records=8, loss_last=1.5, step_seconds=.000501)  # fmt: skip
case("keras verbose 2 epochs", "Epoch {n}/8\n1875/1875 - 5s - 3ms/step - accuracy: 0.8801 - loss: {loss:.4f} - val_accuracy: 0.9 - val_loss: 0.1",
     format="keras-lines", records=8, loss_last=1.5, step_seconds=.003, restarts=0)  # fmt: skip
case("keras tf1 verbose 2", "Epoch {n}/8\n - 5s - loss: {loss:.4f} - acc: 0.8801 - val_loss: 0.1 - val_acc: 0.9",
     records=8, loss_last=1.5)  # fmt: skip
case("axolotl 2025", "{{'loss': {loss:.4f}, 'grad_norm': 1.41, 'learning_rate': 5e-05, 'memory/max_mem_active(gib)': 21.5, 'memory/max_mem_allocated(gib)': 21.5, 'memory/device_mem_reserved(gib)': 30.1, 'epoch': 0.1}}",
     format="hf-trainer", records=8, loss_last=1.5, memory_gib=21.5)  # fmt: skip
case("hf 5 strings", "{{'loss': '{loss:.4f}', 'grad_norm': '1.41', 'learning_rate': '5e-05', 'epoch': '0.1'}}",
     format="hf-trainer", records=8, loss_last=1.5)  # fmt: skip
case("trl grpo", "{{'loss': {loss:.4f}, 'grad_norm': 1.41, 'learning_rate': 5e-05, 'num_tokens': 12345.0, 'completions/mean_length': 100.1, 'reward': 0.1, 'kl': 0.01, 'epoch': 0.1}}",
     format="hf-trainer", records=8, loss_last=1.5)  # fmt: skip
case("verl", "\x1b[36m(TaskRunner pid=12345)\x1b[0m step:{n} - global_seqlen/min:1234 - actor/pg_loss:{loss:.3f} - actor/kl_loss:0.001 - critic/score/mean:0.5 - perf/time_per_step:55.5 - perf/throughput:1234.5 - timing_s/step:55.5",
     records=8, last_step=8, step_seconds=55.5, throughput=(1234.5, TOKENS, "per_device"))  # fmt: skip
case("verl sft", "step:{n} - train/loss:{loss:.4f} - train/lr(1e-3):0.01 - train/time(s):2.5",
     records=8, last_step=8, loss_last=1.5, step_seconds=2.5)  # fmt: skip
case("openrlhf sft", "\rTrain step of epoch 0:   {n}%|1   | {n}/100 [00:10<01:00,  2.00s/it, gpt_loss={loss:.3f}, loss_mean=2.1, lr=1e-5]", steps=range(10,101,10),
     records=10, last_step=100, loss_last=1.5, step_seconds=2.0)  # fmt: skip
case("nemo 1", "\rEpoch 0: :   1%|1    | {n}/1000 [00:31<50:10, v_num=0, reduced_train_loss={loss:.2f}, global_step={n}.0, consumed_samples=256.0, train_step_timing in s=3.51]",
     records=8, last_step=8, loss_last=1.5, step_seconds=3.51)  # fmt: skip
case("espnet2", "[nid1] 2023-01-01 10:00:00,123 (trainer:762) INFO: {e}epoch:train:{n}-{n}9batch: iter_time=0.001, forward_time=0.1, loss_ctc=91.2, loss_att=51.2, acc=0.5, loss={loss:.3f}, backward_time=0.2, grad_norm=5.1, clip=100.000, loss_scale=1.000, optim_step_time=0.05, optim0_lr0=0.001, train_time=0.5", epochs=(1,2), steps=range(1,9), tail="[nid1] 2023-01-01 10:00:00,123 (trainer:357) INFO: 2epoch results: [train] iter_time=0.001, loss=63.1, train_time=0.5, time=10 minutes and 5.1 seconds, total_count=1600, gpu_max_cached_mem_GB=20.1, [valid] loss_ctc=50.1, loss=40.1, time=1 minute, total_count=20\n",
     format="espnet", records=16, first_epoch=1, last_epoch=2, loss_last=1.5, restarts=0, new_epochs=1)  # fmt: skip
case("opennmt", "[2023-01-01 10:00:00,123 INFO] Step {n}/ 1000; acc: 12.1; ppl: 1234.5; xent: {loss:.1f}; lr: 0.00012; sents:   12345; bsz: 3012/3512/123; 12345/14321 tok/s;     61 sec;", steps=TENS,
     records=8, last_step=80, total_steps=1000, loss_last=1.5)  # fmt: skip
case("opennmt 1", "[2020-01-01 10:00:00,123 INFO] Step {n}/ 1000; acc:  12.10; ppl: 1234.50; xent: {loss:.2f}; lr: 0.00012; 12345/14321 tok/s;     61 sec", steps=TENS,
     records=8, last_step=80, total_steps=1000, loss_last=1.5)  # fmt: skip
case("yolov8", "\r        {e}/3      7.21G      {loss:.3f}      2.123     1.2345         16        640:  {n}%|####      | {n}/100 [00:10<00:20,  5.00it/s]", epochs=(1,2,3), steps=range(10,101,10), head="      Epoch    GPU_mem   box_loss   cls_loss   dfl_loss  Instances       Size\n", tail="\r                 Class     Images  Instances      Box(P          R      mAP50  mAP50-95): 100%|##########| 4/4 [00:01<00:00,  2.00it/s]\n3 epochs completed in 0.010 hours.\n",
     records=30, last_step=100, first_epoch=1, last_epoch=3, restarts=0, new_epochs=2, loss_last=None, outcome="completed")  # fmt: skip
case("clu", "I0101 10:00:00.123456 140000 logging_writer.py:48] [{n}] accuracy=0.1, learning_rate=0.1, loss={loss:.4f}, steps_per_second=2.0",
     records=8, last_step=8, loss_last=1.5, step_seconds=.5)  # fmt: skip
case("clu report", "I0101 10:00:00.123456 140000 periodic_actions.py:95] Setting work unit notes: 2.0 steps/s, {n}.0% ({n}/100), ETA: 1m",
     records=0, loss_last=None)  # fmt: skip
case("t5x", "I0101 10:00:00.123456 140000 logging_writer.py:48] [{n}] collection=train accuracy=0.1, cross_ent_loss=12345.0, learning_rate=0.01, loss={loss:.4f}, timing/seconds=10.1, timing/seqs_per_second=100.5, timing/steps_per_second=2.0, timing/target_tokens_per_second=51200.5",
     records=8, last_step=8, loss_last=1.5)  # fmt: skip
case("torchtitan 2025", "[rank0]:[titan] 2025-09-01 10:00:00,123 - root - INFO - \x1b[31mstep: {n:2d}  \x1b[32mloss: {loss:8.5f}  \x1b[38;2;180;60;0mgrad_norm:  1.2345  \x1b[38;2;54;234;195mmemory: 40.50GiB(51.20%)  \x1b[34mtps: 8,512  \x1b[36mtflops: 142.50  \x1b[35mmfu: 45.67%\x1b[39m", steps=TENS,
     format="torchtitan", records=8, loss_last=1.5, tflops=142.5, mfu=.4567, memory_gib=40.5)  # fmt: skip
case("swin", "[2022-01-01 10:00:00 swin_tiny](main.py 200): INFO Train: [{e}/300][{n}/1251]\teta 0:10:10 lr 0.000014\t wd 0.0500\ttime 0.5000 (0.6000)\tloss {loss:.4f} (6.9)\tgrad_norm 1.1 (inf)\tloss_scale 65536.0000 (65536.0000)\tmem 5120MB", epochs=(0,1), steps=TENS,
     format="swin", records=16, loss_last=1.5, memory_gib=5.0, new_epochs=1)  # fmt: skip
COMPOSER = ("\n\t Train time/epoch: 0\n\t Train time/batch: {n}\n\t Train time/token: 4096\n\t Train memory/peak_active_mem: 21.47483648\n"
            "\t Train loss/train/total: {loss:.4f}\n\t Train throughput/tokens_per_sec: 104857.6\n"
            "\t Train throughput/device/tokens_per_sec: 13107.2\n\t Train throughput/device/mfu: 0.4012")  # fmt: skip
case("Composer by epochs", "[epoch={e}][batch={n}/8]:" + COMPOSER, epochs=(1, 2, 3), format="llm-foundry", total_steps=8, restarts=0,
     new_epochs=2, first_epoch=1, last_epoch=3, throughput=(104857.6, TOKENS, "total"), mfu=0.4012, memory_gib=20.0)  # fmt: skip
case("LLM Foundry by tokens", "[token={n}000/300000000]:" + COMPOSER, format="llm-foundry", last_step=8, total_steps=None,
     throughput=(104857.6, TOKENS, "total"))  # fmt: skip
case("Composer of 2022", "[epoch={e}][batch={n}/8]: loss/train/total: {loss:.4f}", epochs=(0, 1), format="composer", last_step=8,
     new_epochs=1, restarts=0)  # fmt: skip
case("Megatron's memory", MEGATRON + " lm loss: {loss:.6E} |\n[Rank 0] (after 1{n} iterations) memory (MB) | allocated: 1100.5 |"
     " max allocated: 20480.0 | reserved: 22000.0 | max reserved: 22000.0", format="megatron", memory_gib=20.0)  # fmt: skip
case("Lightning's CSVLogger", "{e},,{n},,{loss},\n{e},0.1,{n},,,\n{e},,{n},,,9.0", steps=range(49, 400, 50), epochs=(0,), head="epoch,lr,step,train_loss_epoch,train_loss_step,val_loss\n",
     tail="0,,399,4.4,,\n1,,449,,1.5,\n1,,499,,9", records=9, format="csv", first_step=49, last_step=449, restarts=0, last_epoch=1)  # fmt: skip
case("Lightning's CSVLogger by epochs", "{e},{n}99,{loss}\n{e},{n}99,", epochs=(3,), head="epoch,step,train_loss_epoch\r\n", format="csv", first_step=199,
     last_step=899)  # fmt: skip
case("Keras' CSVLogger", "{n},0.5,{loss},0.4,9.9", head="\ufeffepoch,accuracy,loss,val_accuracy,val_loss\r\n", format="csv", last_step=None, first_epoch=1,
     last_epoch=8, restarts=0)  # fmt: skip
case("timm's summary.csv", "{n},{loss},9.9,50.5,0.1", head="epoch,train_loss,eval_loss,eval_top1,lr\n", format="csv", last_epoch=8)  # fmt: skip
case("a table of data", "{n},{loss},cat", head="step,height,name\n", records=0, loss_last=None, format=None)  # fmt: skip
case("mindspore","epoch: 1 step: {n}, loss is {loss:.4f}", records=8, last_step=8, loss_last=1.5)  # fmt: skip
case("dllogger","DLL 2020-01-01 10:00:00.123456 - Epoch: {e} Iteration: {n}  step_loss : {loss:.4f} learning_rate : 0.001", epochs=(0,1), records=16, last_step=8, loss_last=1.5, restarts=0)  # fmt: skip
case("dllogger bert","DLL 2020-01-01 10:00:00.123456 - Training Epoch: {e} Training Iteration: {n}  average_loss : 2.1 step_loss : {loss:.4f} learning_rate : 0.001", epochs=(0,1), records=16, last_step=8, loss_last=1.5, restarts=0)  # fmt: skip
case("levanter","Progress on:train {n}it/100it\trate:2.0it/s remaining:01:00 elapsed:00:10 postfix:loss={loss:.4f}", records=8, last_step=8, loss_last=1.5, step_seconds=.5)  # fmt: skip
case("paddlenlp","[2023-01-01 10:00:00,123] [    INFO] - loss: {loss:.4f}, learning_rate: 1e-05, global_step: {n}, current_memory_allocated: 5.1, interval_runtime: 1.5, interval_samples_per_second: 31.5, interval_steps_per_second: 0.65, progress_or_epoch: 0.1", records=8, last_step=8, loss_last=1.5, throughput=(31.5,SAMPLES,"total"))  # fmt: skip
case("colossalai","\rEpoch {e}:  10%|1 | {n}/100 [00:10<01:00,  2.00s/it, Loss={loss:.4f}]", epochs=(0,1), records=16, loss_last=1.5, step_seconds=2.0, restarts=0)  # fmt: skip
case("minGPT","iter_dt 12.34ms; iter {n}: train loss {loss:.5f}", records=8, last_step=8, loss_last=1.5)  # fmt: skip
case("picotron","[rank 0] Step: {n:<5d} | Loss: {loss:6.4f} | Global batch size: 1.05M | Tokens/s: 12.5K | Tokens/s/GPU: 1.6K | Tokens: 1.05M | MFU: 41.23% | Memory usage:  40.12GB", records=8, last_step=8, loss_last=1.5, throughput=(12500,TOKENS,"total"), mfu=.4123)  # fmt: skip
case("gpt-fast / plain tps gpu","step {n}: loss {loss:.4f}, 512.5 tokens/s/gpu", records=8, last_step=8, throughput=(512.5,TOKENS,"per_device"))  # fmt: skip
case("lingua/meta","0: INFO    24-11-01 10:00:00.123 - 0:01:00 - step: {n}  acc: 0  loss:  {loss:.4f}  grad: 1.1e+00  flops: 4.12e+14  wps: 1.25e+04  iter: 0.5  data: 0.01  lr: 1e-04  mem: 40%  pow: 611.1 W", records=8, last_step=8, loss_last=1.5)  # fmt: skip
case("DiT","[2023-01-01 10:00:00] (step={n:07d}) Train Loss: {loss:.4f}, Train Steps/Sec: 2.00", records=8, last_step=8, loss_last=1.5)  # fmt: skip
case("flax imagenet","I1101 10:00:00.123456 140 logging_writer.py:48] [{n}] steps_per_second=2.0, train_accuracy=0.1, train_learning_rate=0.1, train_loss={loss:.4f}", records=8, last_step=8, loss_last=1.5, step_seconds=.5)  # fmt: skip
case("xtuner v1","[XTuner][RANK 0][2024-11-01 10:00:00][INFO] [Train] (Epoch 1) Step {n}/1000  lr: 0.000020  loss: {loss:.3f}  loss(reduced): 2.1  grad_norm: 1.1  max_memory: 40.1GB  text_tokens: 8192  tgs: 1234  data_time: 0.01s  time: 0.50s  eta: 1:00:00", records=8, last_step=8, loss_last=1.5)  # fmt: skip
case("lit-llama", "iter {n}: loss {loss:.4f}, time: 548.72ms, speed: 7500 toks/s/device",
     records=8, last_step=8, loss_last=1.5, step_seconds=.54872, throughput=(7500, TOKENS, "per_device"))  # fmt: skip
case("unsloth","{{'loss': {loss:.4f}, 'grad_norm': 1.1, 'learning_rate': 1e-05, 'epoch': {n}.01}}", head="==((====))==  Unsloth - 2x faster free finetuning | Num GPUs = 1\n", records=8, loss_last=1.5)  # fmt: skip
case("speechbrain","epoch: {n}, lr: 1.00e+00 - train loss: {loss:.2f} - valid loss: 9.1, valid CER: 5.1", records=8, loss_last=1.5, last_epoch=8)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_log_of_a_program(name):
    text, want = CASES[name]
    found = said(read(text))
    assert {key: found[key] for key in want if not same(found[key], want[key])} == {}


@pytest.mark.parametrize("name", CASES)
def test_columns_say_what_patterns_say(name):
    plain, quick = both(CASES[name][0].encode())
    assert plain == quick


LABELS = ("{rank}: ", "[rank{rank}]:", "[default{rank}]:", "[1,{rank}]<stdout>:", "0: [default{rank}]:")
MANY = [*((label, (0, 3)) for label in LABELS), (LABELS[0], (0,)), (LABELS[2], (0,))]
LABELLED = [name for name in CASES if CASES[name][1].get("format") != "csv"]


@pytest.mark.parametrize(("label", "ranks"), MANY)
@pytest.mark.parametrize("name", LABELLED)
def test_labels_of_launchers(name, label, ranks):
    text, want = CASES[name]
    lines = [label.format(rank=rank) + line + "\n" for line in text.removesuffix("\n").split("\n") for rank in ranks]
    found = said(read("".join(lines)))
    want = {**want, "records": want["records"] * len(ranks)}
    assert {key: found[key] for key in want if not same(found[key], want[key])} == {}


@pytest.mark.parametrize("label", LABELS)
def test_a_chart_shows_one_rank_of_several(label):
    text = "".join(f"{label.format(rank=rank)}step {step} loss 2.5\n" for step in range(1, 9) for rank in (3, 7))
    (start,) = read_series(io.BytesIO(text.encode())).starts
    assert (start.first_step, start.last_step, start.records) == (1, 8, 8)


def test_a_rank_whose_label_was_lost_on_a_line_is_still_the_one_that_counts():
    text = "step 4 loss 9.0\n" + "".join(f"{rank}: step {step} loss 2.5\n" for step in range(1, 9) for rank in (1, 0))
    log = read(text)
    assert (log.restarts, log.last_step, log.loss_last, log.notes["ranks_logged"]) == (0, 8, 2.5, 2)


def test_a_rank_that_begins_to_log_later_is_no_part_of_the_first():
    alone = "".join(f"0: step {step} loss 2.5 {'x' * 90}\n" for step in range(1, 4000))
    both_ = "".join(f"{rank}: step {step} loss 2.5\n" for step in range(4000, 4100) for rank in (1, 0))
    log = read(alone + both_)
    assert (log.restarts, log.first_step, log.last_step) == (0, 1, 4099)


def test_the_clock_of_lines_with_labels():
    assert read("0: 2025-01-01 10:00:00 a\n0: 2025-01-01 10:00:05 b\n").elapsed_seconds == 5


@pytest.mark.parametrize(
    "name", ["torchtitan 2025", "torchvision", "openrlhf sft", "fairseq json", "llm.c early", "litgpt 2023"]
)
def test_a_long_line_of_torn_steps_is_read_in_time(name):
    """Each of these took minutes for a line of 40 KB: every torn step looked for its values to the line's end."""
    text = CASES[name][0]
    line = max(text.split("\n"), key=len)
    torn = line[: len(line) // 2] * (40_000 // len(line))
    begun = time.process_time()
    read(f"{text}{torn}\n")
    assert time.process_time() - begun < 5


def goes_on(text, wanted):
    """Whether a log's start over shows: it has records that are numbered from the beginning, and is no table."""
    begins = ("'epoch': 0.1", "'epoch': '0.1'", "Epoch 1/8\n60000")  # which have one epoch only
    return wanted["records"] and wanted.get("format") != "csv" and not any(word in text for word in begins)


@pytest.mark.parametrize("name", [name for name in CASES if goes_on(*CASES[name][:2])])
def test_a_log_that_a_requeue_appended_to_is_two_starts(name):
    text = CASES[name][0]
    once, twice = (
        read(text),
        read(
            text + "slurmstepd: error: *** JOB 9 ON n CANCELLED AT 2024-05-20T16:13:38 DUE TO JOB REQUEUE ***\n" + text
        ),
    )
    assert (twice.records, twice.restarts) == (2 * once.records, 2 * once.restarts + 1)
    assert (twice.last_step, twice.last_epoch, twice.new_epochs) == (
        once.last_step,
        once.last_epoch,
        2 * once.new_epochs,
    )


def test_epochs_of_a_trainer_without_steps_that_go_back_are_a_restart():
    line = "{{'loss': 2.5, 'grad_norm': 1.1, 'learning_rate': 1e-05, 'epoch': {}}}\n"
    log = read("".join(line.format(epoch) for epoch in (0.1, 0.1, 0.2, 0.3, 0.2, 0.3, 0.4)))
    assert (log.records, log.restarts, log.new_epochs, log.last_epoch) == (7, 1, 0, None)


def test_a_chart_of_a_trainer_without_steps_goes_back_as_its_epochs_do():
    line = "{{'loss': 2.5, 'grad_norm': 1.1, 'learning_rate': 1e-05, 'epoch': {}}}\n"
    text = "".join(line.format(step / 100) for step in (*range(1, 41), *range(21, 61)))
    first, second = read_series(io.BytesIO(text.encode())).starts
    assert [(start.first_step, start.last_step) for start in (first, second)] == [(1, 40), (21, 60)]


def test_the_epochs_of_keras_stand_ahead_of_its_bars():
    bar = "{0}/206 [==>...] - ETA: 1s - loss: 9.9\n206/206 [=====] - 2s 12ms/step - loss: 1.5 - val_loss: 1.6\n"
    log = read("".join(f"Epoch {epoch}/9\n{bar.format(50)}" for epoch in (1, 2, 3, 2)))
    assert (log.records, log.first_epoch, log.last_epoch, log.restarts) == (4, 1, 2, 1)


def test_a_line_of_sixty_losses_is_a_step_and_no_epoch():
    """As DETR prints them: what MetricLogger says of the time stands behind all."""
    losses = "  ".join(f"loss_ce_{place}_unscaled: 4.7096 (4.6896)" for place in range(60))
    line = "Epoch: [0]  [{:>3}/128]  eta: 0:02:08  loss: {} (56.1581)  {}  time: 0.5601  data: 0.0091  max mem: 7000\n"
    log = read("".join(line.format(step, 70.0 - step, losses) for step in (0, 10, 20)))
    assert (log.format, log.records, log.first_step, log.last_step, log.loss_last) == ("metriclogger", 3, 0, 20, 50.0)
