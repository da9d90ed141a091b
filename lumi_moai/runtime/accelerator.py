"""The accelerator of this rank: one GPU if torch sees any, else the CPU under the GPU's name."""

from typing import TYPE_CHECKING

from ..errors import RequestError
from .here import here

if TYPE_CHECKING:
    import torch


def install() -> None:
    """Make `"cuda"` mean this rank's own device; called once, right after torch was imported."""
    import torch

    if not torch.cuda.is_available():
        from . import stand_in

        stand_in.install()
        return
    me = here()
    visible = torch.cuda.device_count()
    local_rank = me.ranks.local_rank if me else 0
    if visible > 1 and local_rank >= visible:
        raise RequestError(
            f"local rank {local_rank} has no device, torch sees {visible} on this node;"
            " one rank per device, so ask for fewer ranks or more devices"
        )
    # A rank that sees one device only was given its own; one that sees all takes the one of its number.
    torch.cuda.set_device(local_rank if visible > 1 else 0)


def is_gpu() -> bool:
    """Whether the accelerator is a GPU rather than the CPU under its name."""
    import torch

    return torch.cuda.is_available() and torch.cuda.is_initialized()


def device() -> "torch.device":
    """The device of this rank."""
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if is_gpu() else torch.device("cpu")


def wait() -> None:
    """Until the device has done what it was given; measured times are true then."""
    import torch

    if is_gpu():
        torch.cuda.synchronize()


def memory_bytes() -> int:
    """Memory of this rank's device; where the CPU stands in, that of the machine."""
    import torch

    return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory


def seed(number: int) -> None:
    """Start the random numbers of this rank's device from *number*; those of the CPU, which the ranks share, stay."""
    import torch

    if is_gpu():
        torch.cuda.manual_seed(number)
