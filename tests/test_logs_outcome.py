"""How a run ended: the line that says so, what outweighs it, and what is no end."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai import catalog, logs
from lumi_moai.logs.outcome import line_at
from lumi_moai.report import first_cause, judge

RECORDED = Path(__file__).parent / "recorded" / "logs" / "slurm_errors"
STEPS = "".join(f"[Step {step}/900] Loss: 1.0\n" for step in range(1, 31))


def evidence(text):
    return logs.read(io.BytesIO(text.encode()), "x.log").evidence


@pytest.mark.parametrize(
    ("name", "outcome", "place", "rank"),
    [
        ("lumi_oom_kill_cxi.log", "out_of_memory", 1, None),
        ("lumi_memory_access_fault.log", "failed", 3, None),
        ("lumi_store_barrier_timeout.log", "failed", 8, 163),
        ("oscar_pytest_srun_errors.log", "timeout", 58, None),
    ],
)
def test_recorded_errors(name, outcome, place, rank):
    with open(RECORDED / name, "rb") as file:
        found = logs.read(file, name).evidence
    assert (found.outcome, found.place, found.rank) == (outcome, f"{name}:{place}", rank)


LINES = {
    "slurmstepd: error: *** JOB 9 ON nid005124 CANCELLED AT 2024-05-20T16:13:38 DUE TO TIME LIMIT ***": "timeout",
    "slurmstepd: error: *** JOB 9 ON nid005124 CANCELLED AT 2024-05-20T16:13:38 DUE TO NODE FAILURE, SEE LOG ***": "node_failure",
    "srun: error: Node failure on nid005124": "node_failure",
    "slurmstepd: error: *** JOB 9 ON n CANCELLED AT 2024-05-20T16:13:38 DUE TO PREEMPTION ***": "cancelled",
    "slurmstepd: error: *** JOB 9 ON nid005124 CANCELLED AT 2024-05-20T16:13:38 ***": "cancelled",
    "slurmstepd: error: *** STEP 9.0 ON nid005124 CANCELLED AT 2024-05-20T16:13:38 ***": "cancelled",
    "slurmstepd: error: Detected 1 oom_kill event in StepId=9.batch. Some of the step tasks have been OOM Killed.": "out_of_memory",
    "srun: error: nid006024: task 3: Out Of Memory": "out_of_memory",
    "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity": "out_of_memory",
    "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes": "out_of_memory",
    "MemoryError": "out_of_memory",
    "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 9 TiB": "out_of_memory",
    "OSError: [Errno 12] Cannot allocate memory": "out_of_memory",
    "RuntimeError: Error Code 4: OUT_OF_MEMORY": "out_of_memory",
    "KT AI Accelerator memory not enough.": "out_of_memory",
    "ValueError: no": "failed",
    "my.own.FancyError": "failed",
    "queue.SomeException: no": "failed",
    "[rank3]: RuntimeError: no": "failed",
    "12: AssertionError": "failed",
    "srun: error: nid006024: task 3: Exited with exit code 1": "failed",
    "srun: error: nid006024: tasks 0-7: Segmentation fault (core dumped)": "failed",
    "Fatal Python error: Segmentation fault": "failed",
    "slurmstepd: error: execve(): pyton: No such file or directory": "failed",
    "/var/spool/slurmd/job9/slurm_script: line 9: pyton: command not found": "failed",
    "[error] The connection to the server has been lost. Please contact technical support": "failed",
    "An internal error occurred in the KT AI Accelerator": "failed",
    "SDA token is not given.": "failed",
    "KeyboardInterrupt": "cancelled",
    "Training Done": "completed",
    "Model and Tokenizer is saved in ./llama": "completed",
    "[warning] Not enough resources are available. The program will resume automatically when": "running",
    "this is fine": None,
    "a warning about out of memory and an Error: in the middle": None,
    "[Errors]: 0": None,
    "loss error: 0.5": None,
}


@pytest.mark.parametrize("before", ["", "[Step 1/9] Loss: 1.0\n"])
@pytest.mark.parametrize("line", LINES)
def test_signs(line, before):
    found = evidence(f"{before}{line}\nmore\n")
    assert (found.outcome if found else None) == LINES[line]
    if found:
        assert found.line == line
        assert found.place == f"x.log:{2 if before else 1}"


@pytest.mark.parametrize(
    ("lines", "outcome", "place"),
    [
        # The cause comes before what Slurm does about it.
        (["ValueError: no", "srun: error: n: task 0: Exited with exit code 1",
          "slurmstepd: error: *** STEP 9.0 ON n CANCELLED AT 2024-05-20T16:13:38 ***", "srun: error: n: task 1: Terminated"],
         "failed", 1),
        # Another rank's echo comes before the cause.
        (["RuntimeError: Connection closed by peer [127.0.0.1]:9", "ValueError: no"], "failed", 2),
        (["ValueError: first", "ValueError: second"], "failed", 1),
        (["ValueError: caught", "Training Done"], "completed", 2),
        (["Training Done", "OSError: disk full"], "failed", 2),
        (["slurmstepd: error: *** JOB 9 ON n CANCELLED AT 2024-05-20T16:13:38 ***", "ValueError: no"], "cancelled", 1),
        (["srun: error: n: task 1: Killed", "srun: error: n: task 0: Out Of Memory"], "out_of_memory", 2),
    ],
)  # fmt: skip
def test_the_cause_outweighs_its_echoes(lines, outcome, place):
    found = evidence("\n".join(lines))
    assert (found.outcome, found.place) == (outcome, f"x.log:{place}")


def test_an_error_that_training_went_on_after_is_no_end():
    assert evidence(f"ValueError: caught\n{STEPS}") is None
    assert evidence(f"{STEPS}ValueError: no\n[Step 31/900] Loss: 1.0\n").line == "ValueError: no"
    assert evidence(f"ValueError: first life\n{STEPS}KeyError: second life\n").line == "KeyError: second life"


def test_an_error_glued_to_a_step_line_is_seen():
    assert evidence(
        "[Step 1/9] Loss: 1.0slurmstepd: error: *** JOB 9 ON n CANCELLED AT 2024-05-20T16:13:38 ***\n"
    ).outcome == ("cancelled")


CAUSES = {
    "srun: error: nid006024: task 3: Out Of Memory": ("host_out_of_memory", 3),
    "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 20.00 MiB. GPU 0 has": ("device_out_of_memory", None),
    "2: torch.OutOfMemoryError: HIP out of memory. Tried to allocate 20.00 MiB.": ("device_out_of_memory", 2),
    "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes, out of memory": (
        "device_out_of_memory", None),
    "RuntimeError: DataLoader worker (pid 9) is killed by signal: Killed.": ("host_out_of_memory", None),
    "slurmstepd: error: *** JOB 9 ON n CANCELLED AT 2024-05-20T16:13:38 DUE TO PREEMPTION ***": ("preempted", None),
    "slurmstepd: error: *** JOB 9 ON n CANCELLED AT 2024-05-20T16:13:38 DUE TO JOB REQUEUE ***": ("requeued", None),
    "Memory access fault by GPU node-9 (Agent handle: 0x7d5f990) on address 0x14a1cfe01000.": ("device_fault", None),
    "[rank4]:[E818 18:22:20.5 ProcessGroupNCCL.cpp:629] [Rank 4] Watchdog caught collective operation timeout: WorkNCCL("
    "SeqNum=4170605, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600009 milliseconds before timing out.": (
        "collective_timeout", 4),
    "[E ProcessGroupNCCL.cpp:828] [Rank 3] Watchdog caught collective operation timeout: WorkNCCL(": (
        "collective_timeout", 3),
    "163: RuntimeError: Timed out initializing process group in store based barrier on rank: 163, for key: s:1": (
        "collective_timeout", 163),
    "torch.distributed.DistStoreError: Timed out after 1801 seconds waiting for clients. 7/8 clients joined.": (
        "collective_timeout", None),
    "[rank1]: torch.distributed.DistBackendError: NCCL error in: a.cpp:9, unhandled system error": (
        "collective_error", 1),
    "torch.distributed.DistNetworkError: The client socket has timed out after 60s while trying to connect": (
        "collective_timeout", None),
    "[rank3]: ValueError: no": ("rank_crash", 3),
    "12: AssertionError": ("rank_crash", 12),
    "/var/spool/slurmd/job9/slurm_script: line 9: 1922528 Killed                  torchrun train.py": ("killed", None),
    "slurm_script: line 9: pyton: command not found": ("start_failed", None),
    "SDA token is not given.": ("platform_error", None),
    "lumi-moai: Error: the self-check of the first step failed: loss 1.2 on one device": ("refused", None),
    "[after training is done] datetime: 2023-01-01 12:00:00": ("completed", None),
    "2021-03-08 12:43:15 | INFO | fairseq_cli.train | done training in 798.6 seconds": ("completed", None),
    "Training time 0:13:00": ("completed", None),
    "2025-01-01 10:00:00 INFO Training completed!": ("completed", None),
    "Finished Training": ("completed", None),
    "*** Best metric: 78.5 (epoch 299)": ("completed", None),
    "[exiting program at iteration 500] datetime: 2025-01-01 12:00:00": ("completed", None),
    "`Trainer.fit` stopped: `max_steps=100` reached.": ("completed", None),
}  # fmt: skip


@pytest.mark.parametrize("line", CAUSES)
def test_causes(line):
    found = evidence(f"{line}\n")
    assert (found.cause, found.rank) == CAUSES[line]


def test_ranks_that_wait_are_echoes_of_the_one_that_crashed():
    stuck = "[rank4]:[E8 x.cpp:6] [Rank 4] Watchdog caught collective operation timeout: WorkNCCL()"
    raised = "[rank4]: torch.distributed.DistBackendError: [Rank 4] Watchdog caught collective operation timeout"
    gone = "terminate called after throwing an instance of 'c10::DistBackendError'"
    assert evidence("\n".join([stuck, raised, gone, "[rank1]: KeyError: 'x'"])).rank == 1
    alone = evidence("\n".join([stuck, raised, gone, "srun: error: n: task 4: Aborted (core dumped)"]))
    assert (alone.cause, alone.rank, alone.place) == ("collective_timeout", 4, "x.log:1")


def test_torchrun_knows_which_rank_failed_first():
    table = (
        "ValueError: no\ntrain.py FAILED\nRoot Cause (first observed failure):\n[0]:\n  time      : 2024-05-20_16:13:38\n"
        "  host      : nid005124\n  rank      : 3 (local_rank: 3)\n  exitcode  : 1 (pid: 9)\n"
    )
    found = evidence(table)
    assert (found.line, found.rank, found.cause) == ("ValueError: no", 3, "rank_crash")


def test_an_end_that_is_also_printed_after_a_crash():
    assert evidence("Process 73585 exits successfully.").outcome == "completed"
    assert evidence("ValueError: no\nProcess 73585 exits successfully.").outcome == "failed"


FALLBACK = "nid1:9:9 [0] NCCL INFO NET/Plugin : No plugin found (librccl-net.so), using internal implementation"


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ([FALLBACK], 1),
        (["x", "NCCL INFO NET/OFI Selected Provider is tcp (found 1 nics)"], 2),
        (["NCCL INFO Using network Socket"], 1),
        (["NCCL INFO NET/OFI Selected Provider is cxi (found 4 nics)"], None),
        ([FALLBACK, "NCCL INFO NET/IB : Using [0]mlx5_0:1/IB"], None),
        (["TUNER/Plugin: No plugin found"], None),
        (["my own: No plugin found"], None),
    ],
)
def test_a_fall_back_to_tcp_is_a_remark(lines, place):
    log = logs.read(io.BytesIO("\n".join([*lines, STEPS, "Training Done"]).encode()), "x.log")
    assert [remark.place for remark in log.remarks] == ([f"x.log:{place}"] if place else [])
    assert log.evidence.outcome == "completed"


def test_there_is_advice_for_every_cause():
    assert set(catalog.advice()) == {*logs.CAUSES, "tcp_fallback"} - {"completed"}


@given(st.binary(), st.integers(0, 400))
def test_a_shown_line_is_one_short_line(data, position):
    shown = line_at(data, min(position, len(data)))
    assert shown.isprintable()
    assert len(shown) <= 300


def found(outcome, weight, rank=None):
    return logs.Evidence(outcome=outcome, line=f"{outcome} {rank}", place="x:1", rank=rank, weight=weight)


@pytest.mark.parametrize(
    ("state", "line", "outcome", "place"),
    [
        ("COMPLETED", None, "completed", "accounting"),
        ("COMPLETED", found("failed", 62), "completed", "accounting"),
        ("FAILED", found("failed", 62), "failed", "x:1"),
        ("FAILED", found("out_of_memory", 85), "out_of_memory", "x:1"),
        ("FAILED", found("cancelled", 30), "failed", "accounting"),
        ("OUT_OF_MEMORY", None, "out_of_memory", "accounting"),
        ("TIMEOUT", found("timeout", 100), "timeout", "x:1"),
        ("CANCELLED", found("failed", 62), "cancelled", "accounting"),
        ("NODE_FAIL", None, "node_failure", "accounting"),
        ("PREEMPTED", None, "cancelled", "accounting"),
        ("PENDING", None, "running", "accounting"),
        ("NEW_WORD", None, "unknown", "accounting"),
        (None, found("failed", 62), "failed", "x:1"),
    ],
)
def test_the_accounting_decides_and_the_log_explains(state, line, outcome, place):
    verdict, shown = judge(state, "", line)
    assert (verdict, shown.place) == (outcome, place)


@pytest.mark.parametrize(
    ("state", "cause"),
    [("PREEMPTED", "preempted"), ("OUT_OF_MEMORY", "host_out_of_memory"), ("TIMEOUT", "time_limit"), ("FAILED", "rank_crash"),
     ("BOOT_FAIL", "node_failure"), ("NEW_WORD", "unknown"), ("SUSPENDED", "running")],
)  # fmt: skip
def test_the_cause_by_the_accounting(state, cause):
    assert judge(state, "", None)[1].cause == cause


def test_nothing_known():
    assert judge(None, "", None) == ("unknown", None)


def test_the_rank_that_failed_first_has_the_word():
    batch = found("failed", 50, rank=3)
    ranks = [found("failed", 62, rank=1), found("failed", 62, rank=3)]
    assert first_cause(batch, ranks).rank == 3
    assert first_cause(None, ranks).rank == 1
    assert first_cause(batch, ranks[:1]).rank == 1
    assert first_cause(batch, []) is batch
    assert first_cause(found("out_of_memory", 90), ranks).outcome == "out_of_memory"
    assert first_cause(None, []) is None


@pytest.mark.parametrize("repeats", [3, 40_000])
@pytest.mark.parametrize("bar", ["", "\r100%|####| 30/30 [01:00<00:00,  2.20it/s]"])
def test_the_summary_of_a_trainer_ends_the_run_also_on_a_line_like_its_steps(bar, repeats):
    steps = "{'loss': 2.28, 'grad_norm': 1.41, 'learning_rate': 2.5e-06, 'epoch': 0.29}\n" * repeats
    found = evidence(
        steps + bar + "{'train_runtime': 60.2, 'train_samples_per_second': 26.5, 'train_loss': 1.9, 'epoch': 1.0}\n"
    )
    assert found.outcome == "completed"


def test_what_a_trainer_returned_ends_the_run():
    metrics = "metrics={'train_samples_per_second': 2.063, 'train_loss': 1.5})"
    assert evidence(f"TrainOutput(global_step=250, training_loss=1.553, {metrics}\n").outcome == "completed"
