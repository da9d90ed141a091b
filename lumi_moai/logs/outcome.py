"""How a run ended, by the line that says so: one table of signs, the heaviest of which is nearest to the cause.

A crash leaves many lines: the cause, the same error from every other rank, the ranks that Slurm stops afterwards. The
weights put causes above their echoes. Signs of equal weight: the first one in the log is the evidence. A sign that more
steps follow was no end (a caught exception, an earlier life of a requeued job) and is forgotten.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .blocks import Block

Outcome = Literal[
    "completed", "failed", "out_of_memory", "timeout", "cancelled", "node_failure", "running", "unknown"
]  # fmt: skip

OVER = 20
"""So many step lines after a sign mean that the run went on; a few may still come, from ranks that print late."""
FINAL = 70
"""Signs from here on are Slurm's own word or an exhausted memory; "Training Done" does not overrule them."""
_HITS = 100
_SHOWN = 300


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The line that tells the outcome. `place` is `file:line`; `rank` is None where the line names none."""

    outcome: Outcome
    line: str
    place: str
    rank: int | None = None
    weight: int = 0


@dataclass(frozen=True)
class _Sign:
    """A cheap mark, looked for first, and the pattern that decides; group `rank` of it is the rank's number."""

    outcome: Outcome
    weight: int
    mark: bytes
    pattern: re.Pattern[bytes]


# What `srun --label`, torch or a shell trace puts in front of a line.
_LABEL = rb"^[ \t]*(?:(?P<rank>\d+): ?)?(?:\[rank(?P<torch>\d+)\]: ?)?[ \t]*"
# What the other ranks say once one is gone.
_ECHO = rb"[^\r\n]*(?:Connection (?:closed|re(?:set|fused))|Broken pipe|remote process exited|SignalExc|ChildFailed)"
_TASK = rb"error: [^\s:]+: tasks? (?P<rank>\d+)[\d,-]*: "


def _sign(outcome: Outcome, weight: int, mark: str, pattern: bytes | None = None) -> _Sign:
    return _Sign(outcome, weight, mark.encode(), re.compile(pattern or re.escape(mark).encode(), re.MULTILINE))


_SIGNS = (
    # Slurm's daemons.
    _sign("timeout", 100, "TIME LIMIT", rb"CANCELLED AT \S+ DUE TO TIME LIMIT"),
    _sign("node_failure", 95, "NODE FAIL", rb"DUE TO NODE FAIL"),
    _sign("node_failure", 95, "error: Node failure on"),
    _sign("cancelled", 92, "DUE TO PREEMPTION"),
    _sign("out_of_memory", 90, "oom", rb"oom[-_]kill|OOM Killed"),
    _sign("out_of_memory", 88, "Out Of Memory", _TASK + rb"Out Of Memory"),
    _sign("cancelled", 70, "CANCELLED", rb"\*\*\* JOB \S+ ON \S+ CANCELLED AT [^\sD]\S+ \*\*\*"),
    _sign("failed", 60, "error: execve", rb"error: execve\(\)"),
    _sign("failed", 58, "error: ", _TASK + rb"(?:Segmentation|Abort|Bus error|Illegal|Floating)"),
    _sign("failed", 50, "error: ", _TASK + rb"Exited with exit code"),
    _sign("failed", 30, "error: ", _TASK + rb"Killed"),
    _sign("cancelled", 30, "CANCELLED", rb"\*\*\* STEP \S+ ON \S+ CANCELLED AT \S+ \*\*\*"),
    _sign("cancelled", 10, "error: ", _TASK + rb"Terminated"),
    # Memory, of a device and of the host.
    _sign("out_of_memory", 85, "emory", rb"OutOfMemoryError|out of memory\. Tried|ErrorOutOfMemory"),
    _sign("out_of_memory", 85, "emory", rb"can't allocate memory: you tried|not enough memory: you tried"),
    _sign("out_of_memory", 85, "emory", rb"[Ee]rror: \[?Errno 12\]? ?Cannot allocate memory"),
    _sign("out_of_memory", 84, "MemoryError", _LABEL + rb"(?:\w+\.)*_?(?:Array)?MemoryError\b"),
    _sign("out_of_memory", 85, "Error Code 4: OUT_OF_MEMORY"),
    _sign("out_of_memory", 84, "memory not enough", rb"Accelerator memory not enough"),
    # A rank's own last words.
    _sign("failed", 65, "Memory access fault by"),
    _sign("failed", 65, "Fatal Python error"),
    _sign("failed", 62, "Error", _LABEL + rb"(?!" + _ECHO + rb")(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*Error(?::|[ \t]*$)"),
    _sign("failed", 62, "xception", _LABEL + rb"(?!" + _ECHO + rb")(?:[A-Za-z_]\w*\.)*\w*Exception(?::|[ \t]*$)"),
    _sign("failed", 59, ": error: ", _LABEL + rb"[\w./-]+\.py(?: [\w-]+)?: error: "),  # argparse
    _sign("failed", 57, "Segmentation fault"),
    _sign("failed", 56, "core dumped"),
    _sign("failed", 56, "terminate called after throwing"),
    _sign("failed", 48, "Watchdog caught collective operation timeout"),
    _sign("failed", 45, "Error", _LABEL + rb"(?=" + _ECHO + rb")(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*Error:"),
    _sign("failed", 42, "Traceback (most recent call last)"),
    _sign("failed", 35, "command not found"),
    _sign("cancelled", 40, "KeyboardInterrupt", _LABEL + rb"KeyboardInterrupt"),
    # The MoAI platform.
    _sign("failed", 60, "An internal error occurred in the"),
    _sign("failed", 60, "The connection to the server has been lost"),
    _sign("failed", 60, "Failed to initialize the worker daemon"),
    _sign("failed", 60, "outdated and no longer supported"),
    _sign("failed", 60, "SDA token is not", rb"SDA token is not (?:given|set)"),
    _sign("running", 1, "will resume automatically"),
    # The end as it should be.
    _sign("completed", 0, "Training Done"),
    _sign("completed", 0, "aved in ", rb"(?:Model|Model and Tokenizer) (?:is )?saved in "),
    _sign("completed", 0, "Performance Summary", rb"^ *Performance Summary *$"),
    _sign("completed", 0, "'train_runtime'"),
    _sign("completed", 0, "Job exited normally"),
)
# Most lines with a sign say "error" or "Error" too: where a block has neither, their marks need not be looked for.
_ERROR = b"rror"
_OF_ERRORS = (
    b"TIME LIMIT", b"NODE FAIL", b"DUE TO PREEMPTION", b"oom", b"Out Of Memory", b"CANCELLED",
)  # fmt: skip
_ALL = tuple(dict.fromkeys(sign.mark for sign in _SIGNS))
_MARKS = tuple(mark for mark in _ALL if mark not in _OF_ERRORS and _ERROR not in mark)


class Signs:
    """The best evidence in a log, block after block."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._best: Evidence | None = None
        self._at = 0

    def add(self, block: Block, beside: bytes, *, records: int, mark: bytes | None) -> None:
        """Read *block*; *records* step lines came before it and *mark* begins those in it.

        *beside* is what of it may hold signs; marks are looked for there only.
        """
        marks = _ALL if _ERROR in beside else _MARKS
        present = {found for found in marks if found in beside}
        if not present:
            return
        hits = sorted(_hits(block.text, present), key=lambda hit: (hit[1].start(), -hit[0].weight))
        for sign, match in hits:
            inside = block.text.count(mark, 0, match.start()) if mark else 0
            self._weigh(sign, match, block, records + inside)

    def _weigh(self, sign: _Sign, match: re.Match[bytes], block: Block, at: int) -> None:
        best = self.best(at)
        good_end = sign.outcome == "completed" and (best is None or best.weight < FINAL)
        if best is None or good_end or sign.weight > best.weight:
            place = f"{self._name}:{block.line_of(match.start())}"
            self._best, self._at = (
                Evidence(
                    outcome=sign.outcome,
                    line=line_at(block.text, match.start()),
                    place=place,
                    rank=_rank(match),
                    weight=sign.weight,
                ),
                at,
            )

    def best(self, records: int) -> Evidence | None:
        """The evidence once *records* step lines were read; None where there is none or the run went on after it."""
        return self._best if records - self._at <= OVER else None


def _hits(text: bytes, present: set[bytes]) -> Iterator[tuple[_Sign, re.Match[bytes]]]:
    for sign in _SIGNS:
        if sign.mark in present:
            for count, match in enumerate(sign.pattern.finditer(text)):
                if count == _HITS:
                    break
                yield sign, match


def _rank(match: re.Match[bytes]) -> int | None:
    named = match.groupdict()
    digits = named.get("rank") or named.get("torch")
    return int(digits) if digits and len(digits) < 10 else None


def line_at(text: bytes, position: int) -> str:
    """The line around *position* as it may be shown: without control characters, 300 letters at most."""
    start = max(text.rfind(b"\n", 0, position), text.rfind(b"\r", 0, position)) + 1
    start = max(start, position - _SHOWN)
    line = re.split(rb"[\r\n]", text[start : start + 4 * _SHOWN], maxsplit=1)[0]
    shown = "".join(letter if letter.isprintable() else " " for letter in line.decode(errors="replace"))
    return shown.strip()[:_SHOWN]
