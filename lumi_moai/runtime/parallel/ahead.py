"""Batches that a library fetches before the script is at them.

A loader tells the engine of each batch as it hands it out. A library that looks ahead, to see whether a batch is the
last one, or to count the tokens of several, gets the batch earlier than the training step does; what the loader has to
tell then waits here.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from .share import Share


@dataclass(frozen=True, kw_only=True)
class News:
    """What a loader has to tell."""

    tell: Callable[[], None]
    of_batch: bool
    """Of a batch that is handed out; else of the end of the loop."""
    share: Share | None = None
    """How that batch was cut."""
    loader: DataLoader | None = None
    """Of a batch that a loop trains on."""
    batch: Any = None
    """That batch, as it was fetched."""


class Ahead:
    """What loaders have to tell, told at once unless somebody holds it."""

    def __init__(self) -> None:
        self._holders: list[deque[News]] = []
        self._hooks = 0

    @property
    def looks(self) -> bool:
        """Whether a hook of the script within a library fetches batches by itself: it looks at them, all of each."""
        return self._hooks > 0 and not self._holders

    @contextmanager
    def hook(self) -> Iterator[None]:
        """Within this a library calls a hook of the script, which trains nothing."""
        self._hooks += 1
        try:
            yield
        finally:
            self._hooks -= 1

    @contextmanager
    def training(self) -> Iterator[None]:
        """Within this a library trains, also where one of its hooks has begun that (a search for a learning rate)."""
        before, self._hooks = self._hooks, 0
        try:
            yield
        finally:
            self._hooks = before

    @property
    def is_held(self) -> bool:
        """Whether a library fetches batches for the script."""
        return bool(self._holders)

    def tell(self, news: News) -> None:
        """Tell *news*, or keep it for whoever holds."""
        if self._holders:
            self._holders[-1].append(news)
        else:
            news.tell()

    @contextmanager
    def held(self, held: deque[News]) -> Iterator[None]:
        """Within this, what there is to tell goes to *held*."""
        self._holders.append(held)
        try:
            yield
        finally:
            self._holders.pop()

    def tell_next(self, held: deque[News]) -> News | None:
        """Tell what is held up to and with the next batch, of which it gives the news."""
        while held:
            news = held.popleft()
            self.tell(news)
            if news.of_batch:
                return news
        return None
