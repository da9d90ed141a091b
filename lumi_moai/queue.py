"""squeue's lines, and Slurm's reasons for waiting in words that say what to do."""

from collections.abc import Sequence
from dataclasses import dataclass

# Slurm's reason -> what it means and what helps. Source: the squeue manual, "JOB REASON CODES".
REASONS = {
    "Priority": "other jobs come first; it starts when they have",
    "Resources": "next in line, waiting for nodes to become free",
    "Dependency": "waits for another job to end",
    "DependencyNeverSatisfied": "the job it waits for failed, so it never starts: cancel it",
    "JobHeldUser": "you hold it: `scontrol release JOBID` lets it go",
    "JobHeldAdmin": "the site's staff hold it: write to support",
    "BeginTime": "waits for its begin time; after a requeue this passes by itself in a minute or two",
    "Licenses": "waits for a licence",
    "PartitionTimeLimit": "its limit is over the partition's, so it never starts: cancel it and ask for less --time",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives: cancel it and choose a smaller --flavor",
    "PartitionDown": "the partition is closed, often for maintenance",
    "PartitionInactive": "the partition is closed, often for maintenance",
    "ReqNodeNotAvail": "nodes are reserved, often for maintenance: a shorter --time may fit before it",
    "Reservation": "waits for its reservation to begin",
    "AssocGrpGRESMinutes": "the project has used up its device hours: ask for more, or use another --account",
    "AssocGrpCPUMinutesLimit": "the project has used up its core hours: ask for more, or use another --account",
    "AssocGrpBillingMinutes": "the project has used up its hours: ask for more, or use another --account",
    "AssocMaxJobsLimit": "the project runs as many jobs as it may: it starts when one of them ends",
    "QOSMaxJobsPerUserLimit": "you run as many jobs as the partition allows: it starts when one of them ends",
    "QOSMaxSubmitJobPerUserLimit": "you have as many jobs as the partition allows",
    "QOSMaxNodePerUserLimit": "your jobs use as many nodes as you may: it starts when one of them ends",
    "QOSMaxGRESPerUser": "your jobs use as many devices as you may: it starts when one of them ends",
    "MaxMemPerLimit": "it asks for more memory than the partition gives: cancel it and submit it anew",
    "BadConstraints": "no node can ever take it: cancel it and look at its options",
    "InvalidAccount": "the project does not exist: cancel it and name another --account",
    "InvalidQOS": "the quality of service does not exist: cancel it",
    "JobArrayTaskLimit": "the array runs as many tasks at once as its `%` allows",
    "launch failed requeued held": "its nodes could not start it: `scontrol release JOBID` tries again",
    "NonZeroExitCode": "it ended with an error",
    "NodeDown": "a node of the job went down",
    "Cleaning": "Slurm is still clearing up after its last run",
}


@dataclass(frozen=True, kw_only=True)
class Queued:
    """One job, or one task of an array, that is queued or running."""

    job_id: str
    name: str
    state: str
    reason: str
    elapsed_seconds: int
    partition: str
    nodes: int

    @property
    def advice(self) -> str | None:
        """What the reason means and what helps; None for a job that is not held up or a reason that we do not know."""
        if self.state == "RUNNING":
            return None
        known = (text for reason, text in REASONS.items() if self.reason.startswith(reason))
        return REASONS.get(self.reason) or next(known, None)


def parse(text: str, fields: Sequence[str]) -> list[Queued]:
    """The jobs in squeue's *text*: columns are *fields*, apart by `|`, the name last; other lines are skipped."""
    rows = []
    for line in text.splitlines():
        parts = line.split("|", len(fields) - 1)
        if len(parts) == len(fields):
            row = dict(zip(fields, parts, strict=True))
            rows.append(_queued(row))
    return rows


def _queued(row: dict[str, str]) -> Queued:
    reason = row["reason"].strip()
    return Queued(
        job_id=row["job_id"].strip(),
        name=row["name"],
        state=row["state"].strip(),
        reason="" if reason in ("None", "(null)") else reason,
        elapsed_seconds=_elapsed(row["elapsed"].strip()),
        partition=row["partition"].strip(),
        nodes=int(row["nodes"]) if row["nodes"].strip().isdecimal() else 0,
    )


def _elapsed(text: str) -> int:
    """Seconds of `D-HH:MM:SS`, `MM:SS` and so on; 0 for `INVALID`, which Slurm prints for clocks that disagree."""
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in [*parts, *([days] if dash else [])]):
        return 0
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + int(part)
    return seconds + (int(days) * 86400 if dash else 0)
