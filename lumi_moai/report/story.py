"""One run as a page tells it: the report, how its values went, and what its folder says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..logs.series import Series
from ..logs.thin import Point
from ..samples import History
from .run import Report


@dataclass(frozen=True, kw_only=True)
class Story:
    """Everything that is known of a run, for a page. The mappings are its folder's files; empty for a bare log."""

    report: Report
    series: Series = field(default_factory=Series)
    history: History = field(default_factory=History)
    """What its devices were seen to do; empty where nothing was written down."""
    clock: tuple[tuple[Point, ...], ...] = ()
    """Points of (step, seconds) for each start in `series`; empty where nothing tells when the steps were logged."""
    flavor: str | None = None
    job: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    passport: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()
    """What each rank saw of itself, from the certificate of the last start."""
    folder: str | None = None
    label: str | None = None
    """What it is called on the page where its name is a long path."""

    @property
    def title(self) -> str:
        """The run's name, and its job."""
        job = f" ({self.report.job_id})" if self.report.job_id else ""
        return f"{self.label or self.report.name}{job}"
