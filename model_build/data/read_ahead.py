"""Work on many files on all cores, with the results in order and only a few waiting."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_ITEMS_AHEAD_PER_CORE = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """Call a function on every item, in threads: for work that releases the GIL, such as reading, hashing and decoding.

    Parameters
    ----------
    function : callable
    items : iterable

    Yields
    ------
    item, result
        In the order of ``items``; at most a few per core are worked on ahead, so that results do not pile up.

    Raises
    ------
    Exception
        Whatever ``function`` raises, at its item's turn.
    """
    core_count = os.cpu_count() or 1
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(core_count) as pool:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > core_count * _ITEMS_AHEAD_PER_CORE:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
