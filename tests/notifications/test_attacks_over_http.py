"""Sends the attack corpus to every adapter: the server survives, returns the right status, and does not grow."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from notifications.parsing import attacks
from notifications.parsing.own_process import OwnServer, own_server
from notifications.servers import ADAPTERS

BODY = b'{"TextSent":{"Text":{"@id":42}}}'
# One server gets all requests.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]
MAX_BODY_BYTES = 1024 * 1024
# The allocator keeps some memory of the first round, but later rounds must not add to it.
MAX_GROWTH_BYTES = 8 * 1024 * 1024
STATUSES = {"bad": {400, 422}, "accepted": {204}, "bounded": {204, 400, 422}}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ADAPTERS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[OwnServer]:
    async with own_server(request.param) as server:
        yield server


def headers(case: attacks.Case) -> list[str]:
    return [f"Content-Type: {case.content_type}"] if case.content_type else []


@pytest.mark.parametrize("case", attacks.CASES.values(), ids=attacks.CASES)
async def test_case(server, case):
    """The response fits the case's outcome, and the next notification is accepted."""
    body = case.body()

    status = await server.post(body, *headers(case))
    # 500 if only one of several events cannot be read.
    statuses = STATUSES[case.outcome] | ({500} if case.has_several else set())

    assert status in ({413} if len(body) > MAX_BODY_BYTES else statuses)
    assert await server.post(BODY) == 204


# Without "mounted", which is "asgi" in another application.
@pytest.mark.parametrize("server", ["aiohttp", "fastapi", "asgi"], indirect=True, scope="module")
async def test_the_server_does_not_grow(server):
    """Later rounds take no more memory than the second."""
    bodies = [(case.body(), headers(case)) for case in attacks.CASES.values()]
    memory = []
    for _ in range(5):
        for body, more in bodies:
            await server.post(body, *more)
        memory.append(server.memory())

    # A single measurement may find memory in use that is free soon after.
    assert min(memory[2:]) - memory[1] < MAX_GROWTH_BYTES
