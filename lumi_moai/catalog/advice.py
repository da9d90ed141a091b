"""What to do about an outcome: the one table, `configs/advice/causes.yaml`, or the user's own."""

from collections.abc import Mapping
from functools import cache

from ..errors import ConfigError
from .decode import Mistakes, decode
from .sites import first, folders
from .yaml import read


@cache
def advice() -> Mapping[str, str]:
    """The sentence for each cause and remark.

    Raises ConfigError with all mistakes of the file.
    """
    path = first("advice", "causes")
    if path is None:
        raise ConfigError(f"there is no advice/causes.yaml in {', '.join(map(str, folders('advice')))}")
    mistakes = Mistakes()
    table: Mapping[str, str] = decode(Mapping[str, str], read(path), "", mistakes)
    if mistakes:
        raise ConfigError(*(f"{path}: {mistake}" for mistake in mistakes))
    return table
