"""Which code is the user's own: neither ours nor that of torch, Python or an installed library."""

import os
import sysconfig
from types import CodeType, FrameType

_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))) + os.sep
_LIBRARIES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_NOT_USERS = ("<", _OURS, sysconfig.get_path("stdlib") + os.sep)
_PASSED = tuple(
    os.path.join("runtime", *path)
    for path in (
        ("stand_in.py",),
        ("parallel", "replace.py"),
        ("parallel", "resume", "ghosts.py"),
        ("parallel", "resume", "reads.py"),
        ("parallel", "resume", "watch.py"),
    )
)
"""Ours, through which a call of the script goes on its way to torch."""
_KNOWN: dict[CodeType, bool] = {}


def is_users(path: str) -> bool:
    """Whether the file *path* is the user's."""
    return bool(path) and not path.startswith(_NOT_USERS) and not any(part in path for part in _LIBRARIES)


def asks(frame: FrameType | None) -> bool:
    """Whether the user's code is what calls torch in *frame*."""
    while frame is not None and frame.f_code.co_filename.endswith(_PASSED):
        frame = frame.f_back
    if frame is None:
        return False
    code = frame.f_code
    if code not in _KNOWN:
        _KNOWN[code] = is_users(code.co_filename)
    return _KNOWN[code]
