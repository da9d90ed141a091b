"""How a training is laid out over the ranks of a job: what the user wishes, and what was chosen.

Degrees are torch's mesh axes, outermost first: pp (pipeline stages), dp_replicate (full copies), dp_shard (parts of one
copy), tp (parts of each matrix product). Their product is the number of ranks.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from .errors import RequestError, did_you_mean

DATA = ("replicate", "shard", "hybrid")
"""What the data-parallel ranks hold: a full copy each, a part each, a part within the node and a copy between nodes."""
_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "auto": {},
    "replicate": {"data": "replicate"},
    "ddp": {"data": "replicate"},
    "fsdp": {"data": "shard", "reshard": True},
    "zero3": {"data": "shard", "reshard": True},
    "zero2": {"data": "shard", "reshard": False},
    "hsdp": {"data": "hybrid", "reshard": True},
    "offload": {"offload": True},
    "compile": {"compile": True},
    "bf16": {"precision": "bf16"},
}
_COUNTS = ("tp", "pp", "dp", "micro_batches")
_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the user wishes of the layout; None leaves it to the rule."""

    data: str | None = None
    """One of `DATA`."""
    reshard: bool | None = None
    """Whether a block's weights are given back after its forward (ZeRO-3) or kept until its backward (ZeRO-2)."""
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    """Ranks that share out the rows of a batch; they follow from the others and are only checked."""
    micro_batches: int | None = None
    """Pieces in which a rank computes its share of the batch."""
    recompute: str | None = None
    """`none`, `full`, `every-K` (every K-th block) or `selective` (cheap operations only)."""
    precision: str | None = None
    """`script` (as the script says) or `bf16` (compute in bfloat16, master weights in float32)."""
    offload: bool | None = None
    compile: bool | None = None

    def __post_init__(self) -> None:
        """Refuse values that no layout can have.

        Raises RequestError.
        """
        _check_word("data", self.data, DATA)
        _check_word("precision", self.precision, ("script", "bf16"))
        _check_recompute(self.recompute)
        for name in _COUNTS:
            _check_count(name, getattr(self, name))
        if self.data == "replicate" and self.offload:
            raise RequestError("offload keeps parts of the weights on the host, so it needs data=shard, not replicate")

    @classmethod
    def parse(cls, text: str) -> "Layout":
        """The layout that *text* names: words of `--layout`, such as `fsdp,tp=2,recompute=every-2`.

        Raises RequestError for a word that is none.
        """
        given: dict[str, Any] = {}
        for word in filter(None, (part.strip() for part in text.split(","))):
            name, is_pair, value = word.partition("=")
            if is_pair and name.strip() in _NAMES:
                given[name.strip()] = _value(name.strip(), value.strip())
            elif not is_pair and word in _PRESETS:
                given |= _PRESETS[word]
            else:
                known = [*_PRESETS, *(f"{each}=" for each in _NAMES)]
                meant = did_you_mean(word, known)
                raise RequestError(f"--layout has no word {word!r}{meant}; it takes {', '.join(known)}, with commas")
        return cls(**given)

    def over(self, other: "Layout") -> "Layout":
        """This layout, with the wishes of *other* where this one has none."""
        mine = {key: value for key, value in asdict(self).items() if value is not None}
        return replace(other, **mine)


_NAMES = tuple(each.name for each in fields(Layout))


def _value(name: str, text: str) -> Any:
    if text == "auto":
        return None
    if name in ("reshard", "offload", "compile"):
        if text.lower() not in _SWITCH:
            raise RequestError(f"--layout {name}={text} is neither on nor off")
        return _SWITCH[text.lower()]
    if name in _COUNTS:
        if not text.isdecimal():
            raise RequestError(f"--layout {name}={text} is no whole number")
        return int(text)
    return text


def _number(name: str, text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise RequestError(f"{name} is {text!r}, no number") from None


def _check_word(name: str, word: str | None, known: tuple[str, ...]) -> None:
    if word is not None and word not in known:
        raise RequestError(f"{name} is {word!r}; it must be one of {', '.join(known)}{did_you_mean(word, known)}")


def _check_count(name: str, count: int | None) -> None:
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise RequestError(f"{name} is {count!r}; it must be a whole number from 1 on")


def _check_recompute(word: str | None) -> None:
    if word is None or word in ("none", "full", "selective"):
        return
    head, _, number = word.partition("-")
    if head != "every" or not number.isdecimal() or int(number) < 1:
        raise RequestError(f"recompute is {word!r}; it must be none, full, selective, or every-K such as every-2")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The layout of one job: degrees whose product is its number of ranks, and how each rank computes."""

    pp: int = 1
    dp_replicate: int = 1
    dp_shard: int = 1
    tp: int = 1
    reshard: bool = True
    micro_batches: int = 1
    recompute: str = "none"
    precision: str = "script"
    offload: bool = False
    compile: bool = False
    reasons: tuple[str, ...] = ()
    """Why, in sentences, in the order of the decisions."""

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be.

        Raises RequestError.
        """
        for name in ("pp", "dp_replicate", "dp_shard", "tp", "micro_batches"):
            _check_count(name, getattr(self, name))
        _check_recompute(self.recompute)
        _check_word("precision", self.precision, ("script", "bf16"))

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.pp * self.dp_replicate * self.dp_shard * self.tp

    @property
    def data_ranks(self) -> int:
        """Among how many the rows of a batch are shared out."""
        return self.dp_replicate * self.dp_shard

    @property
    def shards(self) -> bool:
        """Whether parameters are anything but full copies on every rank."""
        return self.dp_shard > 1 or self.tp > 1 or self.pp > 1

    @property
    def recompute_every(self) -> int:
        """Every how many-th block is computed again in backward; 0 when none is, or by operation."""
        if self.recompute in ("none", "selective"):
            return 0
        return 1 if self.recompute == "full" else int(self.recompute.removeprefix("every-"))

    def as_json(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Plan":
        """From JSON."""
        return cls(**{**data, "reasons": tuple(data.get("reasons", ()))})

    def moai_line(self, batch_per_device: int) -> str:
        """The line that MoAI prints for the configuration it selected (facts: the published logs of 2024)."""
        stages = (
            f"num_stages : {self.pp}, num_micro_batches : {self.micro_batches}, batch_per_device : {batch_per_device}"
        )
        return ", ".join(
            [
                stages if self.pp > 1 else "No PP",
                f"TP : {self.tp}" if self.tp > 1 else "No TP",
                f"recomputation : {_moai_recompute(self)}",
                f"distribute_param : {str(self.dp_shard > 1).lower()}",
                f"distribute_low_prec_param : {str(self.dp_shard > 1 and self.reshard).lower()}",
            ]
        )

    def sentences(self) -> Iterator[str]:
        """The plan in plain words."""
        yield from (words(self) for words in _SENTENCES if words(self))


def _moai_recompute(plan: Plan) -> str:
    return {"none": "default(1)", "full": "full(2)"}.get(plan.recompute, plan.recompute)


def _holding(plan: Plan) -> str:
    if plan.dp_shard == 1:
        return f"{plan.dp_replicate} full copies of the model, each with its rows of the batch" * (
            plan.dp_replicate > 1
        )
    when = "given back after each block's forward" if plan.reshard else "kept from a block's forward to its backward"
    copies = f"{plan.dp_replicate} copies of the model, each " if plan.dp_replicate > 1 else "one copy of the model "
    return f"{copies}spread over {plan.dp_shard} ranks, weights gathered block by block and {when}"


_SENTENCES = (
    _holding,
    lambda plan: f"each matrix product of a block spread over {plan.tp} ranks" * (plan.tp > 1),
    lambda plan: f"the blocks in {plan.pp} pipeline stages" * (plan.pp > 1),
    lambda plan: f"a rank computes its rows in {plan.micro_batches} pieces" * (plan.micro_batches > 1),
    lambda plan: f"activations of blocks computed again in backward ({plan.recompute})" * (plan.recompute != "none"),
    lambda plan: "computed in bfloat16 with float32 master weights" * (plan.precision == "bf16"),
    lambda plan: "parameters, gradients and optimizer states on the host" * plan.offload,
    lambda plan: "each block compiled" * plan.compile,
)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user asked of the runtime when the job was submitted; `job.json` carries it under `parallel`."""

    mode: str = "line"
    """`line`: scripts that call the one line; `auto`: every script, as if it did; `script`: leave the script alone."""
    layout: Layout = field(default_factory=Layout)
    self_check: bool = True
    checkpoint: str | float = "auto"
    """`auto` (interval from measured times), `off`, or seconds between checkpoints."""
    keep: int = 2
    """How many checkpoints stay."""

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing.

        Raises RequestError.
        """
        _check_word("parallel", self.mode, ("line", "auto", "script"))
        _check_count("keep", self.keep)
        if isinstance(self.checkpoint, str):
            _check_word("checkpoint", self.checkpoint, ("auto", "off"))
        elif not (math.isfinite(self.checkpoint) and self.checkpoint > 0):
            raise RequestError(f"checkpoint is {self.checkpoint!r}; give auto, off, or a number of seconds above 0")

    @classmethod
    def parse(cls, *, parallel: str, layout: str, self_check: str, checkpoint: str, keep: str) -> "Wishes":
        """The wishes that the words of the settings say.

        Raises RequestError.
        """
        seconds = checkpoint if checkpoint in ("auto", "off") else _number("checkpoint", checkpoint, float)
        return cls(
            mode=parallel,
            layout=Layout.parse(layout),
            self_check=self_check == "on",
            checkpoint=seconds,
            keep=_number("keep", keep, int),
        )

    def as_json(self) -> dict[str, Any]:
        """For `job.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Wishes":
        """From `job.json`; what is missing is as it would be by default."""
        return cls(**{**data, "layout": Layout(**data.get("layout", {}))})
