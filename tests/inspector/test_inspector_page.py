"""The inspector's page in a real browser: what people see, press and hear of."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from inspector.browser import browsing
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from callfire_async.inspector import BindAddress, FileSource, ReceiverSource, serve_inspector
from callfire_async.notifications import (
    CallFinished,
    MemoryInbox,
    Postback,
    Receiver,
    Reject,
    RetryPolicy,
    Router,
    SqliteInbox,
    TextFinished,
)

TOKEN = "0123456789abcdef"
DEADLINE = 60
NUMBER = "12135551212"
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
SHOTS = "screenshots"


def text(number: int, subscription: int = 41001, message: str = "see you at noon") -> bytes:
    return (
        f'{{"TextSent": {{"SubscriptionId": {subscription}, "Text": {{"@id": {number}, "FromNumber": "{NUMBER}",'
        f' "Message": "{message}", "State": "FINISHED", "FinalResult": "SENT"}}}}}}'
    ).encode()


def call(number: int, subscription: int = 41002) -> bytes:
    return f'{{"CallFinished": {{"SubscriptionId": {subscription}, "Call": {{"@id": {number}}}}}}}'.encode()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(SHOTS)


@define(eq=False)
class Page:
    """The page in the browser, asked from another thread so that the inspector can answer it."""

    browser: Chrome
    shots: Path

    async def run(self, script: str, *arguments: object) -> Any:
        return await asyncio.to_thread(self.browser.execute_script, script, *arguments)

    async def open(self, url: str) -> None:
        # A page of its own: the address differs from the last only in its fragment where the port is the same.
        await asyncio.to_thread(self.browser.get, "about:blank")
        await asyncio.to_thread(self.browser.get, url)

    async def until(self, script: str, *arguments: object) -> Any:
        """Wait until a script says something true; return it."""
        async with asyncio.timeout(DEADLINE):
            while True:
                found = await self.run(f"return {script}", *arguments)
                if found:
                    return found
                await asyncio.sleep(0.05)

    async def texts(self, selector: str) -> list[str]:
        return await self.run(
            "return [...document.querySelectorAll(arguments[0])].map((node) => node.innerText)", selector
        )

    async def rows(self, count: int) -> None:
        await self.until(f"document.querySelectorAll('.row').length === {count}")

    async def press(self, *keys: str) -> None:
        def send() -> None:
            for key in keys:
                self.browser.switch_to.active_element.send_keys(key)

        await asyncio.to_thread(send)

    async def click(self, selector: str) -> None:
        await self.run("document.querySelector(arguments[0]).click()", selector)

    async def choose(self, id: str, value: str) -> None:
        script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        await self.run(script + "e.dispatchEvent(new Event('change', {bubbles: true}))", id, value)

    async def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        await asyncio.to_thread(self.browser.execute_cdp_cmd, "Emulation.setDeviceMetricsOverride", metrics)

    async def shoot(self, name: str) -> None:
        await asyncio.to_thread(self.browser.save_screenshot, str(self.shots / f"{name}.png"))

    async def log(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.browser.get_log, "browser")


@pytest.fixture
async def page(browser: Chrome, shots: Path) -> AsyncIterator[Page]:
    page = Page(browser, shots)
    await page.size(1440, 900)
    yield page
    # The page goes on asking when its inspector has gone; what else it complains of is its own fault.
    complaints = [one for one in await page.log() if one["level"] == "SEVERE" and one["source"] != "network"]
    await page.run("localStorage.clear()")
    await asyncio.to_thread(page.browser.get, "about:blank")
    assert complaints == []


@define(eq=False)
class Watched:
    """A receiver with its inspector."""

    receiver: Receiver
    source: ReceiverSource
    url: str
    inbox: Any
    is_repaired: bool = False

    async def post(self, *bodies: bytes, token: str = TOKEN) -> None:
        for body in bodies:
            await self.receiver.receive(Postback("POST", token, {}, body))
        await self.receiver.idle(timeout=DEADLINE)


@asynccontextmanager
async def watching(inbox: Any = None) -> AsyncIterator[Watched]:
    router = Router()
    watched: Watched

    @router.on(TextFinished, name="service.keep")
    async def keep(event: TextFinished) -> None:
        if event.text.message == "fail" and not watched.is_repaired:
            raise LookupError(event.text.message)

    @router.on(CallFinished, name="service.call")
    async def refuse(event: CallFinished) -> None:
        raise Reject("not one of ours")

    inbox = MemoryInbox(keep_bodies=True) if inbox is None else inbox
    receiver = Receiver(router, tokens=TOKEN, inbox=inbox, retry=RetryPolicy(max_attempts=1))
    source = ReceiverSource(inbox, receiver)
    receiver.observe(source)
    async with receiver, serve_inspector(source) as url:
        watched = Watched(receiver, source, url, inbox)
        yield watched


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    async with watching() as watched:
        yield watched


async def test_deliveries_arrive_while_one_looks(page, watched):
    """The newest first, with its kind, its subscription and what became of it; nothing private among it."""
    await page.open(watched.url)
    await page.until("document.querySelector('#connection').innerText === 'live'")

    await watched.post(text(42), call(43), b"{", text(42))
    await watched.post(text(44), token="wrong")
    await page.rows(5)

    assert [row.split("\n")[:2] for row in await page.texts(".row")] == [
        ["refused", "request"],
        ["duplicate", "TextSent text 42"],
        ["dead", "not a notification"],
        ["dead", "CallFinished call 43"],
        ["handled", "TextSent text 42"],
    ]
    shown = await page.run("return document.documentElement.outerHTML")
    assert not [secret for secret in (NUMBER, "noon", TOKEN) if secret in shown]
    await page.until("document.querySelector('#dead').innerText === '2'")
    await page.shoot("light")


async def test_the_key_leaves_the_address(page, watched):
    """It is in this tab's memory: a reload works, and nobody reads it over a shoulder."""
    await page.open(watched.url)
    await page.until("document.querySelector('#connection').innerText === 'live'")
    address = await page.run("return location.href")
    await page.run("location.reload()")
    await page.until("document.querySelector('#connection')?.innerText === 'live'")

    assert address == watched.url.partition("#")[0]


async def test_without_the_key_nothing_is_shown(page, watched):
    """The page says where it is."""
    await watched.post(text(42))

    await page.open(watched.url.partition("#")[0] + "#wrong")
    await page.until("document.querySelector('#connection').innerText === 'locked'")

    assert "the command printed" in (await page.texts("#toast"))[0]
    assert await page.texts(".row") == []
    assert len([entry for entry in await page.log() if "401" in entry["message"]]) == 1


async def test_the_list_can_be_filtered(page, watched):
    """By kind, by subscription and by outcome, together; what comes later is filtered too."""
    await page.open(watched.url)
    await watched.post(text(42), text(43, 7), call(44), b"{")
    await page.rows(4)

    await page.choose("filter-kind", "TextSent")
    await page.rows(2)
    await page.choose("filter-subscription", "7")
    await page.rows(1)
    await watched.post(text(45), text(46, 7))
    await page.rows(2)
    of = await page.texts("#shown")
    await page.click("#clear")
    await page.rows(6)
    await page.choose("filter-outcome", "dead")
    await page.rows(2)

    assert of == ["2 of 6"]


async def test_numbers_and_texts_are_masked_until_they_are_asked_for(page, watched):
    """Not in the page, and not in what the server has sent, until a request of its own."""
    await page.open(watched.url)
    await watched.post(text(42))
    await page.rows(1)
    await page.click(".row")
    await page.until("document.querySelector('#detail[data-revealed=false]')")
    masked = await page.run("return document.querySelector('#detail').innerText")
    await page.click(".tree button")
    await page.until("document.querySelector('#detail[data-revealed=true]')")
    revealed = await page.run("return document.querySelector('#detail').innerText")
    await page.click("#raw")
    raw = await page.texts("pre.body")
    await page.click("#reveal")
    await page.until("document.querySelector('#detail[data-revealed=false]')")

    assert ("***12" in masked, NUMBER in masked, "noon" in masked) == (True, False, False)
    assert (NUMBER in revealed, "see you at noon" in revealed) == (True, True)
    assert raw == [text(42).decode()]
    assert NUMBER not in await page.run("return document.documentElement.outerHTML")


async def test_each_handler_is_shown_with_what_it_raised(page, watched):
    """By its class: its words are in nobody's page."""
    await page.open(watched.url)
    await watched.post(text(42, message="fail"))
    await page.rows(1)
    await page.click(".row")
    await page.until("document.querySelector('.handlers')")

    (run,) = await page.texts(".handlers li")
    assert run.split("\n")[1:3] == ["service.keep", "LookupError"]
    assert (await page.texts(".reason"))[0] == "the only attempt failed: service.keep: LookupError"


async def test_a_dead_letter_is_replayed_as_itself(page, watched):
    """Through the receiver: its handlers run, and the list of the dead is empty then."""
    await page.open(watched.url)
    await watched.post(text(42, message="fail"))
    await page.rows(1)
    await page.click("#view-dead")
    await page.until("document.querySelector('.row .reason-line')?.innerText.includes('LookupError')")
    await page.shoot("dead")
    watched.is_repaired = True
    await page.click(".row")
    await page.until("document.querySelector('#replay')")
    await page.click("#replay")
    await page.rows(0)
    await watched.receiver.idle(timeout=DEADLINE)
    await page.click("#view-all")
    await page.until("document.querySelector('.row .badge').innerText === 'handled'")

    assert "attempt 2" in (await page.texts(".row"))[0]


async def test_all_dead_letters_are_replayed_at_once(page, watched):
    """Where the cause was one."""
    await page.open(watched.url)
    await watched.post(*(text(number, message="fail") for number in range(3)))
    watched.is_repaired = True
    await page.click("#view-dead")
    await page.until("!document.querySelector('#replay-all').hidden")
    await page.click("#replay-all")
    await page.until("document.querySelector('#toast').innerText.startsWith('3 replayed')")
    await watched.receiver.idle(timeout=DEADLINE)

    assert (await watched.receiver.stats()).inbox.done == 3


async def test_what_was_handled_is_replayed_as_a_new_delivery(page, watched):
    """The inbox would take the same bytes for a repeat."""
    await page.open(watched.url)
    await watched.post(text(42))
    await page.rows(1)
    await page.click(".row")
    await page.until("document.querySelector('#replay:not(:disabled)')")
    await page.press("r")
    await page.rows(2)
    await watched.receiver.idle(timeout=DEADLINE)

    assert (await watched.receiver.stats()).handled == 2


async def test_all_of_it_can_be_done_with_the_keyboard(page, watched):
    """Into the list with Tab, through it with the arrows, into a delivery and back."""
    await page.open(watched.url)
    await watched.post(text(41), text(42), call(43))
    await page.rows(3)

    focused = []
    for _ in range(10):
        await page.press(Keys.TAB)
        focused.append(await page.run("return document.activeElement.id"))
    await page.run("document.querySelector('#list').focus()")
    await page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, "j", "k")
    second = await page.run("return document.querySelector('#list').getAttribute('aria-activedescendant')")
    await page.press(Keys.END)
    last = await page.run("return document.querySelector('[aria-selected=true]').id")
    await page.press(Keys.ENTER)
    await page.until("document.activeElement.id === 'detail'")
    await page.until("document.querySelector('#detail[data-revealed=false]')")
    await page.press("v")
    await page.until("document.querySelector('#detail[data-revealed=true]')")
    await page.press(Keys.ESCAPE)
    back = await page.run("return document.activeElement.id")
    await page.press("/")
    filtering = await page.run("return document.activeElement.id")
    await page.press(Keys.ESCAPE, "?")
    await page.until("document.querySelector('#keys').open")
    await page.press(Keys.ESCAPE, "2")
    await page.until("document.querySelector('#view-dead').getAttribute('aria-pressed') === 'true'")

    order = ["", "pause", "theme", "help", "view-all", "view-dead", "filter-kind", "filter-subscription"]
    assert focused == [*order, "filter-outcome", "list"]
    assert (second, last) == ("row-deliveries-2", "row-deliveries-1")
    assert (back, filtering) == ("list", "filter-kind")


async def test_single_letters_can_be_turned_off(page, watched):
    """Whoever speaks to their machine must not replay by saying so."""
    await page.open(watched.url)
    await page.until("document.querySelector('#connection').innerText === 'live'")
    await page.run("document.querySelector('#single-keys').click()")
    await page.press("p")
    off = await page.run("return document.querySelector('#pause').getAttribute('aria-pressed')")
    await page.run("document.querySelector('#single-keys').click()")
    await page.press("p")
    on = await page.run("return document.querySelector('#pause').getAttribute('aria-pressed')")

    assert (off, on) == ("false", "true")


async def test_the_list_can_be_paused(page, watched):
    """So that it can be read; going on shows what came meanwhile."""
    await page.open(watched.url)
    await watched.post(text(41))
    await page.rows(1)
    await page.click("#pause")
    await watched.post(text(42))
    await page.until("document.querySelector('#rate').innerText === '2'")
    paused = await page.texts(".row .subject")
    await page.click("#pause")
    await page.rows(2)

    assert paused == ["text 41"]
    assert await page.texts(".row .subject") == ["text 42", "text 41"]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_it_is_light_and_dark(page, watched, theme):
    """By hand; the choice stays."""
    await page.open(watched.url)
    await watched.post(text(41), call(42), b"{")
    await page.rows(3)
    await page.until(
        "(document.querySelector('#theme').click(), document.documentElement.dataset.theme === arguments[0])", theme
    )
    await page.click(".row:last-child")
    await page.until("document.querySelector('#detail .tree')")
    colour = await page.run("return getComputedStyle(document.body).backgroundColor")
    await page.shoot(f"chosen-{theme}")
    await page.run("location.reload()")
    await page.until(f"document.documentElement.dataset.theme === '{theme}'")

    assert colour == {"light": "rgb(246, 245, 243)", "dark": "rgb(19, 18, 17)"}[theme]


async def test_it_fits_a_phone(page, watched):
    """Nothing is cut off; a delivery takes the whole width, and lets go of it again."""
    await page.size(390, 844)
    await page.open(watched.url)
    await watched.post(text(41), call(42), b"{")
    await page.rows(3)
    width = await page.run("return document.documentElement.scrollWidth")
    await page.shoot("phone")
    hidden = await page.run("return getComputedStyle(document.querySelector('#detail')).display")
    await page.click(".row:last-child")
    await page.until("document.querySelector('#back')?.checkVisibility()")
    await page.shoot("phone-chosen")
    inside = await page.run("const d = document.querySelector('#detail'); return d.scrollWidth <= d.clientWidth")
    await page.click("#back")
    closed = await page.run("return getComputedStyle(document.querySelector('#detail')).display")

    assert (width, hidden, inside, closed) == (390, "none", True, "none")


async def test_a_screen_reader_finds_its_way(page, watched):
    """Landmarks, names on all that can be used, and news of what comes, not of each."""
    await page.open(watched.url)
    await watched.post(text(41), text(42), call(43))
    await page.rows(3)
    await page.click(".row")
    await page.until("document.querySelector('#reveal')")
    nameless = await page.run(
        "return [...document.querySelectorAll('button, select, input, [role=listbox], section, [role=img], svg')]"
        ".filter((node) => !(node.innerText || node.getAttribute('aria-label') || node.closest('label')))"
        ".map((node) => node.outerHTML)"
    )
    landmarks = await page.run(
        "return ['header', 'main', 'footer', '[role=search]', '[aria-live=polite]']"
        ".filter((selector) => !document.querySelector(selector))"
    )
    news = await page.until("document.querySelector('#announcer').innerText")

    assert (nameless, landmarks) == ([], [])
    assert news.endswith("new deliveries, 1 dead letters.")


async def test_nothing_that_was_posted_can_run(page, watched):
    """Names, texts, attributes and roots full of markup stay text, masked and revealed."""
    hostile = HOSTILE.replace('"', "")
    bodies = [
        text(41, message=hostile),
        f'{{"{hostile}": {{"{hostile}": "{hostile}"}}}}'.encode(),
        f"<a><![CDATA[{HOSTILE}]]></a>".encode(),
        HOSTILE.encode(),
    ]
    await page.open(watched.url)
    await watched.post(*bodies)
    await page.rows(4)

    for number in range(1, 5):
        await page.click(f"#row-deliveries-{number}")
        await page.until("document.querySelector('#detail').dataset.ref === arguments[0]", f"deliveries/{number}")
        await page.click("#reveal")
        await page.until("document.querySelector('#detail[data-revealed=true]')")
        await page.click("#raw")
        assert "onerror=alert" in (await page.texts("pre.body"))[0]

    inside = await page.run("return document.querySelectorAll('main img, main script, main a, main iframe').length")
    assert inside == 0
    assert await page.run("return document.scripts.length") == 1


async def test_markup_is_refused_by_the_page_s_own_policy(page, watched):
    """Even where its code were wrong: no inline script, and no text becomes markup."""
    await page.open(watched.url)
    await page.until("document.querySelector('#connection').innerText === 'live'")
    said = await page.run(
        "try { document.querySelector('#toast').innerHTML = '<b>x</b>'; return 'done' }"
        "catch (error) { return error.name }"
    )
    ran = await page.run(
        "const script = document.createElement('script'); try { script.text = 'window.ran = true' } catch {}"
        "document.head.append(script); return window.ran === true"
    )
    complaints = await page.log()

    assert (said, ran) == ("TypeError", False)
    assert all("Trusted" in entry["message"] or "Content Security Policy" in entry["message"] for entry in complaints)


async def test_nothing_is_asked_of_anybody_else(page, watched):
    """All that the page needs comes from where it is."""
    await page.open(watched.url)
    await page.until("document.querySelector('#connection').innerText === 'live'")

    asked = await page.run("return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin)")

    assert set(asked) == {watched.url.partition("/#")[0]}


async def test_a_burst_does_not_freeze_it(page, watched):
    """Of fifteen hundred at once it keeps the last thousand that anything happened to, and does what it is told."""
    await page.open(watched.url)
    await page.until("document.querySelector('#connection').innerText === 'live'")
    bodies = [text(number) for number in range(1, 1501)]

    await asyncio.gather(*(watched.receiver.receive(Postback("POST", TOKEN, {}, body)) for body in bodies))
    await watched.receiver.idle(timeout=DEADLINE)
    await page.until("document.querySelector('.row .subject')?.innerText === 'text 1500'")
    await page.until("document.querySelector('.row .badge').innerText === 'handled'")
    await page.rows(1000)
    await page.click(".row:nth-child(100)")
    await page.until("document.querySelector('#detail h2')?.innerText === 'TextSent'")
    await page.choose("filter-outcome", "dead")
    await page.rows(0)

    assert await page.texts("#shown") == ["0 of 1,000"]


async def test_a_receiver_that_comes_back_is_found_again(page):
    """The page waits for it, and begins anew: what the last one said is no more."""
    async with watching() as first:
        key, port = first.url.partition("#")[2], int(first.url.split(":")[2].partition("/")[0])
        await page.open(first.url)
        await first.post(text(41))
        await page.rows(1)
        await page.click(".row")
        await page.until("document.querySelector('#detail .facts')?.innerText.includes('text 41')")
    await page.until("document.querySelector('#connection').innerText === 'reconnecting'")
    inbox = MemoryInbox()
    receiver = Receiver(_any_router(), tokens=TOKEN, inbox=inbox)
    source = ReceiverSource(inbox, receiver)
    receiver.observe(source)
    async with receiver, serve_inspector(source, BindAddress(port=port), key=key):
        await receiver.receive(Postback("POST", TOKEN, {}, text(42)))
        await page.until("document.querySelector('.row .subject')?.innerText === 'text 42'")
        await page.rows(1)
        # Another has the number of the one that was chosen: nobody must replay that by mistake.
        await page.press("r")
        chosen = await page.texts("#detail .placeholder")
    await page.log()

    assert chosen == ["Select a delivery to see its event and its attempts."]
    assert [item.outcome for item in source.history.changed_since(0)] == ["handled"]


def _any_router() -> Router:
    router = Router()

    @router.on(TextFinished)
    async def take(event: TextFinished) -> None: ...

    return router


async def test_a_file_that_somebody_owns_can_be_looked_at(page, tmp_path):
    """What waits, and what is dead, as it changes; nothing can be replayed, and the page says why."""
    path = tmp_path / "callfire.db"
    async with (
        watching(SqliteInbox(path)) as owner,
        FileSource.watching(path) as source,
        serve_inspector(source) as url,
    ):
        await page.open(url)
        await owner.post(text(41), call(42))
        await page.rows(2)
        await page.until("document.querySelector('#row-deliveries-2 .badge').innerText === 'dead'")
        await page.click("#row-deliveries-2")
        await page.until("document.querySelector('#replay:disabled')")
        why = await page.run("return document.querySelector('#replay').title")
        await page.press("r")
        await page.until("document.querySelector('#toast').innerText !== ''")

    assert "read-only" in why
    await page.log()
