"""Listing texts and calls, sending texts and placing calls: against a fake CallFire, and the requests that are sent."""

import inspect
from datetime import UTC, datetime, time, timedelta, timezone
from urllib.parse import parse_qs

import httpx
import pytest
import respx
from attrs import evolve

from callfire_async import (
    ActionState,
    BadRequestError,
    CallFire,
    Connection,
    NotFoundError,
    RateLimitError,
    ResponseError,
    Result,
    ServerError,
    Text,
    Texts,
    TransportError,
    TriggerEvent,
)
from callfire_async.client._operations.api_1_1 import query_actions
from callfire_async.models import (
    IvrBroadcastConfig,
    LocalTimeZoneRestriction,
    RetryConfig,
    TextBroadcastConfig,
    VoiceBroadcastConfig,
)
from callfire_async.testing import FakeCallFire, Fault, make_call_finished, make_text_received, make_text_sent

BASE = "https://callfire.example/rest"
TIME = datetime(2012, 10, 26, 21, 32, 52, tzinfo=UTC)


async def no_sleep(_):
    """Retry without a delay."""


@pytest.fixture(params=["json", "xml"])
def response_format(request):
    """Both formats."""
    return request.param


@pytest.fixture
def fake():
    return FakeCallFire()


@pytest.fixture
async def callfire(fake, response_format):
    async with fake.client(response_format=response_format) as client:
        view = client._connection
        view._retry_hooks = evolve(view._retry_hooks, sleep=no_sleep)
        yield client


async def sent_parameters(call, **answer):
    """Return the path, and the query or form, of the one request that *call* sends."""
    with respx.mock() as network:
        route = network.route().respond(**{"json": {"ResourceList": {}}} | answer)
        async with CallFire("login", "password", base_url=BASE) as client:
            await call(client)
    request = route.calls.last.request
    return request.url.path, parse_qs(str(request.url.query, "ascii") or request.content.decode())


# --- queries ----------------------------------------------------------------------------------------------


async def test_texts_and_calls_can_be_fetched(fake, callfire):
    """They are the models of the notifications."""
    text, call = make_text_sent().text, make_call_finished().call
    fake.add(text, call)

    assert (await callfire.texts.get(text.id), await callfire.calls.get(call.id)) == (text, call)


async def test_a_missing_text_or_call_is_an_error(callfire):
    """It is a NotFoundError."""
    for service in (callfire.texts, callfire.calls):
        with pytest.raises(NotFoundError, match="Not Found"):
            await service.get(5)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
async def test_calls_are_listed_and_paged(fake, callfire, count):
    """For any number of them; a page has the total."""
    calls = [make_call_finished().call for _ in range(count)]
    # CallFire lists the newest first.
    fake.add(*reversed(calls))

    page = await callfire.calls.query(max_results=2, first_result=1)

    assert [call async for call in callfire.calls.all(page_size=2)] == calls
    assert (page.items, page.total_results, page.first_result) == (tuple(calls[1:3]), count, 1)


async def test_every_filter_is_sent_as_documented():
    """Lists are joined with spaces, times are in UTC, booleans are lower case."""
    east = timezone(timedelta(hours=2))
    path, query = await sent_parameters(
        lambda callfire: callfire.texts.query(
            max_results=10,
            first_result=20,
            broadcast_id=896807881003,
            batch_id=7,
            state=[ActionState.FINISHED, ActionState.DNC],
            result=iter([Result.SENT, Result("NEW_ONE")]),
            inbound=False,
            interval_begin=TIME.astimezone(east).replace(microsecond=999),
            interval_end=TIME.replace(microsecond=1),
            from_number="67076",
            to_number={"12135550142": 1, "12135550143": 2},
            label_name="two words",
        )
    )

    assert path == "/rest/text.json"
    assert {name: value for name, (value,) in query.items()} == {
        "MaxResults": "10",
        "FirstResult": "20",
        "BroadcastId": "896807881003",
        "BatchId": "7",
        "State": "FINISHED DNC",
        "Result": "SENT NEW_ONE",
        "Inbound": "false",
        "IntervalBegin": "2012-10-26T21:32:52Z",
        "IntervalEnd": "2012-10-26T21:32:53Z",
        "FromNumber": "67076",
        "ToNumber": "12135550142 12135550143",
        "LabelName": "two words",
    }


async def test_an_interval_may_be_unlimited():
    """The end of time cannot be rounded up."""
    begin, end = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    _, query = await sent_parameters(lambda callfire: callfire.texts.query(interval_begin=begin, interval_end=end))

    assert (query["IntervalBegin"], query["IntervalEnd"]) == (["0001-01-01T00:00:00Z"], ["9999-12-31T23:59:59Z"])


async def test_filters_that_are_not_given_are_not_sent():
    """A single value is a list of one."""
    path, query = await sent_parameters(lambda callfire: callfire.calls.query(result=Result.LA))

    assert (path, query) == ("/rest/call.json", {"MaxResults": ["1000"], "FirstResult": ["0"], "Result": ["LA"]})


async def test_a_naive_time_is_sent_without_an_offset():
    """Some of CallFire's operations take a local time."""
    _, query = await sent_parameters(lambda callfire: callfire.calls.query(interval_end=datetime(2012, 10, 26)))  # noqa: DTZ001

    assert query["IntervalEnd"] == ["2012-10-26T00:00:00"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"broadcast_id": 1}, "a"),
        ({"batch_id": 2}, "b"),
        ({"state": ActionState.FINISHED}, "abc"),
        ({"state": [ActionState.READY]}, ""),
        ({"result": (Result.RECEIVED, Result.BUSY)}, "c"),
        ({"inbound": True}, "c"),
        ({"inbound": False}, "ab"),
        ({"interval_begin": TIME}, "bc"),
        ({"interval_end": datetime(2012, 10, 26, 21, 32, 52)}, "ab"),  # noqa: DTZ001
        ({"from_number": "67076"}, "ab"),
        ({"to_number": ["12135550142", "1"]}, "ab"),
        ({"label_name": "mine"}, "b"),
    ],
)
async def test_each_filter_selects(fake, callfire, filters, found):
    """On every page."""
    texts = {
        "a": make_text_sent(broadcast_id=1, created=TIME - timedelta(days=1)).text,
        "b": make_text_sent(batch_id=2, labels=("mine",), created=TIME).text,
        "c": make_text_received(created=TIME + timedelta(days=1)).text,
    }
    # CallFire lists the newest first.
    fake.add(*reversed(texts.values()))

    listed = [text async for text in callfire.texts.all(page_size=1, **filters)]

    assert listed == [texts[name] for name in found]


async def test_an_iterator_filters_every_page(fake, callfire):
    """A generator of states is not exhausted by the first page."""
    fake.add(*(make_text_sent().text for _ in range(3)), make_text_sent().text)

    states = (state for state in [ActionState.FINISHED])

    assert len([text async for text in callfire.texts.all(page_size=2, state=states)]) == 4


async def test_the_fake_rejects_an_invalid_time(callfire):
    """As CallFire does."""
    operation = query_actions(Text, {}, max_results=1, first_result=0)
    with pytest.raises(BadRequestError, match="not a time"):
        await callfire._connection.execute(evolve(operation, query={"IntervalBegin": "yesterday"}))


@pytest.mark.parametrize(
    "call",
    [
        lambda texts: texts.get(0),
        lambda texts: texts.query(max_results=1001),
        lambda texts: texts.query(first_result=-1),
        lambda texts: texts.query(broadcast_id=0),
        lambda texts: texts.query(batch_id=-1),
        lambda texts: texts.query(state=[]),
        lambda texts: texts.query(to_number="121 3555"),
        lambda texts: texts.query(result=["SENT,DNT"]),
        lambda texts: anext(texts.all(page_size=0)),
        lambda texts: texts.send([], "Hello"),
        lambda texts: texts.send("", "Hello"),
        lambda texts: texts.send(["12135550142", "(213) 555"], "Hello"),
        lambda texts: texts.send("12135550142", ""),
    ],
)
async def test_a_parameter_out_of_range_is_never_sent(call):
    """The ValueError contains no number."""
    with respx.mock(assert_all_called=False) as network:
        route = network.route()
        async with Connection("login", "password", base_url=BASE) as connection:
            with pytest.raises(ValueError, match="must") as raised:
                await call(Texts(connection))

    assert (route.called, "555" in str(raised.value)) == (False, False)


async def test_an_unknown_filter_is_an_error(callfire):
    """It is not sent."""
    with pytest.raises(TypeError, match="brodcast_id"):
        await anext(callfire.texts.all(brodcast_id=1))


def test_query_and_all_have_the_same_filters():
    """Apart from the page's parameters."""
    filters = inspect.signature(Texts.query).parameters.keys() - {"self", "max_results", "first_result"}
    from callfire_async.client.texts_and_calls import Filters

    assert filters == Filters.__annotations__.keys()


# --- sending ----------------------------------------------------------------------------------------------


async def test_sending_creates_one_text_per_recipient(callfire):
    """They are found by the broadcast that `send` returns, the newest first."""
    broadcast = await callfire.texts.send(["12135550142", "12135550143"], "Café?", from_number="67076")

    texts = [text async for text in callfire.texts.all(broadcast_id=broadcast.id)]
    assert broadcast.location.endswith(f"/broadcast/{broadcast.id}")
    assert [(text.to_number, text.from_number, text.records[0].message, text.final_result) for text in texts] == [
        ("12135550143", "67076", "Café?", "SENT"),
        ("12135550142", "67076", "Café?", "SENT"),
    ]


async def test_a_text_is_sent_as_documented():
    """As a form, with one value for all numbers."""
    path, form = await sent_parameters(
        lambda callfire: callfire.texts.send(
            (number for number in ["12135550142", "12135550143"]),
            "Hello there",
            from_number="67076",
            broadcast_name="Spring",
            big_message_strategy="TRIM",
        ),
        json={"ResourceReference": {"Id": 5}},
        status_code=201,
    )

    assert path == "/rest/text.json"
    assert {name: value for name, (value,) in form.items()} == {
        "Type": "TEXT",
        "To": "12135550142 12135550143",
        "Message": "Hello there",
        "From": "67076",
        "BroadcastName": "Spring",
        "BigMessageStrategy": "TRIM",
    }


@pytest.mark.parametrize("form", [{"Message": "Hello"}, {"To": "12135550142"}, {"To": " ", "Message": "Hello"}])
async def test_the_fake_rejects_an_incomplete_text(fake, form):
    """As CallFire does."""
    client = httpx.AsyncClient(transport=httpx.ASGITransport(fake), base_url=BASE, auth=("login", "password"))

    response = await client.post("/text", data=form)

    assert response.status_code == 400


async def test_the_fake_finishes_texts_on_request():
    """Then it posts the events."""
    fake = FakeCallFire(finishes_texts=False)
    async with fake.client() as callfire:
        await callfire.subscriptions.create("http://127.0.0.1:9/callfire", TriggerEvent.OUTBOUND_TEXT_FINISHED)
        broadcast = await callfire.texts.send("12135550142", "Hello")
        (before,) = (await callfire.texts.query(broadcast_id=broadcast.id)).items

        posted = await fake.finish_texts()

        after = await callfire.texts.get(before.id)
    assert (before.state, before.final_result, after.state, after.final_result) == ("READY", None, "FINISHED", "SENT")
    assert [one.key for one in posted] == [("text", before.id, "SENT")]
    assert await fake.finish_texts() == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(cut="request"), TransportError),
        (Fault(cut="answer"), TransportError),
        (Fault(status=503), ServerError),
        (Fault(status=500, carried_out=True), ServerError),
    ],
)
async def test_a_text_is_never_sent_twice(fake, callfire, fault, error):
    """After any part may have been sent there is no retry, and the note says that the text may have been sent."""
    fake.fail_next(fault)

    with pytest.raises(error) as raised:
        await callfire.texts.send("12135550142", "Hello")

    assert len([text async for text in callfire.texts.all()]) <= 1
    assert "the text may have been sent" in raised.value.__notes__[0]


async def test_a_text_is_not_retried_after_a_429(fake, callfire):
    """Its outcome is known, so the error has no note."""
    fake.fail_next(Fault(status=429, retry_after=1))

    with pytest.raises(RateLimitError) as raised:
        await callfire.texts.send("12135550142", "Hello")

    assert (raised.value.retry_after, getattr(raised.value, "__notes__", [])) == (1.0, [])


async def test_a_text_that_was_not_sent_is_retried():
    """Without a connection, another attempt is safe."""
    with respx.mock() as network:
        answer = httpx.Response(201, json={"ResourceReference": {"Id": 5}})
        route = network.route().mock(side_effect=[httpx.ConnectError("refused"), answer])
        async with Connection("login", "password", base_url=BASE) as connection:
            connection._retry_hooks = evolve(connection._retry_hooks, sleep=no_sleep)
            broadcast = await Texts(connection).send("12135550142", "Hello")

    assert (broadcast.id, route.call_count) == (5, 2)


async def test_an_unreadable_response_to_a_text_is_not_retried():
    """The text may have been sent."""
    with respx.mock() as network:
        route = network.route().respond(201, text="OK")
        async with Connection("login", "password", base_url=BASE) as connection:
            with pytest.raises(ResponseError) as raised:
                await Texts(connection).send("12135550142", "Hello")

    assert (route.call_count, "may have been sent" in raised.value.__notes__[0]) == (1, True)


# --- placing calls ----------------------------------------------------------------------------------------

VOICE = VoiceBroadcastConfig(
    id=5,
    created=TIME,
    from_number="12135550100",
    local_time_zone_restriction=LocalTimeZoneRestriction(time(9), time(17, 30)),
    retry_config=RetryConfig(2, 1, (Result.BUSY, Result.NO_ANS), ("HOME_PHONE",)),
    answering_machine_config="LIVE_WITH_AMD",
    live_sound_text="Hello",
    machine_sound_id=7,
    transfer_digit="7",
)
IVR = IvrBroadcastConfig(from_number="12135550100", dialplan_xml="<dialplan/>", retry_config=RetryConfig(3))


async def test_placing_calls_creates_one_call_per_recipient(fake, callfire):
    """They are found by the broadcast that `send` returns, and the broadcast has the configuration."""
    broadcast = await callfire.calls.send(["12135550142", "12135550143"], VOICE, broadcast_name="Spring")

    calls = [call async for call in callfire.calls.all(broadcast_id=broadcast.id)]
    assert [(call.to_number, call.from_number, call.final_result) for call in calls] == [
        ("12135550143", "12135550100", "LA"),
        ("12135550142", "12135550100", "LA"),
    ]
    found = fake._message_store.get_broadcast(broadcast.id)
    config = evolve(found.config, id=VOICE.id, created=VOICE.created)
    assert (found.name, found.type, config) == ("Spring", "VOICE", VOICE)


async def test_a_call_is_placed_as_callfires_java_client_does():
    """As a form with the fields of the configuration and of its parts."""
    path, form = await sent_parameters(
        lambda callfire: callfire.calls.send(
            ["12135550142", "12135550143"], VOICE, max_active=4, scrub_broadcast_duplicates=True
        ),
        json={"ResourceReference": {"Id": 5}},
        status_code=201,
    )

    assert path == "/rest/call.json"
    assert {name: value for name, (value,) in form.items()} == {
        "Type": "VOICE",
        "To": "12135550142 12135550143",
        "From": "12135550100",
        "MaxActive": "4",
        "ScrubBroadcastDuplicates": "true",
        "MaxAttempts": "2",
        "MinutesBetweenAttempts": "1",
        "RetryResults": "BUSY NO_ANS",
        "RetryPhoneTypes": "HOME_PHONE",
        "LocalRestrictBegin": "09:00:00",
        "LocalRestrictEnd": "17:30:00",
        "AnsweringMachineConfig": "LIVE_WITH_AMD",
        "LiveSoundText": "Hello",
        "MachineSoundId": "7",
        "TransferDigit": "7",
    }


async def test_an_interactive_call():
    """It has a dialplan; fields without a value are not sent."""
    _, form = await sent_parameters(
        lambda callfire: callfire.calls.send("12135550142", IVR),
        json={"ResourceReference": {"Id": 5}},
        status_code=201,
    )

    assert {name: value for name, (value,) in form.items()} == {
        "Type": "IVR",
        "To": "12135550142",
        "From": "12135550100",
        "MaxAttempts": "3",
        "DialplanXml": "<dialplan/>",
    }


@pytest.mark.parametrize(
    ("to", "config", "options", "error"),
    [
        ([], VOICE, {}, ValueError),
        ("(213) 555", VOICE, {}, ValueError),
        ("12135550142", TextBroadcastConfig(), {}, TypeError),
        ("12135550142", None, {}, TypeError),
        ("12135550142", VOICE, {"max_active": 0}, ValueError),
        ("12135550142", VOICE, {"scrub_broadcast_duplicates": "true"}, TypeError),
        ("12135550142", VOICE, {"broadcast_name": 5}, TypeError),
    ],
)
async def test_a_wrong_parameter_of_a_call_is_never_sent(callfire, to, config, options, error):
    """The error has the parameter's name."""
    with pytest.raises(error, match=next(iter(options), "to" if error is ValueError else "config")):
        await callfire.calls.send(to, config, **options)

    assert (await callfire.calls.query()).total_results == 0


async def test_a_call_is_never_placed_twice(fake, callfire):
    """An error of unknown outcome is not followed by another attempt, and has a note."""
    fake.fail_next(Fault(status=500, carried_out=True))

    with pytest.raises(ServerError) as raised:
        await callfire.calls.send("12135550142", VOICE)

    assert "the call may have been placed" in raised.value.__notes__[0]
    assert (await callfire.calls.query()).total_results == 1
