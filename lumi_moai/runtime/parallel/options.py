"""MoAI's options of the one line, and which of them data parallelism over replicas can keep."""

from collections.abc import Mapping

from ...errors import RequestError, did_you_mean

KNOWN: Mapping[str, tuple[object, ...]] = {
    "pipeline_parallel": (),
    "num_stages": (1,),
    "num_micro_batches": (1,),
    "activation_recomputation": (),
    "distribute_parameter": (),
    "mixed_precision": (),
}
"""Each option with the values that say in its own words what happens anyway."""
_LEFT_TO_US = ("auto", "off", "none")


def check(choices: Mapping[str, object]) -> None:
    """Refuse options that are unknown, and values that would not be kept.

    Raises RequestError.
    """
    for name, value in choices.items():
        if name not in KNOWN:
            raise RequestError(
                f"enable_advanced_parallelization() has no option {name!r}{did_you_mean(name, KNOWN)}"
                f" (it has {', '.join(KNOWN)})"
            )
        if not _is_kept(name, value):
            raise RequestError(
                f"{name}={value!r} cannot be had yet: the ranks train as full replicas in the script's own precision;"
                f" leave {name} out or give 'auto'"
            )


def _is_kept(name: str, value: object) -> bool:
    if value is None or value is False:
        return True
    if isinstance(value, str):
        return value.lower() in _LEFT_TO_US
    return value is not True and value in KNOWN[name]
