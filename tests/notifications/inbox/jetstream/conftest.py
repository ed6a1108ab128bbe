"""An inbox of the test's own on a shared NATS server."""

from collections.abc import AsyncIterator

import pytest
from engines.nats import NatsServer

from callfire_async.notifications.inbox.jetstream import JetStreamInbox


@pytest.fixture(autouse=True)
def _collect_garbage(collect_garbage: None) -> None:
    """Collect garbage after each of these tests."""


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"own_{abs(hash(request.node.nodeid))}"


@pytest.fixture
def new_inbox(nats_server: NatsServer, name: str):
    """Return a function that creates an inbox of this test's own."""
    return lambda **options: JetStreamInbox(nats_server.url(), **({"name": name} | options))


@pytest.fixture
async def inbox(new_inbox) -> AsyncIterator[JetStreamInbox]:
    async with new_inbox() as inbox:
        yield inbox


@pytest.fixture
async def other(new_inbox) -> AsyncIterator[JetStreamInbox]:
    """The same inbox, as another process opens it."""
    async with new_inbox() as other:
        yield other
