"""What a run's devices and nodes were seen to do while it ran: one line of JSON a look, and many of them as history."""

from .history import History, Track, history, spread
from .line import Line, format_line, grouped, parse_line

__all__ = ["History", "Line", "Track", "format_line", "grouped", "history", "parse_line", "spread"]
