"""The certificate: every rank says what it sees of itself, rank 0 judges, and a wrong job stops within seconds."""

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..binding import Launch, Row, Verdict, judge
from ..units import format_cores
from .cores import bus_address, seen_cores
from .meeting import Meeting, write_json
from .ranks import Ranks

WRONG_BINDING = 78
"""Exit code of a job that the certificate stopped (`EX_CONFIG`: the set-up is wrong, not the script)."""
PATIENCE_SECONDS = 60.0
"""How long rank 0 waits for the others' rows, unless LUMI_MOAI_CERTIFICATE_SECONDS says otherwise."""
_JUDGEMENT_SECONDS = 30.0
_REASONS = 3
_LONGEST_TABLE = 64


def patience(environ: Mapping[str, str]) -> float:
    """Seconds that a rank waits for the others."""
    try:
        return max(float(environ["LUMI_MOAI_CERTIFICATE_SECONDS"]), 0.0)
    except (KeyError, ValueError):
        return PATIENCE_SECONDS


def see_myself(launch: Launch, ranks: Ranks, device: int) -> Row:
    """The row of this rank, after it was bound."""
    return Row(
        rank=ranks.rank,
        local_rank=ranks.local_rank,
        node_rank=ranks.node_rank,
        world_size=ranks.world_size,
        local_world_size=ranks.local_world_size,
        host=socket.gethostname(),
        cores=seen_cores(launch.topology),
        device=device,
        bus=bus_address(device) if launch.bind else None,
        pid=os.getpid(),
    )


def certify(
    launch: Launch, ranks: Ranks, row: Row, *, run: Path, meeting: Meeting, seconds: float
) -> dict[int, int] | None:
    """Post *row*, and return the process of each rank; None when the job must stop.

    Rank 0 judges, writes the certificate and prints what it found; all ranks get the same answer. A missing rank is
    waited for at most *seconds*.
    """
    meeting.post(f"rank-{ranks.rank}", row.as_json())
    if ranks.rank != 0:
        return _judged(row, meeting, seconds)
    notes = meeting.collect((f"rank-{rank}" for rank in range(ranks.world_size)), seconds)
    rows = sorted((Row.from_json(note) for note in notes.values()), key=lambda row: row.rank)
    verdict = _verdict(launch, rows)
    goes_on = not _stops(launch, rows, verdict)
    _say(launch, rows, verdict, goes_on)
    certificate = _certificate(launch, rows, verdict)
    # First the words, then the file: the others end as soon as they read it, and srun then ends rank 0 too.
    write_json(run / "certificate" / f"{ranks.label}.json", certificate)
    pids = {row.rank: row.pid for row in rows}
    meeting.post("verdict", {"goes_on": goes_on, "pids": list(pids.items())})
    return pids if goes_on else None


def _judged(row: Row, meeting: Meeting, seconds: float) -> dict[int, int] | None:
    note = meeting.collect(["verdict"], seconds + _JUDGEMENT_SECONDS).get("verdict")
    if not isinstance(note, dict):
        print(f"lumi-moai: rank {row.rank}: rank 0 wrote no certificate; look for its error", file=sys.stderr)
        return None
    pids = dict(note["pids"])
    if pids.get(row.rank) != row.pid:
        print(f"lumi-moai: rank {row.rank}: rank 0's certificate does not know this process", file=sys.stderr)
        return None
    return pids if note["goes_on"] else None


def _verdict(launch: Launch, rows: Sequence[Row]) -> Verdict:
    whole_node = launch.whole_node and launch.bind
    verdict = judge(launch.topology, rows, world_size=launch.world_size, whole_node=whole_node)
    return verdict if launch.bind else Verdict(faults=verdict.faults)


def _stops(launch: Launch, rows: Sequence[Row], verdict: Verdict) -> bool:
    """Cores may be wrong with `--binding warn`; a world that is not the job's can never work."""
    world = judge(launch.topology, rows, world_size=launch.world_size, whole_node=False)
    return bool(world.faults) or (launch.binding == "strict" and not verdict.right)


def _certificate(launch: Launch, rows: Sequence[Row], verdict: Verdict) -> dict[str, object]:
    word = "wrong" if not verdict.right else "right" if launch.bind else "unbound"
    return {
        "verdict": word,
        "faults": list(verdict.faults),
        "remarks": list(verdict.remarks),
        "rows": [row.as_json() for row in rows],
        "world_size": launch.world_size,
        "whole_node": launch.whole_node,
    }


def _say(launch: Launch, rows: Sequence[Row], verdict: Verdict, goes_on: bool) -> None:
    nodes = len({row.node_rank for row in rows})
    ranks = f"{_count(len(rows), 'rank')} on {_count(nodes, 'node')}"
    if verdict.right and not launch.bind:
        lines = [f"certificate: {ranks}, cores are not bound on this site"]
    elif verdict.right and not verdict.remarks:
        lines = [f"certificate right: {ranks}, each on the cores next to its device"]
    elif verdict.right:
        lines = [f"certificate right: {ranks}; Slurm gave cores away from their device", *verdict.remarks]
    else:
        why = [*verdict.faults[:_REASONS], *_more(len(verdict.faults) - _REASONS)]
        lines = [f"certificate wrong: {ranks}", *table(launch, rows), *why, _way_out(launch, goes_on)]
    sys.stderr.write("".join(f"lumi-moai: {line}\n" for line in lines))
    sys.stderr.flush()


def _more(rest: int) -> list[str]:
    return [f"(and {rest} more such sentences in the run folder's certificate)"] if rest > 0 else []


def _way_out(launch: Launch, goes_on: bool) -> str:
    if goes_on:
        return "going on all the same (--binding warn)"
    if launch.binding == "strict" and launch.whole_node:
        return "stopped before the script began; to let wrong cores pass, submit with --binding warn"
    return "stopped before the script began, because ranks are missing, doubled or share a device"


def table(launch: Launch, rows: Sequence[Row]) -> list[str]:
    """The table of *rows* for people, one line per rank; of a large job only the wrong ones."""
    cells = [_cells(launch, row) for row in rows]
    shown = cells if len(cells) <= _LONGEST_TABLE else [line for line in cells if line[-1] != "right"]
    lines = [("rank", "node", "device", "cores seen", "cores expected", "mark"), *shown[:_LONGEST_TABLE]]
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    text = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    rest = len(cells) - len(lines) + 1
    return [*text, f"({rest} more ranks not shown)"] if rest else text


def _cells(launch: Launch, row: Row) -> tuple[str, ...]:
    near = launch.topology.near_cores
    expected = near[row.device] if row.device is not None and row.device < len(near) else ()
    right = bool(row.cores) and set(row.cores) <= set(expected)
    mark = "right" if right or not launch.bind else "WRONG"
    seen = format_cores(row.cores) or "none"
    return str(row.rank), row.host, str(row.device), seen, format_cores(expected) or "none", mark


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
