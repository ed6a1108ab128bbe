"""
Parse and dispatch, beside other libraries that do so: each as its own README has it, with an event of the same size.

``python -m benchmarks.peers NAME`` measures the one that is installed and keeps the figure in `peers.json`; each has an
environment of its own (``nox -s bench_peers``).
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

from benchmarks.parse import JSON
from benchmarks.report import PEERS, Figure, figure, read, write
from benchmarks.rows import FULL, Costs, Effort, Row, compare_async
from callfire_async.notifications import Router, TextReceived, parse

RUNS = 5
SECRET = "not-a-secret"  # noqa: S105  # as its name says

Work = Callable[[], Awaitable[object]]


def _ours() -> Work:
    router = Router()

    @router.on(TextReceived)
    async def handle(event: TextReceived) -> None:
        pass

    async def work() -> None:
        await router.dispatch(parse(JSON))

    return work


def _padded(event: dict[str, Any], place: list[Any]) -> bytes:
    """Word an event, with a text as long as makes it the size of ours."""
    *path, last = place
    holder: Any = event
    for step in path:
        holder = holder[step]
    holder[last] = "x" * (len(JSON) - len(json.dumps(event)))
    return json.dumps(event).encode()


def _line_bot_sdk() -> Work:
    from linebot.v3 import WebhookHandler  # noqa: PLC0415  # only where it is installed
    from linebot.v3.webhooks import MessageEvent, TextMessageContent  # noqa: PLC0415  # likewise

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

    async def work() -> None:
        handler.handle(body, signature)

    return work


def _aiogram() -> Work:
    from aiogram import Bot, Dispatcher  # noqa: PLC0415  # only where it is installed
    from aiogram.types import Message  # noqa: PLC0415  # likewise

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

    async def work() -> None:
        await dispatcher.feed_raw_update(bot, json.loads(body))

    return work


def _slack_bolt() -> Work:
    from slack_bolt.async_app import AsyncApp, AsyncBoltRequest  # noqa: PLC0415  # only where it is installed
    from slack_bolt.authorization import AuthorizeResult  # noqa: PLC0415  # likewise

    async def authorize() -> AuthorizeResult:
        return AuthorizeResult(enterprise_id=None, team_id="T1", bot_token="xoxb-1", bot_id="B1", bot_user_id="U2")  # noqa: S106  # none

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

    async def work() -> None:
        response = await app.async_dispatch(AsyncBoltRequest(body=body.decode(), headers=headers))
        if response.status != 200:
            raise ValueError(response.status)

    return work


MAKERS: Mapping[str, Callable[[], Work]] = {
    "line-bot-sdk": _line_bot_sdk,
    "aiogram": _aiogram,
    "slack-bolt": _slack_bolt,
}


def row(peer: str) -> Row:
    """Make the row of a peer."""

    def measure(effort: Effort) -> Costs:
        return asyncio.run(compare_async(_ours(), MAKERS[peer](), effort))

    return Row(f"parse and dispatch {len(JSON)} bytes", f"{peer} {version(peer)}", 1.0, measure, better="higher")


def main() -> None:
    """Measure one, and keep the figure beside those of the others."""
    peer = sys.argv[1]
    about = row(peer)
    found = figure("peers", about, [about.measure(FULL) for _ in range(RUNS)])
    others: list[Figure] = read(PEERS)[1] if PEERS.exists() else []
    write(PEERS, [*(other for other in others if not other.beside.startswith(peer)), found], runs=RUNS)
    sys.stdout.write(f"{found.ratio:.1f} times as fast as {peer}\n")


if __name__ == "__main__":
    main()
