"""The one line: `enable()` makes a script for one device train on all ranks of the job, with the one-device result.

Every rank runs the whole script. What makes them one device:

    options    MoAI's options, as wishes for the layout
    roots      the models of the script, and what takes part when it calls one
    undivided/ a batch that no loader gave, shared out within a model that keeps rows apart
    first_call where training begins in a script without a DataLoader
    place      where this rank stands in the plan's mesh
    birth      models in parts from their birth
    layout/    the model spread over the ranks, in place
    share      which rows of a global batch belong to a rank, and what they weigh
    chance     random numbers of the script are rank 0's
    own_chance what a data set draws for its rows, and own_generators what it draws with
    loader     every DataLoader hands each rank its share of the global batch
    whole_batches  of batches put together whole, where the result depends on how far rows are padded
    widths     of batches whose rows each rank fills up to the width of the global batch, and fills with what
    cycled     batches that a script has kept, and is handed again
    mixed_rows     or where a collate function makes a row out of several samples
    time_first in which dimension a batch has its rows
    training   whether the script trains or evaluates, where every rank sees everything
    by_model   whether a model makes a number of the batch by hand
    kept       buffers that a model changes with each batch
    within     its lines are then followed, as the script's are
    losses     a mean or a sum over the batch is one over the global batch
    compiled   the same within what torch.compile makes
    divided    a sum of the global batch that the script divides
    single     which tensors are one number of the batch, whatever their shape
    marks      which numbers are those of all ranks already
    counts/    what the script counts while it trains, over the global batch
    gradients  the gradients of all ranks are averaged while backward still runs
    hooked     the script's hooks on gradients wait for that average
    by_hand    weights that the script trains without an optimizer
    alike      whether the ranks of an unequal batch do the same things
    stuck      ranks that wait for each other without end are stopped
    asked      gradients that the script takes by itself, without backward
    resume/    checkpoints, and how a restarted script gets back to one
    engine     holds these together: batches, backward, the numbers that the script reads
    seen       the optimizers and parameters that the script made
    replace    where torch calls all this
    libraries/ libraries that train, which believe in one device
    ahead      batches that they fetch before they use them
    moreh      MoAI's names for the one line
    already    what a script that is distributed by itself may not do as well
    need       which torch it takes
    files/     what the script reads and writes: rank 0's files are the script's
    scripted   what torch.jit.script compiles
    one_device what a script means by `cuda:0`

The functions of torch are replaced right after torch is imported, so that a script's
`from torch.nn.functional import cross_entropy` gets ours; until `enable()` they do what they always did.
"""

from typing import TYPE_CHECKING, Any

from ...plan import Layout
from ..here import here
from . import moreh, need, options
from .files import removing, writing

if TYPE_CHECKING:
    from .seen import Seen

_SEEN: list["Seen"] = []
_WAITING: list[Layout] = []
"""What the one line asked for in a script that has not imported torch yet, and perhaps never will."""


def install() -> None:
    """Make torch ready for `enable()`; called once in a rank, right after torch was imported."""
    if here() is None:
        return
    import torch

    moreh.install_names(torch, enable)
    if need.lacking(torch.__version__, has_network=torch.distributed.is_available()):
        if _WAITING:
            need.check_torch()
        return
    from . import already, libraries, one_device, replace, scripted
    from .seen import Seen

    _SEEN.append(Seen())
    replace.install(_SEEN[0])
    already.install(is_on)
    one_device.install(is_on)
    scripted.install()
    libraries.install(lambda: _SEEN[0].engine)
    for layout in _WAITING:
        _start(layout)


def answer_to_moai() -> None:
    """Let the script import MoAI's driver; called once in a rank, before the script."""
    moreh.install_package(is_on)


def watch_files() -> None:
    """Have a say in which files are written; called once in a rank, before the script."""
    writing.install()
    removing.install()


def is_on() -> bool:
    """Whether the ranks are one device by now."""
    return bool(_SEEN) and _SEEN[0].engine is not None


def finish() -> None:
    """The script has ended well: wait for a checkpoint that is still being written.

    Raises RequestError when a restarted script never came to the step of its checkpoint.
    """
    if _SEEN and _SEEN[0].engine is not None and _SEEN[0].engine.resume is not None:
        _SEEN[0].engine.resume.finish()


def explain(error: Exception) -> None:
    """Say in *error*, which ended the script, what may have made it."""
    if _SEEN and _SEEN[0].engine is not None:
        from . import counts
        from .layout import parts

        counts.explain(error, _SEEN[0].engine.share)
        parts.explain(error)


def enable(**choices: Any) -> None:
    """Train on all ranks of this job as if they were one device.

    The batch of the script is the global batch: each rank gets its rows, losses and gradients are those of the whole
    batch, rank 0 prints and saves. Outside the runtime nothing changes. *choices* are MoAI's options (`options.KNOWN`),
    each `"auto"` or a value. Raises RequestError for an option that cannot be.
    """
    me = here()
    layout = options.wishes(choices)
    if me is None:
        return
    for stream in me.streams:
        stream.silence()
    if me.ranks.world_size > 1:
        need.check_torch()
    if _SEEN:
        _start(layout)
    else:
        _WAITING.append(layout)


def _start(layout: Layout) -> None:
    from .. import group
    from . import already, chance, libraries, stuck
    from .engine import Engine

    me, seen = here(), _SEEN[0]
    if me is None or seen.engine is not None:
        return
    already.check(joined=group.was_joined())
    group.join()
    chance.agree()
    seen.engine = Engine(me, seen, layout)
    seen.engine.gradients.refresh()
    writing.begin(me.ranks.rank, me.ranks.world_size, me.run)
    stuck.watch(me, lambda: seen.engine.meter.step if seen.engine else 0)
    seen.engine.await_call()
    if me.wishes.checkpoint != "off":
        seen.engine.save_and_resume()
    libraries.begin(seen.engine)
