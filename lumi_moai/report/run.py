"""One run, or several together: what it gave, what it took, what it cost, how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..logs import Cause, Evidence, Log, Outcome, Remark
from ..logs.outcome import cause_of
from ..usage import Accounting, Bill


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What the run was expected to take when it was submitted: its whole time limit."""

    billing_units: float
    unit: str
    hours: float
    nodes: int | None = None
    devices: int | None = None


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the ranks said of their places, as rank 0 judged it."""

    verdict: str
    """`right`, `wrong`, or `unbound` on a site that binds nothing."""
    ranks: int
    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything known of a run; None for what is not. `tasks` are the runs of an array, of which this is the sum."""

    name: str
    job_id: str | None = None
    site: str | None = None
    outcome: Outcome
    evidence: Evidence | None = None
    log: Log | None = None
    accounting: Accounting | None = None
    bill: Bill | None = None
    planned: Planned | None = None
    certificate: Certificate | None = None
    world_size: int | None = None
    starts: int = 1
    """How often the job was started: more than once after a requeue."""
    tasks: tuple["Report", ...] = ()
    warnings: tuple[str, ...] = ()
    """What could not be had, one sentence each."""
    table: Mapping[str, str] = field(default_factory=dict)
    """What to do about each cause and remark."""

    peak_tflops: float | None = None
    """Dense 16-bit peak of the devices that it ran on, where they are known."""

    @property
    def share_of_peak(self) -> tuple[float | None, float | None]:
        """The part of a device's peak that was used (1.0 is all of it), and that peak in 10^12 operations a second.

        The log's own part, and the peak that follows from it; else from the log's operations and the device's peak.
        """
        log = self.log or Log(name="")
        if log.mfu:
            return log.mfu, log.tflops / log.mfu if log.tflops else self.peak_tflops
        if log.tflops and self.peak_tflops:
            return log.tflops / self.peak_tflops, self.peak_tflops
        return None, None

    @property
    def cause(self) -> Cause:
        """What the outcome came from."""
        return self.evidence.why if self.evidence else cause_of(self.outcome)

    @property
    def advice(self) -> str | None:
        """What to do about the outcome; None where there is nothing to do."""
        return self.table.get(self.cause)

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """What the log says that is no end but should not be overlooked."""
        return self.log.remarks if self.log else ()


def advised(report: Report, table: Mapping[str, str]) -> Report:
    """*report* and its tasks with *table* in them."""
    return replace(report, table=table, tasks=tuple(advised(task, table) for task in report.tasks))


def together(name: str, reports: Sequence[Report], *, job_id: str | None = None) -> Report:
    """Several runs as one: the sum of bills and plans, and of the outcomes the first that is not `completed`.

    Steps, losses and rates of different runs have no sum; they stay with `tasks`.
    """
    bad = [report for report in reports if report.outcome != "completed"]
    first = (bad or list(reports))[0]
    sites = {report.site for report in reports}
    sizes = {report.world_size for report in reports}
    return Report(
        name=name,
        job_id=job_id,
        site=first.site if len(sites) == 1 else None,
        outcome=first.outcome,
        evidence=first.evidence,
        bill=_sum_of_bills([report.bill for report in reports if report.bill]),
        planned=_sum_of_plans([report.planned for report in reports if report.planned]),
        world_size=first.world_size if len(sizes) == 1 else None,
        tasks=tuple(replace(report, warnings=()) for report in reports),
        warnings=tuple(dict.fromkeys(warning for report in reports for warning in report.warnings)),
    )


def _sum_of_bills(bills: Sequence[Bill]) -> Bill | None:
    if len({bill.unit for bill in bills}) != 1:
        return None
    uppers = [bill.upper_bound for bill in bills if bill.upper_bound is not None]
    plain = sum(bill.billing_units for bill in bills if bill.upper_bound is None)
    return replace(
        bills[0],
        billing_units=sum(bill.billing_units for bill in bills),
        hours=sum(bill.hours for bill in bills),
        upper_bound=sum(uppers) + plain if uppers else None,
    )


def _sum_of_plans(plans: Sequence[Planned]) -> Planned | None:
    if len({plan.unit for plan in plans}) != 1:
        return None
    units, hours = sum(plan.billing_units for plan in plans), sum(plan.hours for plan in plans)
    return replace(plans[0], billing_units=units, hours=hours)
