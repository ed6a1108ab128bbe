"""The receiver's limits with Sentry's SDK, which reads the bodies of FastAPI's requests before their handler."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from notifications.parsing.own_process import TOKEN, OwnServer, own_server
from notifications.servers import ADAPTERS, connection

BODY = b'{"TextSent":{"Text":{"@id":42}}}'
WRONG = "wrong-wrong-wrong"
# One server gets all requests.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ADAPTERS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[OwnServer]:
    async with own_server(request.param, sentry=True) as server:
        yield server


async def test_a_notification_is_handled(server):
    """JSON, which Sentry parses, and XML, which it parses as a form or not at all."""
    kinds = ("application/json", "application/xml", "application/x-www-form-urlencoded")

    assert [await server.post(BODY, f"Content-Type: {kind}") for kind in kinds] == [204] * 3


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "text/xml"])
async def test_a_wrong_token_is_rejected_before_its_body_arrives(server, kind):
    """A stranger who sends nothing cannot keep a connection open."""
    async with connection(server.endpoint) as sender:
        sender.head(server.endpoint.path(WRONG), "Content-Length: 100", f"Content-Type: {kind}")
        sender.send(b"{")

        assert (await sender.status(), await sender.is_closed()) == (404, True)


async def test_a_wrong_token_with_a_large_body_is_rejected(server):
    """Its sender is disconnected, and the body takes no memory."""
    await server.post(BODY)
    before = server.most_memory()
    async with connection(server.endpoint) as sender:
        sender.head(server.endpoint.path(WRONG), "Content-Length: 1000000000")

        assert await sender.send_until_disconnected(2**28) < 2**26
    assert server.most_memory() - before < 2**25


async def test_a_body_without_end_is_rejected(server):
    """Also with the valid token."""
    async with connection(server.endpoint) as sender:
        sender.head(server.endpoint.path(TOKEN), "Transfer-Encoding: chunked")

        assert await sender.send_until_disconnected(2**28) < 2**26


async def test_a_body_that_is_declared_too_large_is_rejected_before_it_arrives(server):
    """413, although Sentry would read it."""
    async with connection(server.endpoint) as sender:
        sender.head(server.endpoint.path(TOKEN), "Content-Length: 2000000")

        assert (await sender.status(), await sender.is_closed()) == (413, True)


async def test_a_slow_body_times_out(server):
    """408 after body_timeout, also for a sender that has the token."""
    async with connection(server.endpoint) as sender:
        sender.head(server.endpoint.path(TOKEN), f"Content-Length: {len(BODY)}")
        sender.send(BODY[:10])

        assert (await sender.status(), await sender.is_closed()) == (408, True)
