"""The table of lines that tell how a run ended.

The weights put causes above their echoes: a crash leaves the cause, the same error from every other rank, and the ranks
that Slurm stops afterwards. Slurm's own word and an exhausted memory weigh `FINAL` and more.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Outcome = Literal[
    "completed", "failed", "out_of_memory", "timeout", "cancelled", "node_failure", "running", "unknown"
]  # fmt: skip
Cause = Literal[
    "completed", "device_out_of_memory", "host_out_of_memory", "out_of_memory", "time_limit", "preempted", "requeued",
    "node_failure", "rank_crash", "device_fault", "collective_timeout", "collective_error", "killed", "start_failed",
    "platform_error", "refused", "cancelled", "running", "unknown",
]  # fmt: skip
"""What an outcome came from."""
CAUSES: tuple[Cause, ...] = get_args(Cause)

OUTCOMES: Mapping[Cause, Outcome] = {
    "completed": "completed",
    "device_out_of_memory": "out_of_memory",
    "host_out_of_memory": "out_of_memory",
    "out_of_memory": "out_of_memory",
    "time_limit": "timeout",
    "preempted": "cancelled",
    "requeued": "cancelled",
    "cancelled": "cancelled",
    "node_failure": "node_failure",
    "running": "running",
    "unknown": "unknown",
}
"""The outcome of each cause; that of all others is `failed`."""
CAUSE_OF: Mapping[Outcome, Cause] = {"timeout": "time_limit", "failed": "rank_crash"}
"""What an outcome comes from where nothing says more; elsewhere the word is the same."""

FINAL = 70
"""Signs from here on are Slurm's own word or an exhausted memory; "Training Done" does not overrule them."""
MAYBE = -1
"""The weight of an end that is also printed after a crash: it counts only where nothing else is said."""


@dataclass(frozen=True)
class Sign:
    """A cheap mark, looked for first, and the pattern that decides; a group `rank...` of it is the rank's number."""

    cause: Cause
    weight: int
    mark: bytes
    pattern: re.Pattern[bytes]

    @property
    def outcome(self) -> Outcome:
        """What the cause amounts to."""
        return OUTCOMES.get(self.cause, "failed")


# What `srun --label`, torch or a shell trace puts in front of a line.
_LABEL = (
    rb"^[ \t]*(?:(?P<rank_of_srun>\d+): ?)?(?:\[default(?P<rank_of_tee>\d+)\]: ?)?"
    rb"(?:\[rank(?P<rank_of_torch>\d+)\]: ?)?(?:\[\d+,(?P<rank_of_mpi>\d+)\]<std(?:out|err)>: ?)?[ \t]*"
)
# What the other ranks say once one is gone, and what they say of each other when one is stuck.
_STUCK = (
    rb"[Tt]imed out (?:init|wait|after \d)|[Ss]ocket Timeout|wait timeout after|Watchdog caught|socket has timed out"
)
_OF_OTHERS = rb"Connection (?:closed|re(?:set|fused))|Broken pipe|remote process exited|SignalExc|ChildFailed"
_ECHO = rb"[^\r\n]*(?:" + _OF_OTHERS + rb")"
_NOT_OWN = rb"(?![^\r\n]*(?:" + _OF_OTHERS + rb"|" + _STUCK + rb"|NCCL error|nccl\w+Error))"
_TASK = rb"error: [^\s:]+: tasks? (?P<rank>\d+)[\d,-]*: "


_ANYWHERE = _LABEL + rb"[^\r\n]{0,300}?"
"""A text anywhere in a line, with the rank that the line begins with."""


def _sign(cause: Cause, weight: int, mark: str, pattern: bytes | None = None) -> Sign:
    return Sign(cause, weight, mark.encode(), re.compile(pattern or re.escape(mark).encode(), re.MULTILINE))


SIGNS = (
    # Slurm's daemons.
    _sign("time_limit", 100, "TIME LIMIT", rb"CANCELLED AT \S+ DUE TO TIME LIMIT"),
    _sign("node_failure", 95, "NODE FAIL", rb"DUE TO NODE FAIL"),
    _sign("node_failure", 95, "error: Node failure on"),
    _sign("preempted", 92, "DUE TO PREEMPTION"),
    _sign("requeued", 91, "DUE TO JOB REQUEUE"),
    _sign("host_out_of_memory", 90, "oom", rb"oom[-_]kill|OOM Killed"),
    _sign("host_out_of_memory", 88, "Out Of Memory", _TASK + rb"Out Of Memory"),
    _sign(
        "host_out_of_memory",
        88,
        "xceeded",
        rb"error: (?:Exceeded (?:job|step) memory limit|Job \S+ exceeded memory limit)",
    ),
    _sign(
        "cancelled",
        70,
        "CANCELLED",
        rb"\*\*\* JOB \S+ ON \S+ CANCELLED AT [^\sD]\S+ (?:by [^\r\n*]+|DUE to SIGNAL [^\r\n*]+)?\*\*\*",
    ),
    _sign("rank_crash", 48, "FAILED", rb"error: \*\*\* STEP \S+ ON \S+ FAILED \(non-zero exit code"),
    _sign("start_failed", 60, "sbatch: error: ", rb"^sbatch: error: (?:Batch job submission failed|[Uu]nable)"),
    _sign("start_failed", 50, "launch failed", rb"srun: error: (?:task \d+|Application) launch failed"),
    _sign("start_failed", 52, "FATAL: ", _LABEL + rb"FATAL: +(?:could not|container|while|image|no such|stat |unable)"),
    _sign("start_failed", 55, "can't open file", _LABEL + rb"[\w./-]*python[\d.]*: can't open file"),
    _sign("start_failed", 60, "error: execve", rb"error: execve\(\)"),
    _sign("start_failed", 50, "error: ", rb"error: Task launch for \S+ failed on node"),
    _sign("start_failed", 50, "error: ", rb"srun: error: Unable to (?:create step|allocate resources)"),
    _sign("rank_crash", 58, "error: ", _TASK + rb"(?:Segmentation|Abort|Bus error|Illegal|Floating)"),
    _sign("rank_crash", 50, "error: ", _TASK + rb"Exited with exit code"),
    _sign("killed", 30, "error: ", _TASK + rb"Killed"),
    _sign("cancelled", 30, "CANCELLED", rb"\*\*\* STEP \S+ ON \S+ CANCELLED AT \S+ \*\*\*"),
    _sign("cancelled", 10, "error: ", _TASK + rb"Terminated"),
    # Memory, of a device and of the host.
    _sign("device_out_of_memory", 85, "emory", _LABEL + rb"(?:[\w.]+\.)?OutOfMemoryError(?=:|[ \t]*$)"),
    _sign(
        "device_out_of_memory",
        85,
        "emory",
        _ANYWHERE + rb"(?:OutOfMemoryError: |out of memory\. Tried|ErrorOutOfMemory)",
    ),
    _sign("device_out_of_memory", 85, "emory", _LABEL + rb"\w+Error: (?:CUDA|HIP) error: out of memory"),
    _sign("device_out_of_memory", 84, "_ALLOC_FAILED", _LABEL + rb"\w+Error: [^\r\n]*BLAS_STATUS_ALLOC_FAILED"),
    _sign(
        "device_out_of_memory",
        84,
        "OOM when alloc",
        rb"OOM when allocating tensor [^\r\n]* device:|OOM when allocating tensor [^\r\n]*/device:GPU",
    ),
    _sign("device_out_of_memory", 84, "RESOURCE_EXHAUSTED", rb"RESOURCE_EXHAUSTED: [^\r\n]*(?:[Oo]ut of memory|OOM)"),
    _sign("host_out_of_memory", 85, "emory", rb"can't allocate memory: you tried|not enough memory: you tried"),
    _sign("host_out_of_memory", 85, "emory", rb"[Ee]rror: \[?Errno 12\]? ?Cannot allocate memory"),
    _sign("host_out_of_memory", 84, "MemoryError", _LABEL + rb"(?:\w+\.)*_?(?:Array)?MemoryError\b"),
    _sign(
        "host_out_of_memory", 83, "DataLoader worker", rb"DataLoader worker [^\r\n]*killed by signal: (?:Killed|Bus)"
    ),
    _sign("host_out_of_memory", 84, "std::bad_alloc", rb"what\(\): +std::bad_alloc"),
    _sign("device_out_of_memory", 85, "Error Code 4: OUT_OF_MEMORY"),
    _sign("device_out_of_memory", 84, "memory not enough", rb"Accelerator memory not enough"),
    # A rank's own last words.
    _sign("device_fault", 65, "Memory access fault by"),
    _sign("device_fault", 65, "HW Exception by GPU"),
    _sign(
        "device_fault",
        63,
        "error: ",
        _LABEL + rb"[\w.]+Error: (?:CUDA|HIP) error: (?:an illegal memory access|uncorrectable ECC|unspecified launch)",
    ),
    _sign("rank_crash", 65, "Fatal Python error"),
    _sign("refused", 66, "lumi-moai: Error: "),
    _sign("rank_crash", 62, "Error", _LABEL + _NOT_OWN + rb"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*Error(?::|[ \t]*$)"),
    _sign("rank_crash", 62, "xception", _LABEL + _NOT_OWN + rb"(?:[A-Za-z_]\w*\.)*\w*Exception(?::|[ \t]*$)"),
    _sign("rank_crash", 59, ": error: ", _LABEL + rb"[\w./-]+\.py(?: [\w-]+)?: error: "),  # argparse
    _sign("rank_crash", 57, "Segmentation fault"),
    _sign("rank_crash", 57, "SIGSEGV", rb"traceback : Signal 11 \(SIGSEGV\)"),
    _sign("killed", 46, "SIGKILL", rb"traceback : Signal 9 \(SIGKILL\)"),
    _sign("rank_crash", 56, "(): ", _LABEL + rb"(?:free|malloc|realloc|munmap_chunk)\(\): "),
    _sign("rank_crash", 56, "core dumped"),
    _sign("rank_crash", 56, "terminate called after throwing"),
    _sign("rank_crash", 45, "Error", _LABEL + rb"(?=" + _ECHO + rb")(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*Error:"),
    _sign("rank_crash", 42, "Traceback (most recent call last)"),
    _sign("start_failed", 35, "command not found"),
    _sign("killed", 33, "Killed", rb"^(?:[^\r\n:]+: line \d+: +\d+ )?Killed(?:$|[ \t]{3})"),
    _sign("cancelled", 40, "KeyboardInterrupt", _LABEL + rb"KeyboardInterrupt"),
    # Ranks that wait for each other.
    _sign(
        "collective_timeout", 61, "Watchdog caught", rb"\[[Rr]ank ?(?P<rank>\d+)\] Watchdog caught|Watchdog caught coll"
    ),
    _sign("collective_timeout", 61, "atchdog", rb"(?:NCCL|RCCL)'?s? watchdog (?:got stuck|thread hang|hang)"),
    _sign("collective_timeout", 61, "eartbeat", rb"[Hh]eartbeat monitor timed out"),
    _sign("collective_timeout", 61, "imed out", _LABEL + rb"[\w.]*Error: [^\r\n]*Timed out (?:init|wait|after \d)"),
    _sign("collective_timeout", 61, "imed out", _LABEL + rb"[\w.]*Error: [^\r\n]*socket has timed out"),
    _sign(
        "collective_timeout", 61, "imeout", _LABEL + rb"[\w.]*Error: [^\r\n]*(?:[Ss]ocket Timeout|wait timeout after)"
    ),
    _sign("collective_error", 60, "NCCL error", _LABEL + rb"[\w.]*Error: [^\r\n]*NCCL error"),
    _sign(
        "collective_error", 60, "nccl", _LABEL + rb"nccl(?:System|Internal|Remote|UnhandledCuda|UnhandledHip)Error: "
    ),
    # The MoAI platform.
    _sign("platform_error", 60, "An internal error occurred in the"),
    _sign("platform_error", 60, "The connection to the server has been lost"),
    _sign("platform_error", 60, "Failed to initialize the worker daemon"),
    _sign("platform_error", 60, "outdated and no longer supported"),
    _sign("platform_error", 60, "SDA token is not", rb"SDA token is not (?:given|set)"),
    _sign("running", 1, "will resume automatically"),
    # The end as it should be.
    _sign("completed", 0, "Training Done"),
    _sign("completed", 0, "aved in ", rb"(?:Model|Model and Tokenizer) (?:is )?saved in "),
    _sign("completed", 0, "Performance Summary", _LABEL + rb"Performance Summary *$"),
    _sign("completed", 0, "'train_runtime'"),
    _sign("completed", 0, "TrainOutput(", rb"TrainOutput\(global_step="),
    _sign("completed", 0, "Job exited normally"),
    _sign("completed", 0, "Training completed", rb"\bTraining completed(?:[.!]*\s*$|\. Do not forget to share)"),
    _sign("completed", 0, "Training complete", rb"\bTraining complete\b"),
    _sign("completed", 0, "raining finished", rb"\b[Tt]raining finished\b"),
    _sign("completed", 0, "Finished ", rb"\bFinished [Tt]raining[.!]*\s*$"),
    _sign("completed", 0, "*** Best metric: ", _LABEL + rb"\*\*\* Best metric: \S+ \(epoch \d+\)"),
    _sign("completed", MAYBE, "[exiting program at", rb"\[exiting program at iteration \d+\]"),
    _sign("completed", 0, "raining is done", rb"\[after training is done\]"),
    _sign("completed", 0, "done training in ", rb"\bdone training in [\d.]+ seconds"),
    _sign("completed", 0, "Training time", _LABEL + rb"(?:[^\r\n]*(?:INFO|\)): )?Training time:? \d[\d:.]*s?\s*$"),
    _sign("completed", 0, "Trainer.fit` stopped", rb"Trainer\.fit` stopped: `max_\w+=\S+` reached"),
    _sign("completed", 0, " epochs completed in ", _LABEL + rb"\d+ epochs completed in [\d.]+ hours"),
    _sign("completed", MAYBE, "exits successfully", rb"Process \d+ exits successfully"),
    _sign("completed", MAYBE, "Total training time: ", rb"Total training time: \d[\d:]* \("),
)
