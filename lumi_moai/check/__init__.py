"""Batch scripts of anybody, read and judged by the facts of a site."""

from .reader import read
from .script import Script

__all__ = ["Script", "read"]
