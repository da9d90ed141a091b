"""Live values of the devices of a running job: one file a source, each with a pure part that reads its words."""

from .job import Reading, read
from .runs import Run, active, running
from .sample import Look, Process, Sample, packages

__all__ = ["Look", "Process", "Reading", "Run", "Sample", "active", "packages", "read", "running"]
