"""The one line: `enable()` makes a script for one device train on all ranks of the job, with the one-device result.

Every rank runs the whole script. What makes them one device:

    options    which of MoAI's options this storey keeps; the others are refused
    share      which rows of a global batch belong to a rank, and what they weigh
    loader     every DataLoader hands each rank its share of the global batch
    training   whether the script trains or evaluates, where every rank sees everything
    losses     a mean or a sum over the batch is one over the global batch
    gradients  the gradients of all ranks are averaged while backward still runs
    engine     holds these together: batches, backward, the numbers that the script reads
    seen       the optimizers and parameters that the script made
    replace    where torch calls all this

The functions of torch are replaced right after torch is imported, so that a script's
`from torch.nn.functional import cross_entropy` gets ours; until `enable()` they do what they always did.
"""

from typing import TYPE_CHECKING, Any

from ..here import here
from . import options

if TYPE_CHECKING:
    from .seen import Seen

_SEEN: list["Seen"] = []


def install() -> None:
    """Make torch ready for `enable()`, where the job has several ranks; called once, right after torch was imported."""
    me = here()
    if me is not None and me.ranks.world_size > 1:
        from . import replace
        from .seen import Seen

        _SEEN.append(Seen())
        replace.install(_SEEN[0])


def is_on() -> bool:
    """Whether the ranks are one device by now."""
    return bool(_SEEN) and _SEEN[0].engine is not None


def enable(**choices: Any) -> None:
    """Train on all ranks of this job as if they were one device.

    The batch of the script is the global batch: each rank gets its rows, losses and gradients are those of the whole
    batch, rank 0 prints and saves. Outside the runtime, and with one rank, nothing changes. *choices* are MoAI's
    options (`options.KNOWN`), each `"auto"` or off. Raises RequestError for an option that cannot be kept.
    """
    me = here()
    if me is None:
        return
    options.check(choices)
    if me.ranks.world_size == 1:
        return
    import torch  # noqa: F401  (its import is what calls `install`)

    from .. import group
    from .engine import Engine, agree_on_chance

    seen = _SEEN[0]
    if seen.engine is not None:
        return
    for stream in me.streams:
        stream.silence()
    group.join()
    agree_on_chance()
    seen.engine = Engine(me.ranks.rank, me.ranks.world_size, seen)
    seen.engine.gradients.refresh()
