"""What a log says beside its steps: the platform, its times, when it began and ended."""

import re
from datetime import datetime

from .blocks import ENDS, Block

_NUMBER = rb"([-+]?\d[\d.]*(?:[eE][-+]?\d+)?)"
# A mark that is looked for first, the name of the note, and the pattern; the last one in the log stays.
_NOTES = [
    (b"Moreh Version: ", "platform_version", rb"Moreh Version: ([\w.]{1,40})"),
    (b"Moreh Job ID: ", "platform_job_id", rb"Moreh Job ID: (\d{1,18})"),
    (b"] Connecting to resources", "platform_nodes", rb"\[\d{1,6}/(\d{1,6})\] Connecting to resources"),
    (b"info] num_stages", "parallelism", rb"info\] (num_stages[^\r\n]{0,200})"),
    (b"info] No PP", "parallelism", rb"info\] (No PP[^\r\n]{0,200})"),
    (b"warmup", "warmup_seconds", rb"warmup done\. Duration: " + _NUMBER),
    (b"warmup", "warmup_seconds", rb"'warmup_duration': " + _NUMBER),
    (b"oading duration : ", "warmup_seconds", rb"\[Step \d+\] Model loading duration : " + _NUMBER),
    (b"Eval Loss: ", "eval_loss", rb"Eval Loss: " + _NUMBER),
    (b"Duration:  ", "total_seconds", rb"Total Duration: +" + _NUMBER),
    (b"Duration:  ", "warmup_seconds", rb"Model Loading Duration: +" + _NUMBER),
    (b"Duration:  ", "train_seconds", rb"Train Duration: +" + _NUMBER),
    (b"Duration:  ", "eval_seconds", rb"Evaluation Duration: +" + _NUMBER),
    (b"Memory used: ", "memory_gb", rb"^Memory used: " + _NUMBER + rb" GB"),
    (b"memory/peak_active_mem: ", "memory_gb", rb" memory/peak_active_mem: " + _NUMBER),
    (b"Peak GPU Memory (MB)=", "memory_mb", rb"Peak GPU Memory \(MB\)=([\d,]+)"),
    (b"| max allocated: ", "memory_mib", rb"memory \(MB\) [^\r\n]{0,80}?\| max allocated: " + _NUMBER),
    (b"eak memory ", "memory_mib", rb"\bpeak memory (?:allocated|consumption): (\d+) MiB"),
    (b"seq_length .", "sequence_length", rb"\bseq_length \.+ (\d+)"),
    (b"global_batch_size .", "global_batch_size", rb"\bglobal_batch_size \.+ (\d+)"),
    (b", sequence length ", "sequence_length", rb"global batch size \d+, [^\r\n]*?sequence length (\d+)"),
    (b", sequence length ", "global_batch_size", rb"global batch size (\d+), [^\r\n]*?sequence length \d"),
    (b"tokens per iteration will be: ", "tokens_per_step", rb"tokens per iteration will be: ([\d,]+)"),
    (b"Avg TPS:", "average_tokens_per_second", rb"Avg TPS: +" + _NUMBER),
]
_PATTERNS = [(mark, name, re.compile(pattern, re.MULTILINE)) for mark, name, pattern in _NOTES]
MARKS = tuple(dict.fromkeys(mark for mark, _, _ in _NOTES))
_PEAKS = ("memory_mib", "memory_mb", "memory_gb")
"""Of these the largest counts, of all others the last."""
LAST = frozenset(mark for mark, name, _ in _NOTES if name not in _PEAKS)
"""Marks of which a block's last line counts, whatever stands in other lines that differ only in their digits."""
_WORDS = ("platform_version", "platform_job_id", "parallelism")
_CLOCK = re.compile(
    rb"^(?: *\d{1,7}: |\[(?:default|rank)\d{1,7}\]: ?)?[\[(|]?(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?",
    re.MULTILINE,
)


class Notes:
    """The notes of a log, block after block; `found` has them by name, numbers as numbers."""

    def __init__(self) -> None:
        self.found: dict[str, str | float] = {}
        self._first: datetime | None = None
        self._last: datetime | None = None

    def add(self, block: Block, beside: bytes) -> None:
        """Read *block*; *beside* is what of it may hold notes."""
        present = block.having(MARKS, beside)
        for mark, name, pattern in _PATTERNS:
            if mark in present:
                for found in _found(pattern, mark, block.text, last=name not in _PEAKS):
                    self._keep(name, found.decode(errors="replace"))
        self.look_at_clock(block.whole)

    def _keep(self, name: str, text: str) -> None:
        text = text.replace(",", "") if name not in _WORDS else text
        if name in _WORDS:
            self.found[name] = text
        elif re.fullmatch(r"[-+]?\d+(\.\d*)?([eE][-+]?\d{1,3})?", text, re.ASCII):
            self._set(name, int(text) if text.isdigit() and len(text) < 19 else float(text))

    def _set(self, name: str, value: str | float) -> None:
        before = self.found.get(name)
        peak = name in _PEAKS and isinstance(before, int | float) and isinstance(value, int | float) and before > value
        self.found[name] = before if peak and before is not None else value

    def go_on(self, later: "Notes") -> None:
        """Add what *later* found in the part of the log behind this one's."""
        for name, value in later.found.items():
            self._set(name, value)
        self._first = self._first or later._first
        self._last = later._last or self._last

    def look_at_clock(self, text: bytes) -> None:
        """Note the first and the last time at the beginning and the end of *text*."""
        if self._first is None and (match := _CLOCK.search(text, 0, ENDS)):
            self._first = _time(match)
        if self._first is not None and (times := list(_CLOCK.finditer(text, max(0, len(text) - ENDS)))):
            self._last = _time(times[-1]) or self._last

    @property
    def elapsed_seconds(self) -> float | None:
        """Seconds from the first line that has a date and time in front to the last; None without such lines."""
        if self._first is None or self._last is None or self._last < self._first:
            return None
        return (self._last - self._first).total_seconds()


def _found(pattern: re.Pattern[bytes], mark: bytes, text: bytes, *, last: bool) -> list[bytes]:
    """What *pattern* finds in *text*; of the *last* one only it is looked for from the end."""
    begin = text.rfind(b"\n", 0, text.rfind(mark)) + 1 if last else 0
    return (pattern.findall(text, begin) or pattern.findall(text))[-1:] if last else pattern.findall(text)


def _time(match: re.Match[bytes]) -> datetime | None:
    try:
        whole = datetime.fromisoformat(match[1].decode())
    except ValueError:
        return None
    return whole.replace(microsecond=int((match[2] or b"0").ljust(6, b"0")))
