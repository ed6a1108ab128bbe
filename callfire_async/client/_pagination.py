"""Iterate over paged lists that can change meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Generic, Protocol, TypeVar

from attrs import frozen

from callfire_async.models import Page

__all__ = ["MAX_LISTED", "PageDelta", "iter_pages"]

# Ten times the maximum of an account's subscriptions; a longer list is an error of the server.
MAX_LISTED = 100_000

# Items that are added before the current page shift known items into it. With more known items in a row, the list is
# endless.
_MAX_STALE = 100
# Items that are added meanwhile shift the others by a few pages only; 100,000 IDs take 10 MB.
_MAX_REMEMBERED = 100_000


class _HasId(Protocol):
    @property
    def id(self) -> int: ...


I = TypeVar("I", bound=_HasId)  # noqa: E741  # an item


class PageFetcher(Protocol[I]):
    """A function that fetches one page."""

    async def __call__(self, *, max_results: int, first_result: int) -> Page[I]:
        """Return at most *max_results* items, starting at index *first_result*."""
        ...


@frozen
class PageDelta(Generic[I]):
    """The items of a page that no earlier page had, and the index at which the next page starts."""

    items: tuple[I, ...]
    next_result: int
    total_results: int | None


async def iter_pages(
    fetch: PageFetcher[I], *, page_size: int, max_items: int, first_result: int = 0
) -> AsyncIterator[PageDelta[I]]:
    """
    Yield the pages of a list, each item once.

    Always ends, even if CallFire returns no total, short pages, or the same page over and over.

    Args:
        fetch: Fetches a page.
        page_size: Number of items to request per page.
        max_items: Index at which to stop; larger than any real list.
        first_result: Index at which to start.
    """
    remembered: dict[int, None] = {}
    stale = 0
    while first_result < max_items and stale < max(_MAX_STALE, 3 * page_size):
        page = await fetch(max_results=page_size, first_result=first_result)
        new = {item.id: item for item in page.items if item.id not in remembered}
        _remember_ids(remembered, new)
        first_result += len(page.items)
        stale = 0 if new else stale + page_size
        yield PageDelta(tuple(new.values()), first_result, page.total_results)
        if not page.items or first_result >= (max_items if page.total_results is None else page.total_results):
            return


def _remember_ids(remembered: dict[int, None], new: dict[int, I]) -> None:
    """Add IDs, and remove the oldest ones above the limit."""
    remembered.update(dict.fromkeys(new))
    while len(remembered) > _MAX_REMEMBERED:
        del remembered[next(iter(remembered))]
