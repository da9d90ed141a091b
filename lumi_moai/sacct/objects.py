"""What `sacct --json` prints, as the rows of `sacct --parsable2`: Slurm 21 to 25.

The layout changes with the version: a number is a number or `{"set": true, "infinite": false, "number": 7}`, a state a
word or a list of words, a step's id a text or an object. Memory is in MiB, a step's peak in bytes.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .rows import Row


def rows(text: str) -> Iterator[Row]:
    """Every job of *text* and its steps; nothing where *text* is no such object."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return
    jobs = data.get("jobs") if isinstance(data, dict) else None
    for job in jobs if isinstance(jobs, list) else ():
        if isinstance(job, dict):
            yield from _job(job)


def _job(job: Mapping[str, Any]) -> Iterator[Row]:
    job_id = _job_id(job)
    if not job_id:
        return
    time = _object(job, "time")
    yield {
        "JobID": job_id,
        "JobName": _text(job.get("name")),
        "State": _state(job),
        "ExitCode": _exit_code(job),
        "Partition": _text(job.get("partition")),
        "Account": _text(job.get("account")),
        "TimelimitRaw": _digits(time.get("limit")),
        "ElapsedRaw": _digits(time.get("elapsed")),
        "AllocTRES": ",".join(_tres(_object(job, "tres").get("allocated"))),
        "NNodes": _digits(job.get("allocation_nodes")),
        "Start": _digits(time.get("start")),
        "End": _digits(time.get("end")),
        "Reason": _text(_object(job, "state").get("reason")),
        "Restarts": _digits(job.get("restart_cnt")),
    }
    steps = job.get("steps")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict):
            yield _step(job_id, step)


def _step(job_id: str, step: Mapping[str, Any]) -> Row:
    called = _object(step, "step")
    return {
        "JobID": f"{job_id}.{_text(called.get('name')) or 'step'}",
        "State": _word(step.get("state")),
        "ExitCode": _exit_code(step),
        "MaxRSS": _peak(step),
    }


def _job_id(job: Mapping[str, Any]) -> str:
    array, het = _object(job, "array"), _object(job, "het")
    task, offset = array.get("task_id"), het.get("job_offset")
    if _is_set(task) and _digits(array.get("job_id")) not in ("", "0"):
        return f"{_digits(array.get('job_id'))}_{_digits(task)}"
    if _is_set(offset) and _digits(het.get("job_id")) not in ("", "0"):
        return f"{_digits(het.get('job_id'))}+{_digits(offset)}"
    return _digits(job.get("job_id"))


def _is_set(value: Any) -> bool:
    return value.get("set") is True if isinstance(value, dict) else isinstance(value, int)


def _digits(value: Any) -> str:
    """A count as digits; what is not set, infinite or negative is none."""
    if isinstance(value, dict):
        value = None if value.get("infinite") or not value.get("set") else value.get("number")
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15
    return str(value) if is_count else ""


def _object(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _word(value: Any) -> str:
    """The first of several words: `["CANCELLED"]`; later ones are flags."""
    return _text(value[0] if isinstance(value, list) and value else value)


def _state(job: Mapping[str, Any]) -> str:
    state = _word(_object(job, "state").get("current"))
    by = _text(job.get("kill_request_user"))
    return f"{state} by {by}" if state == "CANCELLED" and by else state


def _exit_code(thing: Mapping[str, Any]) -> str:
    code = _object(thing, "exit_code")
    signal = code.get("signal")
    number = signal.get("id", signal.get("signal_id")) if isinstance(signal, dict) else None
    return f"{_digits(code.get('return_code')) or 0}:{_digits(number) or 0}"


def _tres(allocated: Any) -> Iterator[str]:
    for each in allocated if isinstance(allocated, list) else ():
        count = _digits(each.get("count")) if isinstance(each, dict) else ""
        if count:
            name = _text(each.get("name"))
            unit = "M" if each.get("type") == "mem" else ""
            yield f"{_text(each.get('type'))}{'/' + name if name else ''}={count}{unit}"


def _peak(step: Mapping[str, Any]) -> str:
    used = _object(_object(step, "tres"), "requested").get("max")
    for each in used if isinstance(used, list) else ():
        if isinstance(each, dict) and each.get("type") == "mem" and (count := _digits(each.get("count"))):
            return f"{int(count) / 1024:.0f}K"
    return ""
