"""When to save: often enough that little is lost, so seldom that training hardly waits."""

from math import sqrt

SHARE = 0.02
"""The part of the time that training may wait for checkpoints."""
FIRST_SECONDS = 60.0
"""A run that is shorter needs no checkpoint."""
_BETWEEN_FAILURES = 24 * 3600.0
"""Seconds; a careful guess for a job of some hundred devices, of which a day without any failure is a good one."""
_POLL_SECONDS = 0.5
_MOST_STEPS = 1000


def seconds_between(wish: str | float, stall: float | None, written: float | None) -> float:
    """Seconds from one checkpoint to the next.

    *wish* is the user's (`auto` or a number). *stall* is how long training last waited for one, *written* how long the
    files took; None before the first. Young's rule, sqrt(2 x cost x time between failures), loses the least on average;
    the stall stays under `SHARE` of the time in any case, and a checkpoint is finished before the next one begins.
    """
    if not isinstance(wish, str):
        return wish
    if stall is None:
        return FIRST_SECONDS
    return max(FIRST_SECONDS, stall / SHARE, 2 * (written or 0.0), sqrt(2 * stall * _BETWEEN_FAILURES))


def steps_between_questions(step_seconds: float) -> int:
    """After how many steps the ranks ask each other again: about twice a second, so that asking costs nothing."""
    return max(1, min(_MOST_STEPS, int(_POLL_SECONDS / max(step_seconds, 1e-6))))
