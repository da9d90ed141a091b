"""Reading a file as it grows."""

import codecs
import os
from pathlib import Path

_PIECE = 1 << 20


class Tail:
    """A place in a growing file; notices when the file is replaced or cut and starts anew there."""

    def __init__(self) -> None:
        self.inode: int | None = None
        self.place = 0
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self, path: Path) -> str:
        """What was added to *path* since the last call, at most 1 MiB of it; empty when nothing was, or it is gone."""
        try:
            with open(path, "rb") as file:
                facts = os.fstat(file.fileno())
                if facts.st_ino != self.inode or facts.st_size < self.place:
                    self.inode, self.place = facts.st_ino, 0
                file.seek(self.place)
                piece = file.read(_PIECE)
        except FileNotFoundError:
            return ""
        self.place += len(piece)
        return self.decoder.decode(piece)
