"""The plan that is at work, said in the log as MoAI says it and in plain words, and kept in the run folder."""

import sys
from pathlib import Path
from typing import Any

from ...plan import Plan
from ..meeting import write_json
from .share import Share

_FILE = "plan.json"


def announce(run: Path, plan: Plan, rows: int) -> None:
    """Say and keep *plan*; *rows* are those of the first batch over all ranks, 0 where none is known.

    Raises RunError when the run folder cannot be written.
    """
    line = plan.moai_line(max(1, -(-rows // (plan.data_ranks * plan.micro_batches))))
    for sentence in (f"[info] {line}", *plan.sentences(), *plan.reasons):
        print(f"lumi-moai: {sentence}", file=sys.stderr)
    write_json(run / _FILE, _described(plan, rows, line))


def introduction(share: Share, *, by_hand: bool) -> str:
    """The sentence that says how a batch was cut; *by_hand*: no loader gave it, and only models are shared out."""
    least, rest = divmod(share.total, share.ranks)
    rows = f"{least} or {least + 1} rows" if rest else f"{least} row" + ("s" if least != 1 else "")
    said = f"data parallel over {share.ranks} ranks: global batch {share.total} is {rows} a rank"
    return f"{said}; no DataLoader made it, and its rows are shared out within the model" if by_hand else said


def _described(plan: Plan, rows: int, line: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "plan": plan.as_json(),
        "moai": line,
        "words": list(plan.sentences()),
        "global_batch_rows": rows or None,
        "ranks": plan.world_size,
    }
