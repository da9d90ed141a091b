"""A report for people: a word at the left, what it means at the right."""

from collections.abc import Iterator, Sequence
from math import ceil
from textwrap import wrap

from ..logs import Log
from ..units import format_gib, format_minutes, format_seconds
from ..usage import Throughput
from .gap import gap, per_million_tokens
from .run import Report

_WIDTH = 12
_TEXT = 108
_OUTCOMES = {"out_of_memory": "out of memory", "timeout": "time limit", "node_failure": "node failure"}
_CAUSES = {
    "device_out_of_memory": "out of memory of a device",
    "host_out_of_memory": "out of memory of the host",
    "preempted": "cancelled: preempted",
    "requeued": "cancelled: requeued",
    "device_fault": "failed: fault of a device",
    "collective_timeout": "failed: ranks timed out waiting for each other",
    "collective_error": "failed: ranks lost each other",
    "killed": "failed: killed from outside",
    "start_failed": "failed: did not start",
    "platform_error": "failed: the platform",
    "refused": "failed: lumi-moai stopped it",
}


def as_text(report: Report) -> str:
    """*report* in lines of text."""
    lines = [f"{word:<{_WIDTH}}{text}" for word, text in _lines(report)]
    return "\n".join([*lines, *_table(report.tasks)]) + "\n"


def facts(report: Report) -> tuple[tuple[str, str], ...]:
    """The lines of `as_text` as pairs of a word and its text; several texts of one word are one, with line ends."""
    pairs: list[tuple[str, str]] = []
    for word, text in _lines(report):
        if word:
            pairs.append((word, text))
        else:
            above, before = pairs.pop()
            pairs.append((above, f"{before}\n{text}"))
    return tuple(pairs)


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    yield "Run", _title(report)
    yield from _outcome(report)
    if report.log:
        yield from _log(report, report.log)
    yield from _ranks(report)
    yield from _cost(report)


def _title(report: Report) -> str:
    job = f", job {report.job_id}" if report.job_id else ""
    place = f" on {report.site}" if report.site else ""
    partition = report.accounting.partition if report.accounting else ""
    return f"{report.name}{job}{place}{f', partition {partition}' if partition else ''}"


def _outcome(report: Report) -> Iterator[tuple[str, str]]:
    of = f" ({_done(report.tasks)} of {len(report.tasks)} completed)" if report.tasks else ""
    yield "Outcome", _CAUSES.get(report.cause, _OUTCOMES.get(report.outcome, report.outcome)) + of
    if report.evidence and report.evidence.outcome != "completed" and report.evidence.line != "RUNNING":
        rank = f"rank {report.evidence.rank}: " if report.evidence.rank is not None else ""
        yield "", f"{rank}{report.evidence.line}"
        yield "", f"({report.evidence.place})"
    yield from _advice(report)
    if report.starts > 1:
        yield "Starts", f"{report.starts}: the job was requeued"


def _advice(report: Report) -> Iterator[tuple[str, str]]:
    """What to do about the outcome, where it is a bad one, and what else the log warns of."""
    if report.advice and report.outcome not in ("completed", "running") and (report.evidence or report.log):
        yield from _wrapped("Advice", report.advice)
    for each in report.remarks:
        yield "Beside", each.line
        yield "", f"({each.place})"
        yield from _wrapped("", report.table.get(each.kind, ""))


def _wrapped(word: str, text: str) -> Iterator[tuple[str, str]]:
    lines = wrap(text, _TEXT, break_on_hyphens=False, break_long_words=False)
    yield from zip([word, *[""] * len(lines)], lines, strict=False)


def _done(tasks: Sequence[Report]) -> int:
    return sum(task.outcome == "completed" for task in tasks)


def _log(report: Report, log: Log) -> Iterator[tuple[str, str]]:
    if not log.records:
        yield "Steps", "the log has no step line that lumi-moai can read"
        return
    of = f" of {log.total_steps}" if log.total_steps else ""
    back = f"; the step number went back {_times(log.restarts)}" if log.restarts else ""
    span = f"{log.first_step} to {log.last_step}{of}, " if log.first_step is not None else ""
    if log.first_epoch is not None:
        span = f"{span}epoch{f's {log.first_epoch} to' if log.last_epoch != log.first_epoch else ''} {log.last_epoch}, "
    yield "Steps", f"{span}{log.records} logged{back or ('' if span else ', without a number')}"
    if log.loss_last is not None:
        nan = f"; not a number in {log.nan_steps} of them" if log.nan_steps else ""
        least = f", {log.loss_min:.6g} at least" if log.loss_min is not None else ""
        yield "Loss", f"{log.loss_first:.6g} at first, {log.loss_last:.6g} at last{least}{nan}"
    yield from _speed(report, log)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _speed(report: Report, log: Log) -> Iterator[tuple[str, str]]:
    warmup = log.notes.get("warmup_seconds", log.first_seconds)
    first = [f"{warmup:.4g} s"] if isinstance(warmup, int | float) else []
    if log.first_rate and "warmup_seconds" not in log.notes:
        unit = log.throughput.unit.removesuffix("_per_second") if log.throughput else "items"
        first.append(f"{_number(log.first_rate)} {unit}/s")
    if first:
        yield "First step", f"{', '.join(first)}; it holds the start-up and is not in the figures below"
    if log.step_seconds is not None:
        yield "Step time", f"{log.step_seconds:.4g} s (median)"
    if log.throughput:
        yield "Throughput", _throughput(log.throughput, log, report.world_size)
    elif log.records == 1 and log.first_rate:
        yield "Throughput", "only one step was logged, and it holds the start-up"
    else:
        yield "Throughput", "not in the log"
    rate = log.tokens_per_second
    if rate and rate != log.throughput:
        yield "", f"{_number(rate.median)} tokens/s, by the batch and sequence that the log names"
    yield from _device(report, log)


def _device(report: Report, log: Log) -> Iterator[tuple[str, str]]:
    """What one device reached."""
    share, peak = report.share_of_peak
    done = [f"{log.tflops:.4g} TFLOP/s"] if log.tflops else []
    if share:
        done.append(f"{100 * share:.3g} % of its peak" + (f" of {peak:.4g}" if peak else ""))
    if done:
        yield "Device", f"{', '.join(done)} (median)"
    if log.memory_gib:
        yield "Memory", f"{log.memory_gib:.4g} GiB of a device at most"


def _throughput(rate: Throughput, log: Log, world_size: int | None) -> str:
    unit = rate.unit.removesuffix("_per_second")
    if rate.scope == "per_device":
        each = f"{_number(rate.median)} {unit}/s per device"
        return each + (f", {_number(rate.median * world_size)} in total" if world_size else "")
    device = f", {_number(rate.median / world_size)} per device" if world_size and world_size > 1 else ""
    return f"{_number(rate.median)} {unit}/s{device} (median of {log.steady_records})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _ranks(report: Report) -> Iterator[tuple[str, str]]:
    if report.world_size:
        yield "Ranks", str(report.world_size)
    found = report.certificate
    if found is None:
        return
    words = {"right": "right", "wrong": "wrong", "unbound": "not bound on this site"}
    notes = [*found.faults, *found.remarks]
    remarks = f", {count(len(found.remarks), 'remark')}" if found.remarks else ""
    yield "Binding", f"{words.get(found.verdict, found.verdict)} ({count(found.ranks, 'rank')} certified{remarks})"
    yield from (("", note) for note in notes[:3])
    if len(notes) > 3:
        yield "", f"and {len(notes) - 3} more, in the run folder's certificate/"


def _cost(report: Report) -> Iterator[tuple[str, str]]:
    took, bill, planned = report.accounting, report.bill, report.planned
    if took:
        usage, peak = took.usage, took.max_rss_gib
        rss = f"; the largest task used {format_gib(ceil(peak * 1024) / 1024)}" if peak is not None else ""
        shape = f"{count(usage.nodes, 'node')}, {count(usage.devices, 'device')}, {count(usage.cores, 'core')}"
        yield "Used", f"{format_seconds(took.elapsed_seconds)} of {shape}, {format_gib(usage.memory_gib)}{rss}"
    if bill:
        upper = f", at most {units(bill.upper_bound)} if rounded per node" if bill.upper_bound is not None else ""
        yield "Bill", f"{units(bill.billing_units)} {bill.unit}, decided by {bill.decided_by}{upper}"
    if planned:
        limit = format_minutes(round(planned.hours * 60))
        text = f"{units(planned.billing_units)} {planned.unit} for the time limit of {limit}"
        if bill and planned.unit == bill.unit and planned.billing_units:
            text += f"; {100 * bill.billing_units / planned.billing_units:.3g} % of it was used"
        yield "Planned", text
    if (found := gap(report)) and found.reasons:
        word = "more" if found.billing_units > 0 else "less"
        yield "", f"{units(abs(found.billing_units))} {word}: {'; '.join(found.reasons)}"
    steady, overall = per_million_tokens(report)
    if bill and steady:
        whole = f", {units(overall)} with start-up and end" if overall else ""
        yield "Price", f"{units(steady)} {bill.unit} for a million tokens at the steady rate{whole}"


def count(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def units(amount: float) -> str:
    """An amount of billing units: three significant digits of small ones, whole ones with commas."""
    if amount >= 1000:
        return f"{amount:,.0f}"
    return f"{amount:.4g}" if amount >= 0.001 or amount == 0 else f"{amount:.2g}"


def _table(tasks: Sequence[Report]) -> list[str]:
    if not tasks:
        return []
    rows = [("JOB", "OUTCOME", "STEPS", "LOSS", "THROUGHPUT", "ELAPSED", "BILL"), *(_row(task) for task in tasks)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "",
        *(
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ),
    ]


def _row(task: Report) -> tuple[str, ...]:
    log, took = task.log or Log(name=""), task.accounting
    return (
        task.job_id or task.name,
        _OUTCOMES.get(task.outcome, task.outcome),
        "-" if log.last_step is None else str(log.last_step),
        "-" if log.loss_last is None else f"{log.loss_last:.4g}",
        "-" if log.throughput is None else _number(log.throughput.median),
        "-" if took is None else format_seconds(took.elapsed_seconds),
        "-" if task.bill is None else units(task.bill.billing_units),
    )
