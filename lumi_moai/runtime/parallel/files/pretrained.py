"""Hugging Face's `save_pretrained`: rank 0 writes models, tokenizers and configurations, with whole weights."""

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ... import late
from . import saving, together

if TYPE_CHECKING:
    from ..seen import Seen

_WRITERS = {
    "transformers.tokenization_utils_base": ("PreTrainedTokenizerBase", "save_pretrained"),
    "transformers.configuration_utils": ("PreTrainedConfig", "save_pretrained"),
    "transformers.generation.configuration_utils": ("GenerationConfig", "save_pretrained"),
    "transformers.processing_utils": ("ProcessorMixin", "save_pretrained"),
    "transformers.feature_extraction_utils": ("FeatureExtractionMixin", "save_pretrained"),
    "transformers.image_processing_base": ("ImageProcessingMixin", "save_pretrained"),
}


_POSITIONS = ("is_main_process", "state_dict", "push_to_hub", "max_shard_size", "variant", "token")
"""Of a model's `save_pretrained`, after the folder."""


def install(seen: "Seen") -> None:
    """Replace them when their modules are imported."""
    for module in _WRITERS:
        late.after_import(module, functools.partial(_once, module, lambda: seen.engine is not None))
    late.after_import("transformers.modeling_utils", functools.partial(_whole, seen))


def _once(module: str, is_on: Callable[[], bool]) -> None:
    kind, name = _WRITERS[module]
    found = getattr(sys.modules[module], kind, None)
    if found is not None:
        setattr(found, name, together.for_all(getattr(found, name), is_on))


def _whole(seen: "Seen") -> None:
    kind = sys.modules["transformers.modeling_utils"].PreTrainedModel
    own = kind.save_pretrained

    @functools.wraps(own)
    def save_pretrained(model: Any, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        if seen.engine is None or together.is_alone():
            return own(model, save_directory, *args, **kwargs)
        if seen.engine.may_shard:
            kwargs = {**dict(zip(_POSITIONS, args, strict=False)), **kwargs}
            args, given = (), kwargs.get("state_dict")
            kwargs["state_dict"] = saving.full(given or model.state_dict(), keep=seen.engine.rank == 0)
        return together.by_rank_0(functools.partial(own, model, save_directory, *args, **kwargs))

    kind.save_pretrained = save_pretrained
