"""A model whose blocks follow each other, in stages: each rank of a pp group holds some of the blocks, in place.

Every stage runs the model's own forward, one piece of the batch after the other. What comes ahead of the blocks is
computed by all of them; a block of an earlier stage gives what was received of it, one of a later stage ends the
forward here. What comes behind the blocks is computed by the last stage, which hands the outputs to all. So whatever a
model does around its blocks stays its own. The pieces are moved by torch.distributed.pipelining.

    owned      which blocks a stage holds, and how their weights answer on the others
    elsewhere  a tensor that another stage has
    passage    one piece on its way through the blocks of this stage
    travel     what a block returns as one row of numbers, and back
    plain      the weights that this stage computes with
    homes      weights outside of the blocks that one stage alone needs
    kinds      calls whose arguments have the same shapes
    looks      what stands against computing a piece more than once
    passes     the pieces of a call, forward and back
    handing    what the stages tell each other at the ends of a call
    schedule   torch's stages and schedules
    calls      a call of the script's model, and its backward
"""

from .calls import Calls
from .owned import apply

__all__ = ["Calls", "apply"]
