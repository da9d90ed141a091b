"""What stands against computing a model piece by piece and more than once, looked for in its first calls."""

from typing import Any
from weakref import ref

from torch import nn

from ...micro import obstacles
from . import elsewhere

_LOOKS = 4
"""Pieces that are looked at."""


class Looks:
    """At one model."""

    def __init__(self, root: nn.Module) -> None:
        self._root = ref(root)
        self._left = _LOOKS
        self._buffers: dict[str, Any] | None = None
        self._results: set[int] = set()

    def ahead(self, name: str) -> None:
        """A call begins.

        Raises RequestError for a model that cannot be computed so.
        """
        if self._left == _LOOKS:
            for reason in obstacles.reasons(self._model()):
                raise elsewhere.refusal(f"of {name}, {reason}")
        self._results = {id(value) for _, value in obstacles.attributes(self._model())} if self._left else set()

    def at_buffers(self, name: str) -> None:
        """A piece was computed.

        Raises RequestError when each piece changes a buffer; one that the first piece makes is none of that kind.
        """
        if self._left <= 0:
            return
        self._left -= 1
        now = obstacles.versions(self._model())
        for place, version in (self._buffers or {}).items():
            if now.get(place) != version:
                raise elsewhere.refusal(f"the forward of {name} changes the buffer {place} with each batch")
        self._buffers = now

    def at_results(self, name: str) -> None:
        """A piece was computed with gradients.

        Raises RequestError when the model kept a result, which belongs to one piece and one stage.
        """
        if self._left <= 0:
            return
        for place, value in obstacles.attributes(self._model()):
            if id(value) not in self._results and value.requires_grad:
                raise elsewhere.refusal(f"{place} of {name} keeps a result of forward; return it from forward instead")

    def _model(self) -> nn.Module:
        return self._root()  # it is being called
