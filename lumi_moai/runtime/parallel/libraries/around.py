"""A function of a library, replaced once the library is imported; without a running engine it does what it did."""

import functools
import sys
from collections.abc import Callable
from typing import Any

from ...late import after_import


def around(module: str, name: str, engine: Callable[[], Any], call: Callable[..., Any]) -> None:
    """Replace *name* of *module*, such as `Trainer.log`, by `call(engine, own, *args, **kwargs)`.

    *own* is the library's. A name that this version of the library does not have is passed over.
    """
    after_import(module, lambda: _replace(sys.modules[module], name, engine, call))


def _replace(holder: Any, name: str, engine: Callable[[], Any], call: Callable[..., Any]) -> None:
    *owners, last = name.split(".")
    for owner in owners:
        holder = getattr(holder, owner, None)
    own = getattr(holder, last, None)
    if own is None:
        return

    @functools.wraps(own)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        running = engine()
        return call(running, own, *args, **kwargs) if running else own(*args, **kwargs)

    kept = vars(holder).get(last)
    if isinstance(kept, classmethod):  # which knows by what class it was called
        setattr(holder, last, classmethod(_of_class(kept.__func__, engine, call)))
        return
    setattr(holder, last, staticmethod(replaced) if isinstance(kept, staticmethod) else replaced)


def _of_class(own: Callable[..., Any], engine: Callable[[], Any], call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def replaced(kind: type, *args: Any, **kwargs: Any) -> Any:
        running = engine()
        return call(running, functools.partial(own, kind), *args, **kwargs) if running else own(kind, *args, **kwargs)

    return replaced
