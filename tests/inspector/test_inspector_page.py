"""The inspector's page in Chromium."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from engines.ports import reserve_port
from inspector.browser import run_browser
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
from callfire_async.testing import encode, make_text_sent

TOKEN = "0123456789abcdef"
DEADLINE = 120
NUMBER = "12135551212"
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def text(number: int, subscription: int = 41001, message: str = "see you at noon") -> bytes:
    return (
        f'{{"TextSent": {{"SubscriptionId": {subscription}, "Text": {{"@id": {number}, "FromNumber": "{NUMBER}",'
        f' "Message": "{message}", "State": "FINISHED", "FinalResult": "SENT"}}}}}}'
    ).encode()


def call(number: int, subscription: int = 41002) -> bytes:
    return f'{{"CallFinished": {{"SubscriptionId": {subscription}, "Call": {{"@id": {number}}}}}}}'.encode()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with run_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("screenshots")


@define(eq=False)
class Page:
    """The page in the browser, driven from another thread so that the event loop can serve the page."""

    browser: Chrome
    screenshots: Path

    async def run(self, script: str, *arguments: object) -> Any:
        return await asyncio.to_thread(self.browser.execute_script, script, *arguments)

    async def open(self, url: str) -> None:
        # A new document: the URL may differ from the last one only in its fragment.
        await asyncio.to_thread(self.browser.get, "about:blank")
        await asyncio.to_thread(self.browser.get, url)

    async def reload(self) -> None:
        """Load the page again; the old document is gone when this returns."""
        await asyncio.to_thread(self.browser.refresh)

    async def wait_for(self, script: str, *arguments: object) -> Any:
        """Wait until a script returns something true; return it."""
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
        """
        Wait until the list has *count* rows, and the first of them has been rendered.

        A row has no innerText until then: the list sets content-visibility.
        """
        await self.wait_for(f"document.querySelectorAll('.row').length === {count}")
        if count:
            await self.wait_for("document.querySelector('.row').innerText !== ''")

    async def press(self, *keys: str) -> None:
        def send() -> None:
            for key in keys:
                self.browser.switch_to.active_element.send_keys(key)

        await asyncio.to_thread(send)

    async def click(self, selector: str) -> None:
        await self.run("document.querySelector(arguments[0]).click()", selector)

    async def select(self, id: str, value: str) -> None:
        script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        await self.run(script + "e.dispatchEvent(new Event('change', {bubbles: true}))", id, value)

    async def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        await asyncio.to_thread(self.browser.execute_cdp_cmd, "Emulation.setDeviceMetricsOverride", metrics)

    async def screenshot(self, name: str) -> None:
        await asyncio.to_thread(self.browser.save_screenshot, str(self.screenshots / f"{name}.png"))

    async def log(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.browser.get_log, "browser")


@pytest.fixture
async def page(browser: Chrome, screenshots: Path) -> AsyncIterator[Page]:
    page = Page(browser, screenshots)
    await page.size(1440, 900)
    yield page
    await page.run("localStorage.clear()")
    # The page tries to reconnect to the inspector, which has stopped, and would log errors during the next test.
    await asyncio.to_thread(page.browser.get, "about:blank")
    # Network errors are expected once the inspector has stopped; other errors are faults of the page.
    assert [entry for entry in await page.log() if entry["level"] == "SEVERE" and entry["source"] != "network"] == []


@define(eq=False)
class InspectedReceiver:
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
async def run_receiver(inbox: Any = None, port: int = 0) -> AsyncIterator[InspectedReceiver]:
    router = Router()
    inspected: InspectedReceiver

    @router.on(TextFinished, name="service.keep")
    async def handle(event: TextFinished) -> None:
        if event.text.message == "fail" and not inspected.is_repaired:
            raise LookupError(event.text.message)

    @router.on(CallFinished, name="service.call")
    async def reject(event: CallFinished) -> None:
        raise Reject("not one of ours")

    inbox = MemoryInbox(keep_bodies=True) if inbox is None else inbox
    receiver = Receiver(router, tokens=TOKEN, inbox=inbox, retry=RetryPolicy(max_attempts=1))
    source = ReceiverSource(inbox, receiver)
    receiver.observe(source)
    async with receiver, serve_inspector(source, BindAddress(port=port)) as url:
        inspected = InspectedReceiver(receiver, source, url, inbox)
        yield inspected


@pytest.fixture
async def inspected() -> AsyncIterator[InspectedReceiver]:
    async with run_receiver() as inspected:
        yield inspected


async def test_deliveries_arrive_live(page, inspected):
    """New deliveries appear first, with kind, subscription and outcome, and without private data."""
    await page.open(inspected.url)
    await page.wait_for("document.querySelector('#connection').innerText === 'live'")

    await inspected.post(text(42), call(43), b"{", text(42))
    await inspected.post(text(44), token="wrong")
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
    await page.wait_for("document.querySelector('#dead').innerText === '2'")
    await page.screenshot("light")


async def test_key_is_removed_from_the_url(page, inspected):
    """The key is stored in the tab, so that a reload works, and is not in the address bar."""
    await page.open(inspected.url)
    await page.wait_for("document.querySelector('#connection').innerText === 'live'")
    address = await page.run("return location.href")
    await page.reload()
    await page.wait_for("document.querySelector('#connection').innerText === 'live'")

    assert address == inspected.url.partition("#")[0]


async def test_page_is_locked_without_the_key(page, inspected):
    """With a wrong key the page shows no data, and where the key is."""
    await inspected.post(text(42))

    await page.open(inspected.url.partition("#")[0] + "#wrong")
    await page.wait_for("document.querySelector('#connection').innerText === 'locked'")

    assert "the command printed" in (await page.texts("#toast"))[0]
    assert await page.texts(".row") == []
    assert len([entry for entry in await page.log() if "status of 401" in entry["message"]]) == 1


async def test_list_is_filtered(page, inspected):
    """Filters by kind, subscription and outcome are combined and apply to new deliveries."""
    await page.open(inspected.url)
    await inspected.post(text(42), text(43, 7), call(44), b"{")
    await page.rows(4)

    await page.select("filter-kind", "TextSent")
    await page.rows(2)
    await page.select("filter-subscription", "7")
    await page.rows(1)
    await inspected.post(text(45), text(46, 7))
    await page.rows(2)
    shown = await page.texts("#shown")
    await page.click("#clear")
    await page.rows(6)
    await page.select("filter-outcome", "dead")
    await page.rows(2)

    assert shown == ["2 of 6"]


async def test_list_is_filtered_by_webhook(page, inspected):
    """A webhook and a subscription with the same ID are two sources of the filter."""
    await page.open(inspected.url)
    _, body = encode(make_text_sent(api="v2", webhook_id=7), api="v2")
    await inspected.post(text(42), text(43, 7), body)
    await page.rows(3)
    sources = await page.texts("#filter-subscription option")

    await page.select("filter-subscription", "webhook 7")
    await page.rows(1)
    shown = await page.texts(".row .subscription")
    await page.select("filter-subscription", "7")
    await page.rows(1)

    assert sorted(sources) == ["All sources", "subscription 41001", "subscription 7", "webhook 7"]
    assert (shown, await page.texts(".row .subscription")) == (["webhook #7"], ["#7"])


async def test_private_data_is_masked_until_revealed(page, inspected):
    """Numbers, messages and the body are not in the page until they are revealed."""
    await page.open(inspected.url)
    await inspected.post(text(42))
    await page.rows(1)
    await page.click(".row")
    await page.wait_for("document.querySelector('#detail[data-revealed=false]')")
    masked = await page.run("return document.querySelector('#detail').innerText")
    await page.click(".tree button")
    await page.wait_for("document.querySelector('#detail[data-revealed=true]')")
    revealed = await page.run("return document.querySelector('#detail').innerText")
    await page.click("#raw")
    raw = await page.texts("pre.body")
    await page.click("#reveal")
    await page.wait_for("document.querySelector('#detail[data-revealed=false]')")

    assert ("***12" in masked, NUMBER in masked, "noon" in masked) == (True, False, False)
    assert (NUMBER in revealed, "see you at noon" in revealed) == (True, True)
    assert raw == [text(42).decode()]
    assert NUMBER not in await page.run("return document.documentElement.outerHTML")


async def test_handlers_and_exceptions_are_shown(page, inspected):
    """Each handler is shown with the class of its exception, but not the message."""
    await page.open(inspected.url)
    await inspected.post(text(42, message="fail"))
    await page.rows(1)
    await page.click(".row")
    await page.wait_for("document.querySelector('.handlers')")

    (run,) = await page.texts(".handlers li")
    assert run.split("\n")[1:3] == ["service.keep", "LookupError"]
    assert (await page.texts(".reason"))[0] == "the only attempt failed: service.keep: LookupError"


async def test_dead_letter_is_replayed(page, inspected):
    """A replayed dead letter is handled and leaves the list of dead letters."""
    await page.open(inspected.url)
    await inspected.post(text(42, message="fail"))
    await page.rows(1)
    await page.click("#view-dead")
    await page.wait_for("document.querySelector('.row .reason-line')?.innerText.includes('LookupError')")
    await page.screenshot("dead")
    inspected.is_repaired = True
    await page.click(".row")
    await page.wait_for("document.querySelector('#replay')")
    await page.click("#replay")
    await page.rows(0)
    await inspected.receiver.idle(timeout=DEADLINE)
    await page.click("#view-all")
    await page.wait_for("document.querySelector('.row .badge')?.innerText === 'handled'")

    assert "attempt 2" in (await page.texts(".row"))[0]


async def test_all_dead_letters_are_replayed(page, inspected):
    """All dead letters can be replayed with one click."""
    await page.open(inspected.url)
    await inspected.post(*(text(number, message="fail") for number in range(3)))
    inspected.is_repaired = True
    await page.click("#view-dead")
    await page.wait_for("!document.querySelector('#replay-all').hidden")
    await page.click("#replay-all")
    await page.wait_for("document.querySelector('#toast').innerText.startsWith('3 replayed')")
    await inspected.receiver.idle(timeout=DEADLINE)

    assert (await inspected.receiver.stats()).inbox.done == 3


async def test_handled_delivery_is_replayed_as_a_new_one(page, inspected):
    """A handled delivery is submitted again with another key."""
    await page.open(inspected.url)
    await inspected.post(text(42))
    await page.rows(1)
    await page.click(".row")
    await page.wait_for("document.querySelector('#replay:not(:disabled)')")
    await page.press("r")
    await page.rows(2)
    await inspected.receiver.idle(timeout=DEADLINE)

    assert (await inspected.receiver.stats()).handled == 2


async def test_double_click_replays_once(page, inspected):
    """The second click of a double click, and the repeats of a key that is held down, replay nothing."""
    await page.open(inspected.url)
    await inspected.post(text(42))
    await page.rows(1)
    await page.click(".row")
    await page.wait_for("document.querySelector('#replay:not(:disabled)')")
    held = "new KeyboardEvent('keydown', {key: 'r', repeat: true, bubbles: true})"
    await page.run(f"document.body.dispatchEvent({held})")
    for detail in (2, 1):
        event = f"new MouseEvent('click', {{detail: {detail}, bubbles: true}})"
        await page.run(f"document.querySelector('#replay').dispatchEvent({event})")
    await page.rows(2)
    await page.wait_for("document.querySelector('#toast').innerText === 'Replayed.'")
    await inspected.receiver.idle(timeout=DEADLINE)

    assert (await inspected.receiver.stats()).handled == 2


async def test_keyboard_navigation(page, inspected):
    """The list, a delivery and the filters are reached with the keyboard."""
    await page.open(inspected.url)
    await inspected.post(text(41), text(42), call(43))
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
    await page.wait_for("document.activeElement.id === 'detail'")
    await page.wait_for("document.querySelector('#detail[data-revealed=false]')")
    await page.press("v")
    await page.wait_for("document.querySelector('#detail[data-revealed=true]')")
    await page.press(Keys.ESCAPE)
    back = await page.run("return document.activeElement.id")
    await page.press("/")
    filtering = await page.run("return document.activeElement.id")
    await page.press(Keys.ESCAPE, "?")
    await page.wait_for("document.querySelector('#keys').open")
    await page.press(Keys.ESCAPE, "2")
    await page.wait_for("document.querySelector('#view-dead').getAttribute('aria-pressed') === 'true'")

    order = ["", "pause", "theme", "help", "view-all", "view-dead", "filter-kind", "filter-subscription"]
    assert focused == [*order, "filter-outcome", "list"]
    assert (second, last) == ("row-deliveries-2", "row-deliveries-1")
    assert (back, filtering) == ("list", "filter-kind")


async def test_single_key_shortcuts_can_be_disabled(page, inspected):
    """Users of speech input can disable the shortcuts, so that a word does not replay a delivery."""
    await page.open(inspected.url)
    await page.wait_for("document.querySelector('#connection').innerText === 'live'")
    await page.run("document.querySelector('#single-keys').click()")
    await page.press("p")
    off = await page.run("return document.querySelector('#pause').getAttribute('aria-pressed')")
    await page.run("document.querySelector('#single-keys').click()")
    await page.press("p")
    on = await page.run("return document.querySelector('#pause').getAttribute('aria-pressed')")

    assert (off, on) == ("false", "true")


async def test_list_can_be_paused(page, inspected):
    """A paused list does not change; new deliveries appear after it is resumed."""
    await page.open(inspected.url)
    await inspected.post(text(41))
    await page.rows(1)
    await page.click("#pause")
    await inspected.post(text(42))
    await page.wait_for("document.querySelector('#rate').innerText === '2'")
    paused = await page.texts(".row .subject")
    await page.click("#pause")
    await page.rows(2)

    assert paused == ["text 41"]
    assert await page.texts(".row .subject") == ["text 42", "text 41"]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_themes(page, inspected, theme):
    """The chosen theme is applied and survives a reload."""
    await page.open(inspected.url)
    await inspected.post(text(41), call(42), b"{")
    await page.rows(3)
    await page.wait_for(
        "(document.querySelector('#theme').click(), document.documentElement.dataset.theme === arguments[0])", theme
    )
    await page.click(".row:last-child")
    await page.wait_for("document.querySelector('#detail .tree')")
    color = await page.run("return getComputedStyle(document.body).backgroundColor")
    await page.screenshot(f"selected-{theme}")
    await page.reload()
    await page.wait_for(f"document.documentElement.dataset.theme === '{theme}'")

    assert color == {"light": "rgb(246, 245, 243)", "dark": "rgb(19, 18, 17)"}[theme]


async def test_page_fits_a_phone(page, inspected):
    """On a narrow screen nothing is cut off, and a delivery covers the list until it is closed."""
    await page.size(390, 844)
    await page.open(inspected.url)
    await inspected.post(text(41), call(42), b"{")
    await page.rows(3)
    width = await page.run("return document.documentElement.scrollWidth")
    await page.screenshot("phone")
    hidden = await page.run("return getComputedStyle(document.querySelector('#detail')).display")
    await page.click(".row:last-child")
    await page.wait_for("document.querySelector('#back')?.checkVisibility()")
    await page.screenshot("phone-selected")
    inside = await page.run("const d = document.querySelector('#detail'); return d.scrollWidth <= d.clientWidth")
    await page.click("#back")
    closed = await page.run("return getComputedStyle(document.querySelector('#detail')).display")

    assert (width, hidden, inside, closed) == (390, "none", True, "none")


async def test_page_is_accessible(page, inspected):
    """The page has landmarks, names for all controls, and announces new deliveries in groups."""
    await page.open(inspected.url)
    await inspected.post(text(41), text(42), call(43))
    await page.rows(3)
    await page.click(".row")
    await page.wait_for("document.querySelector('#reveal')")
    unnamed = await page.run(
        "return [...document.querySelectorAll('button, select, input, [role=listbox], section, [role=img], svg')]"
        ".filter((node) => !(node.innerText || node.getAttribute('aria-label') || node.closest('label')))"
        ".map((node) => node.outerHTML)"
    )
    landmarks = await page.run(
        "return ['header', 'main', 'footer', '[role=search]', '[aria-live=polite]']"
        ".filter((selector) => !document.querySelector(selector))"
    )

    assert (unnamed, landmarks) == ([], [])
    # On a busy machine in two groups, of which the last has the dead letter.
    await page.wait_for("document.querySelector('#announcer').innerText.endsWith('new deliveries, 1 dead letters.')")


async def test_posted_markup_is_text(page, inspected):
    """Markup in names, messages and root elements stays text, masked and revealed."""
    hostile = HOSTILE.replace('"', "")
    bodies = [
        text(41, message=hostile),
        f'{{"{hostile}": {{"{hostile}": "{hostile}"}}}}'.encode(),
        f"<a><![CDATA[{HOSTILE}]]></a>".encode(),
        HOSTILE.encode(),
    ]
    await page.open(inspected.url)
    await inspected.post(*bodies)
    await page.rows(4)

    for number in range(1, 5):
        await page.click(f"#row-deliveries-{number}")
        await page.wait_for("document.querySelector('#detail').dataset.ref === arguments[0]", f"deliveries/{number}")
        await page.click("#reveal")
        await page.wait_for("document.querySelector('#detail[data-revealed=true]')")
        await page.click("#raw")
        assert "onerror=alert" in (await page.texts("pre.body"))[0]

    inside = await page.run("return document.querySelectorAll('main img, main script, main a, main iframe').length")
    assert inside == 0
    assert await page.run("return document.scripts.length") == 1


async def test_policy_forbids_markup(page, inspected):
    """The page's policy blocks inline scripts and innerHTML."""
    await page.open(inspected.url)
    await page.wait_for("document.querySelector('#connection').innerText === 'live'")
    result = await page.run(
        "try { document.querySelector('#toast').innerHTML = '<b>x</b>'; return 'done' }"
        "catch (error) { return error.name }"
    )
    ran = await page.run(
        "const script = document.createElement('script'); try { script.text = 'window.ran = true' } catch {}"
        "document.head.append(script); return window.ran === true"
    )
    errors = await page.log()

    assert (result, ran) == ("TypeError", False)
    assert all("Trusted" in entry["message"] or "Content Security Policy" in entry["message"] for entry in errors)


async def test_page_loads_from_its_own_origin(page, inspected):
    """The page makes no request to another origin."""
    await page.open(inspected.url)
    await page.wait_for("document.querySelector('#connection').innerText === 'live'")

    origins = await page.run(
        "return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin)"
    )

    assert set(origins) == {inspected.url.partition("/#")[0]}


async def test_page_stays_responsive_in_a_burst(page, inspected):
    """After 1,500 deliveries at once the page shows the last 1,000 and still responds."""
    await page.open(inspected.url)
    await page.wait_for("document.querySelector('#connection').innerText === 'live'")
    bodies = [text(number) for number in range(1, 1501)]

    await asyncio.gather(*(inspected.receiver.receive(Postback("POST", TOKEN, {}, body)) for body in bodies))
    await inspected.receiver.idle(timeout=DEADLINE)
    await page.wait_for("document.querySelector('.row .subject')?.innerText === 'text 1500'")
    await page.wait_for("document.querySelector('.row .badge').innerText === 'handled'")
    await page.rows(1000)
    await page.click(".row:nth-child(100)")
    await page.wait_for("document.querySelector('#detail h2')?.innerText === 'TextSent'")
    await page.select("filter-outcome", "dead")
    await page.rows(0)

    assert await page.texts("#shown") == ["0 of 1,000"]


async def test_page_reconnects(page):
    """The page reconnects to a restarted receiver and drops the old deliveries and the selection."""
    port = reserve_port()
    async with run_receiver(port=port) as first:
        key = first.url.partition("#")[2]
        await page.open(first.url)
        await first.post(text(41))
        await page.rows(1)
        await page.click(".row")
        await page.wait_for("document.querySelector('#detail .facts')?.innerText.includes('text 41')")
    await page.wait_for("document.querySelector('#connection').innerText === 'reconnecting'")
    inbox = MemoryInbox()
    receiver = Receiver(_create_router(), tokens=TOKEN, inbox=inbox)
    source = ReceiverSource(inbox, receiver)
    receiver.observe(source)
    async with receiver, serve_inspector(source, BindAddress(port=port), key=key):
        await receiver.receive(Postback("POST", TOKEN, {}, text(42)))
        await page.wait_for("document.querySelector('.row .subject')?.innerText === 'text 42'")
        await page.rows(1)
        # The selected number means another delivery now, which must not be replayed by mistake.
        await page.press("r")
        placeholder = await page.texts("#detail .placeholder")
    await page.log()

    assert placeholder == ["Select a delivery to see its event and its attempts."]
    assert [item.outcome for item in source.history.changed_since(0)] == ["handled"]


def _create_router() -> Router:
    router = Router()

    @router.on(TextFinished)
    async def handle(event: TextFinished) -> None: ...

    return router


async def test_file_of_a_running_receiver(page, tmp_path):
    """The file of a running receiver is shown as it changes; the page says why replay is not available."""
    path = tmp_path / "callfire.db"
    async with (
        run_receiver(SqliteInbox(path)) as owner,
        FileSource.watching(path) as source,
        serve_inspector(source) as url,
    ):
        await page.open(url)
        await owner.post(text(41), call(42))
        await page.rows(2)
        await page.wait_for("document.querySelector('#row-deliveries-2 .badge').innerText === 'dead'")
        await page.click("#row-deliveries-2")
        await page.wait_for("document.querySelector('#replay:disabled')")
        title = await page.run("return document.querySelector('#replay').title")
        await page.press("r")
        await page.wait_for("document.querySelector('#toast').innerText !== ''")

    assert "read-only" in title
    await page.log()
