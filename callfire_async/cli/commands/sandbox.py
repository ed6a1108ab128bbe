"""Serve the fake of CallFire's API."""

import asyncio
from typing import Annotated

import typer

from callfire_async.cli._client_options import AsJson
from callfire_async.cli._exit import port_errors
from callfire_async.cli._output import echo, echo_json
from callfire_async.inspector._server import serve
from callfire_async.testing import FakeCallFire

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

_READY = """\
Ready! A fake CallFire API at {base_url}
All data is in memory and is lost when the server stops (Ctrl-C). In another terminal:

  export CALLFIRE_API_LOGIN={login} CALLFIRE_API_PASSWORD={password}
  callfire-async subscriptions list --base-url {base_url}

To trigger a postback to the subscriptions to OUTBOUND_TEXT_FINISHED, send a text:

  curl -u {login}:{password} {base_url}/text.json -d To=12135550142 -d Message=Hello"""


@app.command(
    epilog="Example: `callfire-async sandbox --port 8480`",
    help="""
    Serve an in-memory fake of CallFire's API on localhost.

    Subscriptions made there get postbacks for the texts that are sent there. No text is delivered.
    """,
)
def sandbox(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free port.")] = 8480,
    as_json: AsJson = False,
) -> None:
    asyncio.run(run(port, as_json=as_json))


async def run(port: int, *, as_json: bool) -> None:
    """Serve until interrupted."""
    fake = FakeCallFire()
    async with port_errors(serve(fake, port)) as bound_port:
        base_url = f"http://127.0.0.1:{bound_port}/api/1.1/rest"
        if as_json:
            echo_json({"base_url": base_url})
        else:
            # These credentials are valid for the fake only.
            echo(_READY.format(base_url=base_url, login=fake.login, password=fake.password))
        await asyncio.Event().wait()
