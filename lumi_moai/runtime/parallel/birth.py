"""Models in parts from their birth: which ranks cut them, and what becomes of what no model's layout took."""

from typing import TYPE_CHECKING, Any

from ... import planner
from . import layout, place

if TYPE_CHECKING:
    from .engine import Engine
    from .place import Place


class Birth:
    """Of the parameters of one script."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.place: Place | None = None
        """Where this rank stands from the first parameter on, until training begins."""

    @property
    def is_wished(self) -> bool:
        """Whether the user asked for a layout in which a rank has less than all of a model."""
        wished = self.engine.layout
        return wished.data in ("shard", "hybrid") or (wished.tp or 1) * (wished.pp or 1) > 1

    def ranks(self) -> Any:
        """The mesh of ranks that get a part each of a new parameter; None if models are whole until training begins."""
        engine = self.engine
        if engine.place is None and self.place is None and self.is_wished:
            self.place = place.find(planner.choose(engine.layout, engine.scale()), engine.rank)
            layout.give_memory_back(at_once=True)
        here = engine.place or self.place
        return None if here is None else layout.ranks_of_birth(here)

    def end(self, where: "Place") -> None:
        """The models are laid out; what else still waits in parts becomes what *where* gives this rank."""
        seen = self.engine.seen
        layout.rest([*seen.modules(), *seen.copies()], where, seen.living_optimizers())
        if where.plan.shards and where.plan.dp_shard == 1:
            seen.note_whole()
