"""A log file as a stream of bytes of UTF-8, whatever it was packed in: gzip, Zstandard, or UTF-16 from a redirect."""

import codecs
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import RunError

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_HEAD = 64
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The text of the file at *path*, unpacked as it is read.

    Raises RunError when it cannot be read, or was packed by something that is not installed.
    """
    try:
        with open(path, "rb", buffering=0) as raw:
            head = raw.read(4)
            raw.seek(0)
            yield _plain(_unpacked(raw, head, path))
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"the log {path} cannot be read: {reason}") from error


def _unpacked(raw: BinaryIO, head: bytes, path: Path) -> BinaryIO:
    if head.startswith(_GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if head.startswith(_ZSTD):
        return _unpacked_zstd(raw, path)
    return raw


def _unpacked_zstd(raw: BinaryIO, path: Path) -> BinaryIO:
    try:
        import zstandard
    except ImportError:
        raise RunError(
            f"{path} is packed with Zstandard; `pip install zstandard`, or unpack it with `zstd -d`"
        ) from None
    return cast(BinaryIO, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))


def _plain(stream: BinaryIO) -> BinaryIO:
    """*stream* itself, or its text as UTF-8 where it is UTF-16: by its mark, and the zeros that plain letters have."""
    head = stream.read(_HEAD)
    whole = cast(BinaryIO, (Plain if isinstance(stream, io.FileIO) else _Put)(head, stream))
    if not head.startswith(_UTF_16) or head.count(0) < len(head) // 4:
        return whole
    return cast(BinaryIO, _Decoded(codecs.getincrementaldecoder("utf-16")("replace"), whole))


class _Put(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int = -1) -> bytes:
        """About *size* bytes, and none at the end only."""
        head, self._head = self._head, b""
        return head + self._stream.read(size) if head else self._stream.read(size)


class Plain(_Put):
    """A file on disk that needs no unpacking: `raw`, of which the first bytes were read already."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        super().__init__(head, stream)
        self.raw = stream


class _Decoded(io.RawIOBase):
    """A stream of UTF-16 as one of UTF-8."""

    def __init__(self, decode: Any, stream: BinaryIO) -> None:
        self._decode, self._stream = decode, stream

    def read(self, size: int = -1) -> bytes:
        """About *size* bytes, and none at the end only."""
        while data := self._stream.read(size):
            if text := self._decode.decode(data):
                return text.encode("utf-8", errors="replace")
        return b""
