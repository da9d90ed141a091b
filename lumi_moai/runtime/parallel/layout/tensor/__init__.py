"""Matrix products spread over the ranks of a tp group, in place: torch's Linear and the Conv1D of transformers.

moves    how numbers travel in the group
columns  what comes out of a layer whose columns are spread
layers   the layers themselves, and which part of them a rank has
"""

from .layers import apply

__all__ = ["apply"]
