"""A CallFire in memory, as a server on loopback."""

import asyncio

from callfire_async.cli._output import echo, say_json
from callfire_async.cli._server import serve
from callfire_async.testing import FakeCallFire

__all__ = ["run"]

_READY = """\
Ready! A CallFire in memory, at {base_url}
It forgets everything when it ends, with Ctrl-C. In another terminal:

  export CALLFIRE_API_LOGIN={login} CALLFIRE_API_PASSWORD={password}
  callfire-async subscriptions list --base-url {base_url}

A text that is sent here is posted to whoever has subscribed to OUTBOUND_TEXT_FINISHED:

  curl -u {login}:{password} {base_url}/text.json -d To=12135550142 -d Message=Hello"""


async def run(port: int, *, as_json: bool) -> None:
    """Serve until interrupted."""
    fake = FakeCallFire()
    async with serve(fake, port) as taken:
        base_url = f"http://127.0.0.1:{taken}/api/1.1/rest"
        if as_json:
            say_json({"base_url": base_url})
        else:
            # Those of the fake, which open nothing but this.
            echo(_READY.format(base_url=base_url, login=fake.login, password=fake.password))
        await asyncio.Event().wait()
