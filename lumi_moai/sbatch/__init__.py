"""`#SBATCH` lines: what they ask of Slurm, and what that blocks."""

from .asked import Asked, Directive, Header, asked_of, header, read
from .usage import usage

__all__ = ["Asked", "Directive", "Header", "asked_of", "header", "read", "usage"]
