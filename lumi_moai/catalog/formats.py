"""Log formats that users wrote: `formats/*.yaml` in their folders, and files named on the command line."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError
from ..logs import Format
from ..logs.own import OwnFormat
from .decode import Mistakes, decode
from .sites import folders
from .yaml import read


def log_formats(named: Sequence[Path] = ()) -> tuple[tuple[Format, ...], tuple[str, ...]]:
    """The formats in the files *named*, then those in the user's folders, and a warning for each of these that is bad.

    Raises ConfigError with all mistakes of a file that was named.
    """
    found, warnings = [_format(path) for path in named], []
    for path in (path for folder in folders("formats") for path in sorted(folder.glob("*.yaml"))):
        try:
            found.append(_format(path))
        except ConfigError as error:
            warnings.append(f"a log format of yours is left out: {error}")
    return tuple(found), tuple(warnings)


def _format(path: Path) -> Format:
    mistakes = Mistakes()
    raw = read(path)
    own = decode(OwnFormat, {"name": path.stem, **raw} if isinstance(raw, dict) else raw, "", mistakes)
    if mistakes:
        raise ConfigError(*(f"{path}: {mistake}" for mistake in mistakes))
    return own.format
