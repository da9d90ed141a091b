"""What a step of the self-check gave."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """One step."""

    loss: float
    norm: float
    """Of all gradients."""
    drawn: tuple[Any, ...] = field(default=(), compare=False, repr=False)
    """What `random` and numpy would have drawn next."""

    def agrees(self, other: "Result", loss: float, norm: float) -> bool:
        """Whether the two are one, up to these relative differences; infinite numbers are not compared."""
        return _is_close(self.loss, other.loss, loss) and _is_close(self.norm, other.norm, norm)


def _is_close(mine: float, theirs: float, tolerance: float) -> bool:
    finite = math.isfinite(mine) and math.isfinite(theirs)
    return not finite or math.isclose(mine, theirs, rel_tol=tolerance, abs_tol=1e-6)
