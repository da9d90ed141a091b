"""The one log line per training step: how we write it and how we read it, side by side.

The shape is the MoAI tutorials' (`[Step 10/560] | Loss: 1.85 | Duration: 129.06 | Throughput: 4062.49 tokens/sec`), so
that a reader of one reads the other.
"""

import math
import re
from dataclasses import dataclass

_NUMBER = r"[-+]?(?:\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf)"
STEP = re.compile(
    r"\[Step (?P<step>\d+)(?:/(?P<total>\d+))?\]"
    rf"(?=.*?\bLoss ?: ?(?P<loss>{_NUMBER}))?"
    rf"(?=.*?\bDuration(?: for 1 Step)? ?: ?(?P<seconds>{_NUMBER}))?"
    rf"(?=.*?\b(?:Throughput|TPS) ?: ?(?P<rate>{_NUMBER}) ?(?P<unit>tokens|samples)/sec)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step as logged; what the line does not say is None. `rate` is in `unit`s per second."""

    step: int | None
    total: int | None = None
    loss: float | None = None
    seconds: float | None = None
    rate: float | None = None
    unit: str | None = None


def format_step(step: Step) -> str:
    """The line of *step*, without a line end; parts that are None are left out."""
    total = "" if step.total is None else f"/{step.total}"
    parts = [f"[Step {step.step}{total}]"]
    if step.loss is not None:
        parts.append(f"Loss: {step.loss!r}")
    if step.seconds is not None:
        parts.append(f"Duration: {step.seconds:.3f}")
    if step.rate is not None and step.unit is not None:
        parts.append(f"Throughput: {step.rate:.2f} {step.unit}/sec")
    return " | ".join(parts)


def parse_step(line: str) -> Step | None:
    """The step that *line* logs, or None when it logs none."""
    match = STEP.search(line)
    if match is None:
        return None
    return Step(
        step=int(match["step"]),
        total=int(match["total"]) if match["total"] else None,
        loss=_number(match["loss"]),
        seconds=_number(match["seconds"]),
        rate=_number(match["rate"]),
        unit=match["unit"].lower() if match["unit"] else None,
    )


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    value = float(text.replace(",", ""))
    return value if math.isfinite(value) or text.lower().lstrip("+-") in ("nan", "inf") else None
