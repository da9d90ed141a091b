"""What a run gave, took and cost, as a value, as text, as JSON and as CSV."""

from .estimate import Estimate
from .machine import as_csv, as_dict
from .run import Certificate, Planned, Report, advised, together
from .text import as_text
from .verdict import LIVE, first_cause, judge

__all__ = [
    "LIVE",
    "Certificate",
    "Estimate",
    "Planned",
    "Report",
    "advised",
    "as_csv",
    "as_dict",
    "as_text",
    "first_cause",
    "judge",
    "together",
]
