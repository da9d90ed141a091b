"""The plan that is at work, said in the log as MoAI says it and in plain words, and kept in the run folder."""

import sys
from pathlib import Path
from typing import Any

from ...plan import Plan
from ..meeting import write_json
from .share import Share

_FILE = "plan.json"


def announce(run: Path, plan: Plan, share: Share | None) -> None:
    """Say and keep *plan*; *share* is this rank's of the first batch, None where every rank has the whole batch.

    Raises RunError when the run folder cannot be written.
    """
    rows = 0 if share is None else -(-share.total // share.ranks)
    line = plan.moai_line(max(1, -(-rows // plan.micro_batches)))
    for sentence in (f"[info] {line}", *plan.sentences(), *plan.reasons):
        print(f"lumi-moai: {sentence}", file=sys.stderr)
    write_json(run / _FILE, _described(plan, share, line))


def introduction(share: Share, *, by_hand: bool) -> str:
    """The sentence that says how a batch was cut; *by_hand*: no loader gave it, and only models are shared out."""
    least, rest = divmod(share.total, share.ranks)
    rows = f"{least} or {least + 1} rows" if rest else f"{least} row" + ("s" if least != 1 else "")
    said = f"data parallel over {share.ranks} ranks: global batch {share.total} is {rows} a rank"
    return f"{said}; no DataLoader made it, and its rows are shared out within the model" if by_hand else said


def _described(plan: Plan, share: Share | None, line: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "plan": plan.as_json(),
        "moai": line,
        "words": list(plan.sentences()),
        "global_batch_rows": share.total if share else None,
        "ranks": plan.world_size,
    }
