"""What the runtime needs of torch, and the sentence when it is not there."""

import re
import sys
from importlib.util import find_spec
from typing import Any

from ...errors import RequestError

LEAST = (2, 7)
"""The first version whose `fully_shard` leaves chosen weights whole, and runs where the CPU stands in."""
_LEAST = ".".join(map(str, LEAST))


def check_torch() -> None:
    """Raise RequestError when this rank's torch cannot train on several devices, or is not there at all."""
    torch = sys.modules.get("torch")
    if torch is not None:
        missing = lacking(torch.__version__, has_network=torch.distributed.is_available())
    elif find_spec("torch") is None:
        missing = "there is no torch here"
    else:
        return  # looked at when the script imports it
    if missing is None and find_spec("numpy") is None:  # a number of rows is one of numpy's
        raise RequestError("there is no numpy here, which training on several devices needs beside PyTorch; install it")
    if missing:
        raise RequestError(
            f"{missing}; training on several devices needs PyTorch {_LEAST} or newer with torch.distributed,"
            " in the container or environment of the job"
        )


def version_of(text: str) -> tuple[int, ...]:
    """The first two numbers of a version; none for what is no version."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def lacking(version: str, *, has_network: Any) -> str | None:
    """What torch of *version* lacks; None when it is enough."""
    if version_of(version) < LEAST:
        return f"this is PyTorch {version}"
    return None if has_network else f"this PyTorch {version} was built without torch.distributed"
