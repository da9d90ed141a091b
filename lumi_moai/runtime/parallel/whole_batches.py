"""Batches that every rank puts together whole, as one device does, to take its own rows from them.

A collate function that is given a rank's rows pads them to the longest of these. Where the self-check finds that the
result depends on it, ranks go on like this: it reads all samples on every rank, which is why it is not the rule.
"""

from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, default_collate

from .. import group
from ..meeting import write_json
from . import mixed_rows

if TYPE_CHECKING:
    from .engine import Engine


class WholeBatches:
    """Whether this run does so, kept in its folder for the next start."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.file = engine.me.run / "whole-batches.json"
        self.is_on = False

    def begin(self) -> None:
        """Do as an earlier start of this run did; all ranks come here together."""
        self.is_on = group.agree(self.file.exists())

    def take(self, reason: str) -> None:
        """Do so from the batch at hand on; all ranks come here together.

        Raises RunError where the run folder cannot be written.
        """
        self.is_on = True
        if self.engine.rank == 0:
            write_json(self.file, {"reason": reason})

    def are_mixed(self, loader: DataLoader) -> bool:
        """Whether *loader* must put them together at any rate, since its collate function mixes rows."""
        with self.engine.unjournaled():
            found = mixed_rows.are_in(loader)
        if found:
            self.engine.say_once(
                "mixed",
                "a collate function makes rows out of several samples, so each rank puts whole batches together, as one"
                " device does, which reads all samples on every rank; to mix rows behind the loader spares that",
            )
        return found

    def handed_out(self, loader: DataLoader | None, batch: Any) -> Any:
        """What the script gets as *batch* of *loader*."""
        if not self.is_on or loader is None or loader.collate_fn is default_collate:
            return batch
        with self.engine.unjournaled():
            return self.engine.cutter.as_one_device(loader, batch)
