"""MoAI's options of the one line, as wishes for the layout."""

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import RequestError, did_you_mean
from ...plan import Layout

_Wish = Callable[[Any], dict[str, Any]]


def _switch(on: dict[str, Any], off: dict[str, Any]) -> _Wish:
    return lambda value: on if value else off


def _count(name: str) -> _Wish:
    return lambda value: {name: value}


KNOWN: Mapping[str, tuple[type, _Wish]] = {
    "pipeline_parallel": (bool, _switch({}, {"pp": 1})),
    "num_stages": (int, _count("pp")),
    "num_micro_batches": (int, _count("micro_batches")),
    "activation_recomputation": (bool, _switch({"recompute": "full"}, {"recompute": "none"})),
    "distribute_parameter": (bool, _switch({"data": "shard"}, {"data": "replicate"})),
    "mixed_precision": (bool, _switch({"precision": "bf16"}, {"precision": "script"})),
}
"""Each option with the type of its value, and what a value means for the layout."""
_OPEN = ("auto", None)


def wishes(choices: Mapping[str, object]) -> Layout:
    """The layout that the options *choices* ask for; `"auto"` leaves a choice to the rule.

    Raises RequestError for an option that is unknown, or a value of another type.
    """
    given: dict[str, Any] = {}
    for name, value in choices.items():
        if name not in KNOWN:
            raise RequestError(
                f"enable_advanced_parallelization() has no option {name!r}{did_you_mean(name, KNOWN)}"
                f" (it has {', '.join(KNOWN)})"
            )
        kind, meaning = KNOWN[name]
        if value in _OPEN:
            continue
        if type(value) is not kind:
            raise RequestError(f"{name}={value!r} is no {kind.__name__}; give one, or 'auto'")
        given |= meaning(value)
    return Layout(**given)
