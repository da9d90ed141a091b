"""Which layout a job gets: the user's wishes, and a rule for what they leave open.

The rule: full copies where the model's states fit; else one copy spread over the ranks; then recompute. Micro-batches
come last, when a step has run out of memory (`runtime.parallel.micro`).
"""

from dataclasses import dataclass
from typing import Any

from .errors import RequestError
from .plan import Layout, Plan

_USABLE = 0.8
"""Part of a device's memory that a plan may count on; MoAI's MEMORY_USAGE_CORRECTION_RATIO is 80 as well."""
_STATES_PART = 0.6
"""Part of the usable memory that parameters, gradients and optimizer states may take; activations need the rest."""
_BYTES_TRAINED = 4 + 4 + 8 + 4
"""float32 weight, gradient, Adam's two moments, and the gradient once more in the bucket it travels in."""
_BYTES_FROZEN = 4


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How big the training is, and where it runs."""

    world_size: int
    local_world_size: int
    trained: int = 0
    """Parameters that are trained, in elements."""
    frozen: int = 0
    device_bytes: int = 2**62
    """Memory of one device."""

    @property
    def state_bytes(self) -> int:
        """What one full copy takes in memory while it is trained with Adam."""
        return self.trained * _BYTES_TRAINED + self.frozen * _BYTES_FROZEN

    @property
    def room(self) -> float:
        """Bytes of a device that states may take."""
        return self.device_bytes * _USABLE * _STATES_PART


def choose(layout: Layout, scale: Scale) -> Plan:
    """The plan for *layout* at *scale*.

    Raises RequestError when the degrees do not divide the ranks.
    """
    tp, pp = layout.tp or 1, layout.pp or 1
    if scale.world_size % (tp * pp):
        raise RequestError(f"tp={tp} times pp={pp} does not divide the {scale.world_size} ranks of the job")
    if scale.local_world_size % tp:
        raise RequestError(f"tp={tp} does not divide the {scale.local_world_size} ranks of a node; tp stays in a node")
    ranks = scale.world_size // (tp * pp)
    if layout.dp not in (None, ranks):
        raise RequestError(f"dp={layout.dp} times tp={tp} times pp={pp} is not the {scale.world_size} ranks of the job")
    data, reasons = _with_stages(layout) if pp > 1 else _data(layout, scale, tp)
    shard = _shard(data, ranks, scale.local_world_size // tp)
    if layout.offload and shard == 1:
        raise RequestError("offload keeps parts of the weights on the host, and here is one rank to spread them over")
    if data == "hybrid" and ranks % (scale.local_world_size // tp):
        reasons.append(f"hybrid: {ranks} ranks are no whole nodes, so one copy is spread over all of them")
    left = scale.state_bytes / (shard * tp * pp)
    recompute = layout.recompute
    if recompute is None and left > scale.room:
        recompute = "full"
        reasons.append(f"recompute: {_gib(left)} GiB of states a device leave little for activations")
    return Plan(
        pp=pp,
        tp=tp,
        dp_shard=shard,
        dp_replicate=ranks // shard,
        reshard=layout.reshard is not False,
        micro_batches=layout.micro_batches or (pp if pp > 1 else 1),
        recompute=recompute or "none",
        **_set({"precision": layout.precision, "offload": layout.offload, "compile": layout.compile}),
        reasons=tuple(reasons),
    )


def _with_stages(layout: Layout) -> tuple[str, list[str]]:
    """What the data-parallel ranks of *layout*, which has pipeline stages, hold.

    Raises RequestError for what does not go together with stages.
    """
    spread = [
        *([f"tp={layout.tp}"] if (layout.tp or 1) > 1 else []),
        *([f"data={layout.data}"] if layout.data not in (None, "replicate") else []),
        *(["offload"] if layout.offload else []),
    ]
    if spread:
        raise RequestError(
            f"pp={layout.pp} does not go together with {' and '.join(spread)} yet: the weights of a stage stay whole on"
            " its rank; leave one of both out of --layout"
        )
    return "replicate", []


def _set(words: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in words.items() if value is not None}


def _data(layout: Layout, scale: Scale, parts: int) -> tuple[str, list[str]]:
    if layout.data is not None:
        return layout.data, [f"{layout.data}: as asked"]
    if layout.offload or layout.reshard is not None:
        return "shard", ["shard: offload and reshard mean a spread copy"]
    need = scale.state_bytes / parts
    sums = f"a full copy with Adam takes {_gib(need)} GiB, the device leaves {_gib(scale.room)} GiB for it"
    return ("replicate" if need <= scale.room else "shard"), [sums]


def _shard(data: str, ranks: int, in_node: int) -> int:
    if data == "replicate":
        return 1
    if data == "hybrid" and ranks % in_node == 0:
        return in_node
    return ranks


def _gib(amount: float) -> str:
    return f"{amount / 2**30:.3g}"
