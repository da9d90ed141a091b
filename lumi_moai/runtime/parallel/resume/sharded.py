"""Checkpoints as `torch.distributed.checkpoint` keeps them, which takes a while to import: not before the first one."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch


def kinds(path: Path) -> dict[str, Any]:
    """What the checkpoint at *path* holds, by name: the size and type of each tensor."""
    from torch.distributed.checkpoint import FileSystemReader

    return FileSystemReader(path).read_metadata().state_dict_metadata


def read(path: Path, rooms: dict[str, Any], group: Any) -> None:
    """Fill *rooms*, tensors by name, from the checkpoint at *path*; all ranks of *group* must call this together."""
    from torch.distributed.checkpoint import FileSystemReader, load

    load(rooms, storage_reader=FileSystemReader(path), process_group=group)


def write(path: Path, tensors: dict[str, torch.Tensor], group: Any) -> "Future[Any]":
    """Begin to write *tensors* to the folder *path*; all ranks of *group* must call this together."""
    from torch.distributed.checkpoint import FileSystemWriter, async_save

    writer = FileSystemWriter(path, overwrite=True)
    return async_save(tensors, storage_writer=writer, process_group=group)


def failures() -> tuple[type[BaseException], ...]:
    """What a checkpoint that cannot be written raises."""
    from torch.distributed.checkpoint import CheckpointException

    return OSError, RuntimeError, CheckpointException
