"""Step lines as programs of our time print them, of other versions than the recorded ones; all written by us."""

import pytest
from test_logs_columns import both
from test_logs_nasty import read

TOKENS, SAMPLES = "tokens_per_second", "samples_per_second"
# What a log is made of (n is 1 to 8), its format, last step, total, last loss, seconds of a step, rate, mfu, memory.
LOGS = {
    "llm.c": (
        "step {n:4d}/19560 | loss {loss:.6f} (+1.23z)| norm 9.1 (+0.1z)| lr 6.86e-07 | 338.51 ms | 50.0% bf16 MFU | 155123 tok/s",
        ("plain", 8, 19560, 1.5, 0.33851, (155123.0, TOKENS), 0.5, None)),
    "build-nanogpt": (
        "step {n:5d} | loss: {loss:.6f} | lr 1.2000e-04 | norm: 1.1123 | dt: 339.50ms | tok/sec: 154571.12",
        ("plain", 8, None, 1.5, 0.3395, (154571.12, TOKENS), None, None)),
    "nanochat": (
        "step {n:05d}/21400 (0.04%) | loss: {loss:.6f} | lrm: 1.00 | dt: 335.02ms | tok/sec: 1,561,432 | mfu: 47.10 | total time: 0.1m",
        ("plain", 8, 21400, 1.5, 0.33502, (1561432.0, TOKENS), 0.471, None)),
    "modded-nanogpt without losses": (
        "step:{n}/1770 train_time:{n}30ms step_avg:130.01ms", ("modded-nanogpt-timing", 8, 1770, None, 0.13001, None, None, None)),
    "a DeepSpeed pipeline": (
        "steps: {n} loss: {loss:.4f} iter time (s): 0.515 samples/sec: 31.5\n"
        "[2024-01-01 10:00:00,123] [INFO] [logging.py:96:log_dist] [Rank 0] step={n}, skipped=0, lr=[1e-05], mom=[(0.9, 0.999)]",
        ("plain", 8, None, 1.5, 0.515, (31.5, SAMPLES), None, None)),
    "torchtune": (
        "\r1|{n}|Loss: {loss:.16f}:   1%|1         | {n}/520 [00:01<08:12,  2.00it/s]",
        ("torchtune", 8, None, 1.5, 0.5, None, None, None)),
    "torchtune's metrics": (
        "Step {n} | loss:{loss} lr:2e-05 tokens_per_second_per_gpu:3001.5 peak_memory_active:18.5 peak_memory_alloc:18.4",
        ("torchtune-metrics", 8, None, 1.5, None, (3001.5, TOKENS), None, 18.5)),
    "OLMo-core": (
        "2025-03-01 12:00:00.123\tlr3-1:0\tolmo_core.train.callbacks.console_logger:120\tINFO\t[step={n}/1000,epoch=1,eta=1 day, 2:03:04]\n"
        "    optim/total grad norm=3.1\n    throughput/device/BPS=0.5\n    throughput/device/TPS=17,123\n"
        "    throughput/device/TPS (actual avg)=17,000\n    train/CE loss={loss:.4f}\n    train/PPL=10,000",
        ("olmo", 8, 1000, 1.5, None, (17123.0, TOKENS), None, None)),
    "LLaMA-Factory's lines of JSON": (
        '{{"current_steps": {n}, "total_steps": 80, "loss": {loss:.4f}, "lr": 2e-05, "epoch": 0.5, "elapsed_time": "0:00:01",'
        ' "throughput": 1234.5, "total_tokens": 81920}}',
        ("json-lines", 8, 80, 1.5, None, (1234.5, TOKENS), None, None)),
    "NeMo 2": (
        "Training epoch 0, iteration {n}/99 | lr: 1e-05 | global_batch_size: 128 | global_step: {n} | reduced_train_loss: {loss:.2f}"
        " | train_step_timing in s: 3.5 | consumed_samples: 1280",
        ("nemo", 8, 99, 1.5, 3.5, None, None, None)),
    "NeMo 1": (
        "\rEpoch 0: :   1%|1    | {n}/1000 [00:31<50:10, reduced_train_loss={loss:.2f}, global_step={n}.0, train_step_timing in s=3.51]",
        ("progress-bar", 8, 1000, 1.5, 3.51, None, None, None)),
    "diffusers": (
        "\rSteps:   1%|1     | {n}/1000 [00:31<50:10,  2.00it/s, lr=1e-5, step_loss={loss:.4f}]",
        ("progress-bar", 8, 1000, 1.5, 0.5, None, None, None)),
    "mmengine by iterations": (
        "2024/11/09 16:51:36 - mmengine - INFO - Iter(train) [{n:6d}/80000]  base_lr: 1.0e-02 lr: 9.9e-03  eta: 13:14:51"
        "  time: 0.5961  data_time: 0.0091  memory: 5120  loss: {loss:.4f}  decode.loss_ce: 1.7  decode.acc_seg: 50.1",
        ("mmengine-iter", 8, 80000, 1.5, 0.5961, None, None, 5.0)),
    "mmcv by iterations": (
        "2021-11-09 16:51:36,123 - mmseg - INFO - Iter [{n}/160000]\tlr: 5.988e-03, eta: 13:14:51, time: 0.298, data_time: 0.005,"
        " memory: 5120, decode.loss_ce: 1.7, loss: {loss:.4f}",
        ("mmengine-iter", 8, 160000, 1.5, 0.298, None, None, 5.0)),
    "mmengine with a base rate": (
        "2024/11/09 16:51:36 - mmengine - INFO - Epoch(train)  [1][{n:4d}/1000]  base_lr: 1.0000e-04 lr: 9.9e-05  eta: 13:14:51"
        "  time: 0.5961  data_time: 0.0091  memory: 5120  grad_norm: 5.1  loss: {loss:.4f}  loss_cls: 1.7",
        ("mmengine", 8, 1000, 1.5, 0.5961, None, None, 5.0)),
    "fairseq's simple lines": (
        "2024-01-01 10:00:00 | INFO | train_inner | epoch 001:    {n} / 4000 loss={loss:.3f}, nll_loss=9.1, ppl=550, wps=28100.7,"
        " ups=4.1, wpb=7000, bsz=200, num_updates={n}, lr=4e-05, gnorm=3.1, train_wall=24, wall=25",
        ("fairseq-simple", 8, None, 1.5, None, (28100.7, TOKENS), None, None)),
    "PyTorch's ImageNet example": (
        "Epoch: [0][{n:4d}/5005]\tTime  0.510 (  1.200)\tData  0.010 (  0.300)\tLoss {loss:.4e} (6.9300e+00)\tAcc@1   0.00 (  0.10)",
        ("pytorch-imagenet", 8, 5005, 1.5, 0.51, None, None, None)),
    "Lightning with rich": (
        "Epoch 0/9  ━━━━╸━━━━━━━ {n}/100 0:00:01 • 0:00:12 2.00it/s v_num: 3.000 train_loss: {loss:.3f} val_loss: 9.9",
        ("lightning-rich", 8, 100, 1.5, 0.5, None, None, None)),
    "Megatron-DeepSpeed in seconds": (
        " iteration {n:8d}/     500 | consumed samples: 256 | consumed tokens: 524288 | elapsed time per iteration (s): 45.51 |"
        " learning rate: 1.500E-06 | global batch size:   256 | lm loss: {loss:.6E} | grad norm: 10.123 | actual seqlen:  2048 |"
        " number of skipped iterations:   0 | number of nan iterations:   0 | samples per second: 5.625 |"
        " tokens per gpu per second (tgs): 1453.1 | TFLOPs: 100.5 |",
        ("megatron-deepspeed", 8, 500, 1.5, 45.51, (5.625, SAMPLES), None, None)),
    "a Megatron that tells its tokens": (
        " [2025-05-10 10:10:10] iteration {n:8d}/     500 | consumed samples: 256 | elapsed time per iteration (ms): 4508.5 |"
        " throughput per GPU (TFLOP/s/GPU): 411.2 | tokens/s/gpu: 1235.5 | lm loss: {loss:.6E} |",
        ("megatron", 8, 500, 1.5, 4.5085, (1235.5, TOKENS), None, None)),
    "torchtitan of 2024": (
        "2024-08-01 10:00:00,123 - root - INFO - step: {n:2d}  loss: {loss:7.4f}  memory: 40.50GiB(51.20%)  wps: 8,512  mfu: 42.00%",
        ("torchtitan-wps", 8, None, 1.5, None, (8512.0, TOKENS), 0.42, 40.5)),
    "nanotron of 2025": (
        "07/28/2025 10:00:00 [INFO|DP=0|nid1]: iteration: {n} / 1000 | consumed_tokens: 1.05M | time_per_iteration_ms: 1.25K |"
        " tokens_per_sec: 850K | tokens_per_sec_per_gpu: 13.3K | lm_loss: {loss:.2f} | model_tflops_per_gpu: 120 | eta: 1:02:03",
        ("nanotron", 8, 1000, 1.5, 1.25, (850000.0, TOKENS), None, None)),
    "DINO": (
        "Epoch: [0/100]  [{n:5d}/2502]  eta: 1:30:12  loss: {loss:.4f} (10.9)  lr: 0.000001 (0.000001)  time: 0.71  data: 0.01  max mem: 9216",
        ("metriclogger", 8, 2502, 1.5, 0.71, None, None, 9.0)),
    "DINOv2": (
        "I20240101 10:00:00 1 dinov2 helpers.py:102] Training  [{n:6d}/125000]  eta: 1 day, 1:30:12  lr: 0.0000 (0.0000)"
        "  total_loss: {loss:.4f} (10.9)  time: 0.71  data: 0.01  max mem: 9216",
        ("metriclogger", 8, 125000, 1.5, 0.71, None, None, 9.0)),
    "YOLOX": (
        "2021-01-01 10:00:00 | INFO     | yolox.core.trainer:260 - epoch: 1/300, iter: {n}/925, mem: 7200Mb, iter_time: 0.321s,"
        " total_loss: {loss:.1f}, iou_loss: 4.1, lr: 1.1e-8, size: 640, ETA: 1 day",
        ("plain", 8, 925, 1.5, None, None, None, None)),
    "PaddleDetection": (
        "[01/01 10:00:00] ppdet.engine INFO: Epoch: [0] [{n}/ 700] learning_rate: 0.0001 loss: {loss:.2f} loss_cls: 1.1 eta: 1:02:03"
        " batch_cost: 0.31 data_cost: 0.01 ips: 23.5 images/s",
        ("plain", 8, 700, 1.5, None, (23.5, SAMPLES), None, None)),
    "JSON behind a date": (
        '2025-01-01 10:00:00 INFO {{"step": {n}, "loss": {loss:.2f}, "tokens_per_sec": 1234}}',
        ("json-lines", 8, None, 1.5, None, (1234.0, TOKENS), None, None)),
    "mmengine's lines of JSON": (
        '{{"lr": 0.01, "data_time": 0.01, "loss": {loss:.2f}, "time": 0.5, "iter": {n}, "memory": 5000, "epoch": 1, "step": {n}}}',
        ("json-lines", 8, None, 1.5, 0.5, None, None, None)),
    "Composer with rates": (
        "[epoch=1][batch={n}/625]:\n\t Train time/batch: 9\n\t Train loss/train/total: {loss:.4f}\n"
        "\t Train throughput/samples_per_sec: 12.5\n\t Train throughput/device/samples_per_sec: 1.5\n"
        "\t Train throughput/tokens_per_sec: 25000.1\n\t Train throughput/device/tokens_per_sec: 3200.1\n\t Train throughput/device/mfu: 0.41",
        ("llm-foundry", 8, 625, 1.5, None, (25000.1, TOKENS), 0.41, None)),
}  # fmt: skip


def written(text):
    return "".join(text.format(n=n, loss=9.5 - n) + "\n" for n in range(1, 9))


@pytest.mark.parametrize("name", LOGS)
def test_a_line_of_another_version(name):
    text, (format_, last, total, loss, seconds, rate, mfu, memory) = LOGS[name]
    log = read(written(text))
    assert (log.format, log.records, log.first_step, log.last_step, log.restarts) == (format_, 8, 1, last, 0)
    assert (log.total_steps, log.loss_last, log.step_seconds) == (total, loss, pytest.approx(seconds))
    assert (log.throughput and (log.throughput.median, log.throughput.unit)) == rate
    assert (log.mfu, log.memory_gib) == (pytest.approx(mfu), memory)


@pytest.mark.parametrize("name", LOGS)
def test_columns_say_what_patterns_say(name):
    plain, quick = both(written(LOGS[name][0]).encode())
    assert plain == quick


KERAS = {
    "keras-3": "Epoch {n}/9\n\x1b[1m1/206\x1b[0m \x1b[37m━━━━━━━━━━━━\x1b[0m \x1b[1m2:10\x1b[0m 635ms/step - accuracy: 0.1 - loss: 9.9\r"
    "\x1b[1m206/206\x1b[0m \x1b[32m━━━━━━━━━━\x1b[0m\x1b[37m\x1b[0m \x1b[1m2s\x1b[0m 12ms/step - accuracy: 0.9 - loss: {loss:.4f}"
    " - val_loss: 0.0886",
    "keras-lines": "Epoch {n}/9\n206/206 - 2s - loss: {loss:.4f} - accuracy: 0.9 - val_loss: 0.5 - 2s/epoch - 12ms/step",
    "keras-lines of 3": "Epoch {n}/9\n206/206 - 2s - 12ms/step - accuracy: 0.9 - loss: {loss:.4f} - val_loss: 0.5",
}


@pytest.mark.parametrize("name", KERAS)
def test_keras_as_an_epoch_leaves_it(name):
    log = read(written(KERAS[name]))
    assert (log.format, log.records, log.last_step, log.total_steps) == (name.partition(" ")[0], 8, 206, 206)
    assert (log.loss_last, log.step_seconds, log.restarts) == (1.5, 0.012, 0)


@pytest.mark.parametrize(
    "text",
    [
        "\rValidation:  10%|#  | {n}/100 [00:01<00:10,  2.00it/s, loss={loss:.4f}]",
        "\rEpoch 0 eval:  10%|#  | {n}/100 [00:01<00:10,  2.00it/s, loss={loss:.4f}]",
        "\rEpochs:  10%|#  | {n}/100 [00:01<00:10,  2.00it/s, val_loss={loss:.4f}]",
        "2024/11/09 16:51:36 - mmengine - INFO - Iter(val) [{n}/500]    eta: 0:00:10  time: 0.06  data_time: 0.01  memory: 800  ",
        "2024-01-01 | INFO | valid | epoch 001 | valid on 'valid' subset | val_loss 8.1 | num_updates 4000",
        "step:{n}/1770 val_loss:10.8258",
        "Test: [{n}/100]\tTime  0.510 (  1.200)\tLoss {loss:.4e} (6.9300e+00)\tAcc@1   0.00 (  0.10)",
    ],
)
def test_a_line_of_an_evaluation_is_no_step(text):
    assert read(written(text)).records == 0
