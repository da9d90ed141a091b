"""Checkpoints, and how a restarted script gets back to one without a line of it changed.

The script runs again from its start. Until the step of the checkpoint its loops turn without work: models return
ghosts, backward and step do nothing, data loaders do load, and every number that the script reads is given back from a
journal. At that step the state is loaded, and the run goes on. In reading order:

    journal    what the script read, in order
    chance     random states
    reads      where torch gives a number to the script
    ghosts     tensors without values
    rowed      which of them have rows of a batch, that are counted over all ranks
    imagine    what a model would return
    survivors  what else the script holds at the step
    held       the same with what a step gives back, for a checkpoint
    batch_rows what of it was made of a batch, so that each rank has its own rows
    forwards   calls of models that no backward has reached, for which a checkpoint waits
    closures   what an optimizer calls for its loss
    files      what a repeating script must not write again
    state      models and optimizers as named tensors
    folder     checkpoints on disk: whole, torn, whose
    sharded    reading and writing them with torch
    interval   when to save
    saver      saving while training goes on
    rank       all this, for one rank
"""
