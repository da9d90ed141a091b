"""What a job took (from the accounting), what it costs, and what it gave (from the log)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Resources that a job blocked, and for how long. Memory in GiB over all nodes, cores physical."""

    partition: str
    nodes: int
    devices: int
    cores: int
    memory_gib: float
    hours: float


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What a usage costs. `decided_by` names what set the price: nodes, devices, cores, memory, or storage."""

    billing_units: float
    unit: str
    hours: float
    decided_by: str
    upper_bound: float | None = None
    """The price if the site rounds up on each node; None where that makes no difference."""

    @property
    def per_hour(self) -> float:
        """Billing units of one hour."""
        return self.billing_units / self.hours if self.hours else 0.0


@dataclass(frozen=True, kw_only=True)
class Accounting:
    """One ended or running job as sacct tells it; an array's tasks are jobs of their own."""

    job_id: str
    name: str
    state: str
    partition: str
    account: str
    usage: Usage
    elapsed_seconds: int
    exit_code: str
    reason: str = ""
    max_rss_gib: float | None = None
    restarts: int = 0
    limit_seconds: int | None = None
    """The time limit; None where it is none or not told."""
    start: str | None = None
    end: str | None = None


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Rate of work after the first step. `scope` is `total` or `per_device`; `unit` such as `tokens_per_second`."""

    median: float
    unit: str
    scope: str = "total"
    p10: float | None = None
    """A tenth of all rates lie below."""
    p90: float | None = None
    """A tenth of all rates lie above."""


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What a project may spend and has spent, in the unit of its bills; both grow about hourly at most sites."""

    account: str
    unit: str
    alloc: float
    used: float

    @property
    def left(self) -> float:
        """What is left of the allocation; negative when it is overdrawn."""
        return self.alloc - self.used
