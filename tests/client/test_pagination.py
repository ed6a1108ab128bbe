"""Lists that change while they are read, and invalid lists."""

import pytest

from callfire_async import Page, ResourceReference
from callfire_async.client import _pagination
from callfire_async.client._pagination import iter_pages


class Listed:
    """A list whose pages can be short and whose total can be wrong."""

    def __init__(self, ids, total="all", shown=None):
        self.items = [ResourceReference(id) for id in ids]
        self.total = len(self.items) if total == "all" else total
        self.shown = shown
        self.offsets = []

    async def query(self, *, max_results, first_result):
        self.offsets.append(first_result)
        items = self.items[first_result : first_result + (self.shown or max_results)]
        return Page(tuple(items), self.total, first_result)


async def ids_of(query, **options):
    options = {"page_size": 2, "max_items": 1000} | options
    return [item.id async for page in iter_pages(query, **options) for item in page.items]


@pytest.mark.parametrize("total", ["all", None])
async def test_every_item_is_yielded_once(total):
    """With or without a total."""
    assert await ids_of(Listed([1, 2, 2, 3, 1], total).query) == [1, 2, 3]


async def test_a_page_has_the_start_of_the_next():
    """A reader can continue there later, after short pages too."""
    listed = Listed([1, 2, 3, 4], shown=1)
    ends = [page.next_result async for page in iter_pages(listed.query, page_size=2, max_items=1000)]

    assert (ends, await ids_of(listed.query, first_result=ends[1])) == ([1, 2, 3, 4], [3, 4])


async def test_an_endlessly_repeated_page_ends():
    """No matter how often it is returned."""

    async def query(*, max_results, first_result):
        return Page((ResourceReference(1), ResourceReference(2)), None, first_result)

    assert await ids_of(query, max_items=10**9) == [1, 2]


async def test_an_endless_list_ends():
    """At `max_items`."""

    async def query(*, max_results, first_result):
        return Page((ResourceReference(first_result),), 10**9, first_result)

    assert len(await ids_of(query, max_items=10)) == 10


async def test_remembered_ids_are_bounded(monkeypatch):
    """An item that is returned again much later is yielded again."""
    monkeypatch.setattr(_pagination, "_MAX_REMEMBERED", 3)

    assert await ids_of(Listed([1, 2, 3, 4, 5, 1, 5]).query) == [1, 2, 3, 4, 5, 1]
