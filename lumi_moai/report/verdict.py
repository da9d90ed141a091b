"""The outcome of a run: the accounting's word, made finer by the line in the log that says why."""

from collections.abc import Sequence

from ..logs.outcome import FINAL, Evidence, Outcome
from ..logs.signs import OUTCOMES, Cause

# sacct's states; the memory that Slurm watches is the host's.
_STATES: dict[str, Cause] = {
    "COMPLETED": "completed",
    "FAILED": "rank_crash",
    "OUT_OF_MEMORY": "host_out_of_memory",
    "TIMEOUT": "time_limit",
    "DEADLINE": "time_limit",
    "CANCELLED": "cancelled",
    "PREEMPTED": "preempted",
    "REVOKED": "cancelled",
    "NODE_FAIL": "node_failure",
    "BOOT_FAIL": "node_failure",
}
LIVE = (
    "PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "RESIZING", "SIGNALING",
    "STAGE_OUT", "SPECIAL_EXIT",
)  # fmt: skip
"""States of jobs that have not ended."""

# What Slurm can only call FAILED, because all it saw was an exit code.
_FINER: tuple[Outcome, ...] = ("out_of_memory", "timeout", "node_failure")
_OWN_WORDS = 42
"""The weight from which a rank's log says more than that the rank is gone."""


def judge(state: str | None, reason: str, evidence: Evidence | None) -> tuple[Outcome, Evidence | None]:
    """The outcome of a job in *state* (sacct's word, None where there is no accounting), and the line that shows it.

    The state decides, except that FAILED gives way to a log that names the memory, the time limit or the node. A line
    that tells of something else than the outcome (an error that was caught, echoes of a cancellation) is no evidence.
    """
    if state is None:
        return (evidence.outcome, evidence) if evidence else ("unknown", None)
    cause: Cause = "running" if state in LIVE else _STATES.get(state, "unknown")
    outcome = OUTCOMES.get(cause, "failed")
    if outcome == "failed" and evidence and evidence.outcome in _FINER and evidence.weight >= FINAL:
        outcome = evidence.outcome
    if evidence and evidence.outcome == outcome:
        return outcome, evidence
    word = f"{state} ({reason})" if reason else state
    return outcome, Evidence(outcome=outcome, line=word, place="accounting", cause=cause)


def first_cause(batch: Evidence | None, ranks: Sequence[Evidence]) -> Evidence | None:
    """The evidence nearest to the cause: in the batch log, or in the ranks' logs, which come in the order they ended.

    Where the batch log names the rank that failed first, that rank's own last words tell more than its exit code.
    """
    found = [batch, *ranks] if batch else list(ranks)
    heaviest = max(found, key=lambda evidence: evidence.weight, default=None)
    if heaviest is None or heaviest.weight >= FINAL or batch is None or batch.rank is None:
        return heaviest
    own = [evidence for evidence in ranks if evidence.rank == batch.rank and evidence.weight >= _OWN_WORDS]
    return own[0] if own else heaviest
