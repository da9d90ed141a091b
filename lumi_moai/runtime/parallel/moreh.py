"""MoAI's own names, so that its tutorial scripts run as they are.

In a rank `torch.moreh`, `torch.version.moreh` and, where no package of that name is installed, `moreh` are there. What
a script of 2023 says about the layout by hand (`parallelizer_init`, `set_config`) is a wish like an option of the line.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

from ... import __version__
from ...errors import RequestError
from ..here import here

Enable = Callable[..., None]
_RECOMPUTATION = "enable_activation_recomputation"
_CONFIGURED: dict[str, Any] = {}
"""Options that `set_config` gave ahead of the line."""
_MEANS_NOTHING = ("tensor_parallel_group_size", "initialized_on_accelerator")


class _Named(Loader, MetaPathFinder):
    """Finds the modules of *contents* for whoever imports them, unless somebody else has them."""

    def __init__(self, contents: Mapping[str, Mapping[str, Any]]) -> None:
        self.contents = contents

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of a module of ours."""
        return spec_from_loader(name, self, is_package=True) if name in self.contents else None

    def exec_module(self, module: ModuleType) -> None:
        """Put into *module* what it holds."""
        vars(module).update(self.contents[module.__name__])


def install_package(is_on: Callable[[], bool]) -> None:
    """Let a script import MoAI's driver; *is_on* says whether its one line has been called."""
    config = {"set_config": _set_config(is_on), "set_backend_config": _no_meaning}
    names = ("moreh", "moreh.driver", "moreh.driver.common")
    # The last finder: a package of the name that is installed comes first.
    sys.meta_path.append(_Named({**{name: {} for name in names}, "moreh.driver.common.config": config}))


def install_names(torch: Any, enable: Enable) -> None:
    """Give *torch* MoAI's names; *enable* is our one line."""
    option = ModuleType("torch.moreh.option")
    vars(option).update(
        enable_advanced_parallelization=lambda **choices: enable(**{**_CONFIGURED, **choices}),
        parallelizer_init=lambda **choices: enable(**{**_CONFIGURED, **_of_2023(choices)}),
    )
    moreh = ModuleType("torch.moreh")
    vars(moreh).update(option=option, pipeline_assign=_pipeline_assign, __path__=[])
    sys.modules |= {"torch.moreh": moreh, "torch.moreh.option": option}
    torch.moreh = moreh
    torch.version.moreh = __version__


def _pipeline_assign(hidden_states: Any) -> Any:
    """Where a script of 2023 ends a pipeline stage; the runtime finds the stages itself."""
    return hidden_states


def _of_2023(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `parallelizer_init` in the words of the one line.

    Raises RequestError for parts of matrix products, which the script's model must have been written for.
    """
    given = {name: value for name, value in choices.items() if name not in _MEANS_NOTHING}
    if given.pop("tensor_parallel", False):
        raise RequestError(
            "parallelizer_init(tensor_parallel=True) splits a model by hand; leave it out and submit with"
            f" --layout tp={choices.get('tensor_parallel_group_size') or 2}"
        )
    if not given.get("pipeline_parallel"):
        given.pop("num_micro_batches", None)  # of a pipeline that there is not
    return given


def _set_config(is_on: Callable[[], bool]) -> Callable[[str, Any], None]:
    def set_config(name: str, value: Any) -> None:
        if name != _RECOMPUTATION:
            _no_meaning(name, value)
        elif is_on():
            raise RequestError(f"set_config({name!r}) came after the line that begins to parallelise; put it before")
        else:
            _CONFIGURED["activation_recomputation"] = bool(value)

    return set_config


def _no_meaning(name: str, value: Any) -> None:
    me = here()
    if me is not None and me.ranks.rank == 0:
        print(f"lumi-moai: MoAI's setting {name}={value!r} has no meaning here and is left out", file=sys.stderr)
