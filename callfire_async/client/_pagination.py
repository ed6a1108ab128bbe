"""
Lists that come in pages, and change while they are read.

It imports `models`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Generic, Protocol, TypeVar

from attrs import frozen

from callfire_async.models import Page

__all__ = ["PageDelta", "iter_pages"]

# A page can be all known because others were added before it meanwhile; so much in a row is the same page for ever.
_MAX_STALE = 100
# What is added while a list is read moves the rest on by some pages at most; this many ids are 10 MB.
_MAX_REMEMBERED = 100_000


class _HasId(Protocol):
    @property
    def id(self) -> int: ...


I = TypeVar("I", bound=_HasId)  # noqa: E741  # an item


class PageFetcher(Protocol[I]):
    """Fetches one page."""

    async def __call__(self, *, max_results: int, first_result: int) -> Page[I]:
        """Fetch *max_results* items at most, from number *first_result*."""
        ...


@frozen
class PageDelta(Generic[I]):
    """What one page had that those before it had not, and where the next one begins."""

    items: tuple[I, ...]
    next_result: int
    total_results: int | None


async def iter_pages(
    query: PageFetcher[I], *, page_size: int, most: int, first_result: int = 0
) -> AsyncIterator[PageDelta[I]]:
    """
    Read a list, a page a step, no item twice.

    Always ends, also where CallFire says no total, gives short pages, or the same one for ever.

    Args:
        query: Fetches a page.
        page_size: How many items to ask for at a time.
        most: How many items no list has.
        first_result: Where to begin.
    """
    remembered: dict[int, None] = {}
    stale = 0
    while first_result < most and stale < max(_MAX_STALE, 3 * page_size):
        page = await query(max_results=page_size, first_result=first_result)
        fresh = {item.id: item for item in page.items if item.id not in remembered}
        _remember_ids(remembered, fresh)
        first_result += len(page.items)
        stale = 0 if fresh else stale + page_size
        yield PageDelta(tuple(fresh.values()), first_result, page.total_results)
        if not page.items or first_result >= (most if page.total_results is None else page.total_results):
            return


def _remember_ids(remembered: dict[int, None], fresh: dict[int, I]) -> None:
    """Add ids; those that were added first are the first to go."""
    remembered.update(dict.fromkeys(fresh))
    while len(remembered) > _MAX_REMEMBERED:
        del remembered[next(iter(remembered))]
