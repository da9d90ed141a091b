"""How a run ended: the line that says so, what outweighs it, and what is no end."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai import logs
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
