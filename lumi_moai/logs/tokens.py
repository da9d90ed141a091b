"""Rates of samples or steps as tokens, where the log itself says how many tokens they hold."""

from collections.abc import Mapping
from dataclasses import replace

from ..usage import Throughput


def in_tokens(
    rate: Throughput | None, step_seconds: float | None, notes: Mapping[str, str | float]
) -> Throughput | None:
    """*rate* in tokens; from the time of a step where there is none; None where the log does not tell enough.

    Samples need the `sequence_length` of *notes*; steps need `tokens_per_step`, or that and `global_batch_size`.
    """
    sequence = _count(notes, "sequence_length")
    if rate is not None:
        if rate.unit == "tokens_per_second":
            return rate
        return _times(rate, sequence) if sequence and rate.unit == "samples_per_second" else None
    tokens = _count(notes, "tokens_per_step") or sequence * _count(notes, "global_batch_size")
    if not (tokens and step_seconds):
        return None
    return Throughput(median=tokens / step_seconds, unit="tokens_per_second")


def _count(notes: Mapping[str, str | float], name: str) -> float:
    value = notes.get(name)
    return value if isinstance(value, int | float) and 0 < value < 1e12 else 0


def _times(rate: Throughput, factor: float) -> Throughput:
    return replace(
        rate,
        median=rate.median * factor,
        p10=None if rate.p10 is None else rate.p10 * factor,
        p90=None if rate.p90 is None else rate.p90 * factor,
        unit="tokens_per_second",
    )


def gibibytes(notes: Mapping[str, str | float]) -> float | None:
    """The peak memory that a log tells once, at its end: decimal GB or MB, or MB of 2^20 bytes."""
    if decimal := _count(notes, "memory_gb") * 1e9 or _count(notes, "memory_mb") * 1e6:
        return decimal / 2**30
    return _count(notes, "memory_mib") / 1024 or None
