"""The HTTP libraries whose clients `http_client=` accepts, for tests that run over both."""

from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import httpx2

LIBRARIES = (httpx, httpx2)


def make_over(library, factory, *arguments, httpx2_transport=None, **settings):
    """
    Create a `Connection` or a `CallFire` over a library.

    With httpx it has its own HTTP client. With httpx2 it gets one that is configured alike, and closes it too.
    """
    if library is httpx or settings.get("http_client") is not None:
        return factory(*arguments, **settings)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=10)
    http_client = httpx2.AsyncClient(
        verify=settings.pop("ssl_context", None) or True,
        trust_env=settings.pop("trust_env", False),
        transport=httpx2_transport,
        limits=limits,
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
    )
    made = factory(*arguments, http_client=http_client, **settings)
    getattr(made, "_connection", made)._transport._owned = True
    return made


class RespxTransport(httpx2.AsyncBaseTransport):
    """Sends the requests of httpx2 through httpx, where respx intercepts them, and raises its errors as httpx2's."""

    def __init__(self):
        self._httpx = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request):
        request = httpx.Request(
            request.method, str(request.url), headers=request.headers.raw, content=await request.aread()
        )
        try:
            response = await self._httpx.handle_async_request(request)
            return httpx2.Response(
                response.status_code, headers=response.headers.raw, stream=httpx2.ByteStream(await response.aread())
            )
        except httpx.HTTPError as error:
            raise getattr(httpx2, type(error).__name__)(str(error)) from error.__cause__

    async def aclose(self):
        await self._httpx.aclose()
