"""Serve the fake of CallFire's APIs 1.1 and v2."""

import asyncio
from typing import Annotated

import typer

from callfire_async.cli._client_options import AsJson
from callfire_async.cli._exit import port_errors
from callfire_async.cli._help import CommandApp
from callfire_async.cli._output import echo, echo_json
from callfire_async.inspector._server import serve
from callfire_async.testing import FakeCallFire
from callfire_async.testing.fake_callfire._api_1_1 import ListOfOne
from callfire_async.testing.fake_callfire._postback_builder import PostbackShape

app: typer.Typer = CommandApp()

_READY = """\
Ready! A fake CallFire: API 1.1 at {base_url}, API v2 at {webhooks_base_url}
All data is in memory and is lost when the server stops (Ctrl-C). In another terminal:

  export CALLFIRE_API_LOGIN={login} CALLFIRE_API_PASSWORD={password}
  callfire-async subscriptions list --base-url {base_url}
  callfire-async webhooks list --webhooks-base-url {webhooks_base_url}

To trigger a postback to the subscriptions to OUTBOUND_TEXT_FINISHED and the webhooks for OutboundText, send a text:

  curl -u {login}:{password} {base_url}/text.json -d To=12135550142 -d Message=Hello"""


@app.command(
    epilog="Example: `callfire-async sandbox --port 8480`",
    help="""
    Serve an in-memory fake of CallFire's API on localhost.

    Its subscriptions and webhooks get postbacks about the texts that are sent through it. No text is delivered.
    """,
)
def sandbox(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free port.")] = 8480,
    list_of_one: Annotated[
        ListOfOne, typer.Option(help="JSON form of a list with one item in API 1.1; CallFire has sent both.")
    ] = "array",
    postback_shape: Annotated[
        PostbackShape, typer.Option(help="Shape of API 1.1's postbacks: the current one (since 2016), or that of 2015.")
    ] = "2016",
    events_per_postback: Annotated[
        int, typer.Option(min=1, help="Maximum number of events in one postback of API v2.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    fake = FakeCallFire(list_of_one=list_of_one, postback_shape=postback_shape, events_per_postback=events_per_postback)
    asyncio.run(run(fake, port, as_json=as_json))


async def run(fake: FakeCallFire, port: int, *, as_json: bool) -> None:
    """Serve until interrupted."""
    async with port_errors(serve(fake, port)) as bound_port:
        root = f"http://127.0.0.1:{bound_port}"
        urls = {"base_url": f"{root}/api/1.1/rest", "webhooks_base_url": f"{root}/v2"}
        if as_json:
            echo_json(urls)
        else:
            # These credentials are valid for the fake only.
            echo(_READY.format(**urls, login=fake.login, password=fake.password))
        await asyncio.Event().wait()
