"""`#SBATCH` lines: what they ask of Slurm, and what that blocks."""

from .asked import Asked, Directive, Header, asked_of, header
from .parts import parts, read, read_parts
from .usage import usage

__all__ = ["Asked", "Directive", "Header", "asked_of", "header", "parts", "read", "read_parts", "usage"]
