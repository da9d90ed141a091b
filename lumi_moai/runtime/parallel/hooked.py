"""A script's hooks on the gradients of whole parameters: they wait until these are of the rows of all ranks.

Within backward a gradient is that of this rank's rows. A hook that clips it, or takes an optimizer's step with it,
would make something else of N such gradients than of the one of all rows. So the hooks stay where they are, do nothing
while backward runs, and are called when the average is there: in the order in which rank 0's backward reached them.
The same holds for gradients that the script asks for with `torch.autograd.grad`.
"""

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from typing import Any

import torch

from ...errors import RequestError
from .. import group

_Hooks = MutableMapping[int, Any]


class Waiting:
    """A *hook* in its place among a parameter's; within backward it notes in *came* that the gradient was there."""

    def __init__(self, hook: Callable[..., Any], place: int, hooked: "Hooked") -> None:
        self.hook, self.place, self.hooked = hook, place, hooked

    def __call__(self, tensor: torch.Tensor) -> Any:
        """Do nothing within backward; elsewhere do what the hook does."""
        if self.hooked.came is None:
            return self.hook(tensor)
        self.hooked.came.setdefault(self.place)
        return None


def is_scripts(hook: Any) -> bool:
    """Whether *hook* is neither torch's nor ours."""
    owner = getattr(hook, "__module__", None) or type(hook).__module__
    return owner.partition(".")[0] not in ("torch", "lumi_moai")


def hooks_of(parameter: torch.Tensor) -> list[Any]:
    """The hooks on the gradient of *parameter*."""
    return [_own(hook) for hooks in _of(parameter) for hook in hooks.values()]


class Hooked:
    """The parameters that have hooks of the script."""

    def __init__(self) -> None:
        self.came: dict[int, None] | None = None
        """Places of the parameters whose gradient came in this backward; None outside of one."""
        self._before: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        self._is_short = False
        """Whether a backward raised behind gradients whose hooks one device would have called by then."""

    def begin(self, parameters: Iterable[torch.Tensor]) -> None:
        """Let the hooks of *parameters* wait.

        Raises RequestError where an earlier backward left some uncalled: the ranks may not have raised at one place.
        """
        if self._is_short:
            raise RequestError(
                "a backward raised an error that the script caught, and hooks on gradients that were there by then had"
                " not been called, as one device calls them; take the hooks away, or run it on one device"
            )
        found = [each for each in parameters if each._backward_hooks or len(each._post_accumulate_grad_hooks or ()) > 1]
        self._before = [(each, None if each.grad is None else each.grad.clone()) for each in found]
        for place, parameter in enumerate(found):
            for hooks in _of(parameter):
                for key, hook in hooks.items():
                    own = _own(hook)
                    hooks[key] = Waiting(own, place, self) if is_scripts(own) else own
        self.came = {} if found else None

    def finish(self, *, calls: bool) -> None:
        """Call the hooks of what any rank's rows reached, if *calls*. All ranks call this together."""
        came, self.came = self.came, None
        if came is None or not calls:
            return
        reached = group.total(torch.tensor([float(place in came) for place in range(len(self._before))])).tolist()
        for place in self._order(came):
            if reached[place] > 0:
                _call(*self._before[place])
        self._before = []

    def stop(self, *, is_check: bool = False) -> None:
        """Let no hook wait any longer: a backward is over, or raised, which is nothing in a check."""
        self._is_short = bool(self.came) and not is_check
        self.came, self._before = None, []

    def asked(self, weights: Sequence[torch.Tensor], means: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """What the hooks of *weights* make of *means*, which the script asked for; all ranks call this together."""
        came, self.came = self.came, None
        found = list(means)
        places = [] if came is None else self._order(came)
        for parameter in [self._before[place][0] for place in places]:
            at = next(at for at, weight in enumerate(weights) if weight is parameter)
            mean = found[at]
            found[at] = None if mean is None else _through(parameter._backward_hooks, mean)
        return found

    def _order(self, came: dict[int, None]) -> list[int]:
        """The places of all parameters, those that rank 0's rows reached ahead."""
        return list(dict.fromkeys([*group.agree(list(came)), *reversed(range(len(self._before)))]))


def _of(parameter: torch.Tensor) -> Iterator[_Hooks]:
    for hooks in (parameter._backward_hooks, parameter._post_accumulate_grad_hooks):
        if hooks is not None:
            yield hooks


def _own(hook: Any) -> Any:
    return hook.hook if isinstance(hook, Waiting) else hook


def _call(parameter: torch.Tensor, before: torch.Tensor | None) -> None:
    """Call the hooks of *parameter*, whose gradient was *before*, as torch does: with what came on top of that."""
    after = parameter.grad
    if after is None:
        return
    with torch.no_grad():
        came = after if before is None else after - before
        came = _through(parameter._backward_hooks, came)
        if came is not after:
            parameter.grad = came if before is None else before + came
    for hook in _waiting(parameter._post_accumulate_grad_hooks):
        hook(parameter)


def _through(hooks: _Hooks | None, gradient: torch.Tensor) -> torch.Tensor:
    """What *hooks* make of *gradient*, one after the other."""
    for hook in _waiting(hooks):
        result = hook(gradient)
        gradient = gradient if result is None else result
    return gradient


def _waiting(hooks: _Hooks | None) -> list[Callable[..., Any]]:
    return [each.hook for each in (hooks or {}).values() if isinstance(each, Waiting)]
