"""A script that is distributed by itself cannot be made distributed once more: it is refused, not done twice."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data.distributed import DistributedSampler

from ...errors import RequestError
from ..late import after_import

IsOn = Callable[[], bool]
_WORDS = (
    "this script {does}, but here all its ranks are one device; submit it with --parallel script, which leaves such a"
    " script alone"
)
_GROUP = "makes a process group of its own"
_OURS = __name__.partition(".")[0]


def install(is_on: IsOn) -> None:
    """Refuse from now on, as soon as *is_on* says that the ranks are one device."""
    dist.init_process_group = _refused(dist.init_process_group, is_on, _GROUP)
    _refuse_making(DistributedDataParallel, is_on, "wraps its model in DistributedDataParallel")
    _refuse_making(DistributedSampler, is_on, "shares out its data by a DistributedSampler")
    after_import("torch.distributed.fsdp", lambda: _refuse_fsdp(is_on))


def check(*, joined: bool) -> None:
    """Refuse a script that has *joined* a process group of its own before its one line.

    Raises RequestError.
    """
    if joined:
        raise RequestError(_WORDS.format(does=_GROUP))


def _refuse_fsdp(is_on: IsOn) -> None:
    fsdp: Any = sys.modules["torch.distributed.fsdp"]
    _refuse_making(fsdp.FullyShardedDataParallel, is_on, "wraps its model in FullyShardedDataParallel")
    fsdp.fully_shard = _refused(fsdp.fully_shard, is_on, "shards its model by fully_shard")


def _refuse_making(kind: type, is_on: IsOn, does: str) -> None:
    kind.__init__ = _refused(kind.__init__, is_on, does)  # type: ignore[misc]


def _refused(own: Callable[..., Any], is_on: IsOn, does: str) -> Callable[..., Any]:
    @functools.wraps(own)
    def asked(*args: Any, **kwargs: Any) -> Any:
        if is_on() and not _is_ours(sys._getframe(1).f_globals["__name__"]):
            raise RequestError(_WORDS.format(does=does))
        return own(*args, **kwargs)

    return asked


def _is_ours(caller: str) -> bool:
    """Whether a layout of ours calls."""
    return caller.partition(".")[0] == _OURS
