"""Fetch what a report or an estimate needs: logs from files, usage from the accounting, plans from the run folder.

A report is worth having with parts missing, so what cannot be had becomes a warning in it and the rest still comes.
"""

from .accounts import balance
from .files import read_log
from .prices import estimate
from .runs import collect, collect_run

__all__ = ["balance", "collect", "collect_run", "estimate", "read_log"]
