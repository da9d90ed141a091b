"""Whole logs in the manner of many programs and their versions, each with what a reader by hand extracts; written by us."""

import math

import pytest
from test_logs_columns import both
from test_logs_nasty import read

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


@pytest.mark.parametrize("name", CASES)
def test_a_log_of_a_program(name):
    text, want = CASES[name]
    found = said(read(text))
    assert {key: found[key] for key in want if not same(found[key], want[key])} == {}


@pytest.mark.parametrize("name", CASES)
def test_columns_say_what_patterns_say(name):
    plain, quick = both(CASES[name][0].encode())
    assert plain == quick
