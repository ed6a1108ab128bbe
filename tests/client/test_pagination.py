"""Lists that change while they are read, and lists that no server should send."""

import pytest

from callfire_async import Page, ResourceReference
from callfire_async.client import _pagination
from callfire_async.client._pagination import iter_pages


class Listed:
    """A list of so many items, of which a page may show other ones than it should."""

    def __init__(self, ids, total="all", shown=None):
        self.items = [ResourceReference(id) for id in ids]
        self.total = len(self.items) if total == "all" else total
        self.shown = shown
        self.asked = []

    async def query(self, *, max_results, first_result):
        self.asked.append(first_result)
        items = self.items[first_result : first_result + (self.shown or max_results)]
        return Page(tuple(items), self.total, first_result)


async def ids_of(query, **options):
    options = {"page_size": 2, "max_items": 1000} | options
    return [item.id async for step in iter_pages(query, **options) for item in step.items]


@pytest.mark.parametrize("total", ["all", None])
async def test_every_item_comes_once(total):
    """Whether or not a total is said."""
    assert await ids_of(Listed([1, 2, 2, 3, 1], total).query) == [1, 2, 3]


async def test_a_step_says_where_the_next_begins():
    """So that a reader can go on there later, short pages or not."""
    listed = Listed([1, 2, 3, 4], shown=1)
    ends = [step.next_result async for step in iter_pages(listed.query, page_size=2, max_items=1000)]

    assert (ends, await ids_of(listed.query, first_result=ends[1])) == ([1, 2, 3, 4], [3, 4])


async def test_the_same_page_for_ever_ends():
    """However often it comes."""

    async def query(*, max_results, first_result):
        return Page((ResourceReference(1), ResourceReference(2)), None, first_result)

    assert await ids_of(query, max_items=10**9) == [1, 2]


async def test_a_list_without_an_end_ends():
    """At what no list has."""

    async def query(*, max_results, first_result):
        return Page((ResourceReference(first_result),), 10**9, first_result)

    assert len(await ids_of(query, max_items=10)) == 10


async def test_what_is_remembered_is_bounded(monkeypatch):
    """An item that comes again long after is not known any more."""
    monkeypatch.setattr(_pagination, "_MAX_REMEMBERED", 3)

    assert await ids_of(Listed([1, 2, 3, 4, 5, 1, 5]).query) == [1, 2, 3, 4, 5, 1]
