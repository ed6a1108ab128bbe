"""
Other libraries used as in their READMEs: parse and dispatch of an event of the same size, and inboxes (`inbox_peers`).

``python -m benchmarks.peers NAME`` measures the installed library and stores its figures in `peers.json`; each library
has its own environment (``nox -s bench_peers``).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any

from benchmarks import inbox_peers
from benchmarks.parse import JSON
from benchmarks.report import PEERS, Figure, figure, read, table, write
from benchmarks.rows import FULL, Costs, Effort, Row, compare_async
from callfire_async.notifications import Router, TextReceived, parse

RUNS = 5
SECRET = "not-a-secret"  # noqa: S105  # not a real secret

Operation = Callable[[], Awaitable[object]]


def _ours() -> Operation:
    router = Router()

    @router.on(TextReceived)
    async def handle(event: TextReceived) -> None:
        pass

    async def parse_and_dispatch() -> None:
        await router.dispatch(parse(JSON))

    return parse_and_dispatch


def _padded(event: dict[str, Any], path: list[Any]) -> bytes:
    """Return an event in JSON, with a text at *path* that gives it the size of ours."""
    *parents, last = path
    parent: Any = event
    for key in parents:
        parent = parent[key]
    parent[last] = "x" * (len(JSON) - len(json.dumps(event)))
    return json.dumps(event).encode()


def _line_bot_sdk() -> Operation:
    from linebot.v3 import WebhookHandler  # noqa: PLC0415  # only one library is installed
    from linebot.v3.webhooks import MessageEvent, TextMessageContent  # noqa: PLC0415  # only one library is installed

    handler = WebhookHandler(SECRET)

    @handler.add(MessageEvent, message=TextMessageContent)
    def handle(event: object) -> None:
        pass

    event = {
        "type": "message",
        "message": {"type": "text", "id": "1", "quoteToken": "q", "text": ""},
        "webhookEventId": "01FZ74A0TDDPYRVKNK77XKC3ZR",
        "deliveryContext": {"isRedelivery": False},
        "timestamp": 1625665242211,
        "source": {"type": "user", "userId": "U80696558e1aa831"},
        "replyToken": "757913772c4646b784d4b7ce46d12671",
        "mode": "active",
    }
    body = _padded({"destination": "U1", "events": [event]}, ["events", 0, "message", "text"]).decode()
    signature = base64.b64encode(hmac.digest(SECRET.encode(), body.encode(), hashlib.sha256)).decode()

    async def parse_and_dispatch() -> None:
        handler.handle(body, signature)

    return parse_and_dispatch


def _aiogram() -> Operation:
    from aiogram import Bot, Dispatcher  # noqa: PLC0415  # only one library is installed
    from aiogram.types import Message  # noqa: PLC0415  # only one library is installed

    dispatcher, bot = Dispatcher(), Bot("42:" + "A" * 35)

    async def handle(message: Message) -> None:
        pass

    dispatcher.message.register(handle)
    message = {
        "message_id": 1,
        "date": 1625665242,
        "chat": {"id": 1, "type": "private", "first_name": "A"},
        "from": {"id": 1, "is_bot": False, "first_name": "A"},
        "text": "",
    }
    body = _padded({"update_id": 1, "message": message}, ["message", "text"])

    async def parse_and_dispatch() -> None:
        await dispatcher.feed_raw_update(bot, json.loads(body))

    return parse_and_dispatch


def _slack_bolt() -> Operation:
    from slack_bolt.async_app import AsyncApp, AsyncBoltRequest  # noqa: PLC0415  # only one library is installed
    from slack_bolt.authorization import AuthorizeResult  # noqa: PLC0415  # only one library is installed

    async def authorize() -> AuthorizeResult:
        return AuthorizeResult(enterprise_id=None, team_id="T1", bot_token="xoxb-1", bot_id="B1", bot_user_id="U2")  # noqa: S106  # not a real token

    app = AsyncApp(signing_secret=SECRET, authorize=authorize, process_before_response=True)

    @app.event("message")
    async def handle(event: object) -> None:
        pass

    event = {"type": "message", "channel": "C1", "user": "U1", "text": "", "ts": "1625665242.0001"}
    body = _padded({"type": "event_callback", "team_id": "T1", "event_id": "E1", "event": event}, ["event", "text"])
    now = str(int(time.time()))
    signature = "v0=" + hmac.new(SECRET.encode(), f"v0:{now}:{body.decode()}".encode(), hashlib.sha256).hexdigest()
    headers = {
        "content-type": ["application/json"],
        "x-slack-request-timestamp": [now],
        "x-slack-signature": [signature],
    }

    async def parse_and_dispatch() -> None:
        response = await app.async_dispatch(AsyncBoltRequest(body=body.decode(), headers=headers))
        if response.status != 200:
            raise ValueError(response.status)

    return parse_and_dispatch


LIBRARIES: Mapping[str, Callable[[], Operation]] = {
    "line-bot-sdk": _line_bot_sdk,
    "aiogram": _aiogram,
    "slack-bolt": _slack_bolt,
}


def rows(peer: str) -> tuple[Row, ...]:
    """Return the rows of a library."""
    if peer == "knockerlite":
        return inbox_peers.rows()

    def measure(effort: Effort) -> Costs:
        return asyncio.run(compare_async(_ours(), LIBRARIES[peer](), effort))

    operation = f"`parse` and `dispatch` of {len(JSON)} bytes"
    return (Row(operation, f"{peer} {version(peer)}", 1.0, measure, better="higher"),)


def main() -> None:
    """Measure one library, and store its figures with those of the others."""
    peer = sys.argv[1]
    measured = [figure("peers", row, [row.measure(FULL) for _ in range(RUNS)]) for row in rows(peer)]
    others: list[Figure] = read(PEERS)[1] if PEERS.exists() else []
    write(PEERS, [*(other for other in others if not other.baseline.startswith(peer)), *measured], runs=RUNS)
    sys.stdout.write(table(measured))


if __name__ == "__main__":
    main()
