"""Wrong arguments of the client: each is refused where it is given, before anything is sent."""

import asyncio
import ssl
from datetime import UTC, date, datetime
from enum import Enum
from fractions import Fraction
from urllib.parse import parse_qs
from uuid import uuid4

import httpx
import pytest
from loopback import respond_success, response_bytes, serve_with

from callfire_async import (
    ActionState,
    BroadcastType,
    CallFire,
    NotificationFormat,
    ResourceReference,
    Result,
    Subscription,
    SubscriptionFilter,
    SubscriptionSpec,
    TriggerEvent,
)
from callfire_async.client.plan import Plan
from callfire_async.notifications import EndpointTokens, TextFinished

ENDPOINT = "https://hooks.example.com/callfire/Tok3n-secret"
TRIGGER = TriggerEvent.INBOUND_TEXT_FINISHED
NUMBER = "12135551212"
SPEC = SubscriptionSpec(ENDPOINT, TRIGGER)
SECRETS = ("Tok3n", NUMBER, "hunter2", "Hello")


class SecretStr:
    """A wrapper as pydantic's: it prints a mask."""

    def __init__(self, value):
        self._value = value

    def __str__(self):
        return "**********"

    def get_secret_value(self):
        """Return the secret."""
        return self._value


class MaskedStr(str):
    """A string that prints a mask."""

    __slots__ = ()

    def __str__(self):
        return "**********"

    __repr__ = __str__


class Number(str, Enum):  # noqa: UP042  # its str() is not its value, unlike that of a StrEnum
    """A string whose str() is its name."""

    MINE = NUMBER


# --- the values of subscriptions --------------------------------------------------------------------------

# The wrong values of a field, the kind of the error, and a pattern of the message.
WRONG_FIELDS = [
    ({"endpoint": 5}, TypeError, "^endpoint must be a string, not int"),
    ({"endpoint": ENDPOINT.encode()}, TypeError, r"^endpoint must be a string, not bytes: .*decode"),
    ({"endpoint": EndpointTokens("a-secret-of-32-characters-0123456")}, TypeError, "^endpoint must be a string"),
    ({"endpoint": " "}, ValueError, "^endpoint must be a URL or an e-mail address, not empty"),
    ({"endpoint": "https://\ud800.example"}, ValueError, "^endpoint .*surrogate"),
    ({"trigger_event": 5}, TypeError, "^trigger_event must be a TriggerEvent or a string, not int"),
    ({"trigger_event": ""}, ValueError, "^trigger_event must not be empty"),
    (
        {"trigger_event": NotificationFormat.JSON},
        TypeError,
        "^trigger_event must be a TriggerEvent .*NotificationFormat",
    ),
    ({"trigger_event": TextFinished}, TypeError, "^trigger_event .*the class TextFinished.*OUTBOUND_TEXT_FINISHED"),
    ({"trigger_event": [TRIGGER]}, TypeError, "^trigger_event must be a TriggerEvent or a string, not list"),
    ({"trigger_event": ENDPOINT}, ValueError, "^trigger_event must be one of .*CAMPAIGN_FINISHED$"),
    ({"notification_format": "json"}, ValueError, "^notification_format must be one of .* did you mean JSON"),
    ({"notification_format": "application/json"}, ValueError, "^notification_format must be one of .*LEGACY$"),
    ({"notification_format": NotificationFormat("Xml")}, ValueError, "^notification_format .* did you mean XML"),
    ({"notification_format": ""}, ValueError, "^notification_format must not be empty"),
    ({"enabled": "false"}, TypeError, "^enabled must be True or False, not str"),
    ({"enabled": 0}, TypeError, "^enabled must be True or False, not int"),
    ({"non_strict_ssl": "false"}, TypeError, "^non_strict_ssl must be True or False, not str"),
    ({"filter": {"broadcast_id": 1}}, TypeError, "^filter must be a SubscriptionFilter, not dict"),
    ({"filter": 1}, TypeError, "^filter must be a SubscriptionFilter, not int"),
    ({"filter": NUMBER}, TypeError, "^filter must be a SubscriptionFilter, not str"),
    ({"filter": ()}, TypeError, "^filter must be a SubscriptionFilter, not tuple"),
    ({"filter": False}, TypeError, "^filter must be a SubscriptionFilter, not bool"),
    ({"filter": SubscriptionFilter}, TypeError, "^filter .*the class SubscriptionFilter"),
    ({"filter": Subscription(1)}, TypeError, "^filter must be a SubscriptionFilter, not Subscription"),
    ({"filter": SubscriptionFilter(broadcast_id=0)}, ValueError, r"^filter\.broadcast_id must be an integer from 1"),
    ({"filter": SubscriptionFilter(batch_id=-7)}, ValueError, r"^filter\.batch_id must be an integer from 1"),
]
# A new subscription needs both.
MISSING_FIELDS = [
    ({"endpoint": None}, TypeError, "^endpoint must be a string, not None"),
    ({"trigger_event": None}, TypeError, "^trigger_event must be a TriggerEvent or a string, not None"),
]
WRONG_REQUEST_IDS = [
    ({"request_id": uuid4()}, TypeError, "^request_id must be a string, not UUID"),
    ({"request_id": ""}, ValueError, "^request_id must not be empty"),
]
WRONG_FILTERS = [
    ({"to_number": ""}, ValueError, "^to_number must not be empty"),
    ({"from_number": " \t"}, ValueError, "^from_number must not be empty"),
    ({"to_number": int(NUMBER)}, TypeError, "^to_number must be a string, not int"),
    ({"to_number": [NUMBER]}, TypeError, "^to_number must be a string, not list"),
    ({"from_number": NUMBER.encode()}, TypeError, "^from_number must be a string, not bytes"),
    ({"broadcast_id": "5"}, TypeError, "^broadcast_id must be an integer, not str"),
    ({"broadcast_id": True}, TypeError, "^broadcast_id must be an integer, not bool"),
    ({"broadcast_id": ""}, TypeError, "^broadcast_id must be an integer, not str"),
    ({"broadcast_id": ResourceReference(5)}, TypeError, "^broadcast_id must be an integer, not ResourceReference"),
    ({"batch_id": 5.0}, TypeError, "^batch_id must be an integer, not float"),
    ({"inbound": "false"}, TypeError, "^inbound must be True or False, not str"),
    ({"inbound": 1}, TypeError, "^inbound must be True or False, not int"),
]


def ids(case):
    """Name a case without object addresses and random values: parallel workers must collect the same names."""
    if not isinstance(case, dict):
        return ""
    return ", ".join(f"{name}={type(value).__name__}" for name, value in case.items())


@pytest.fixture
async def server():
    """A server that would respond; after the test it has received nothing."""
    async with serve_with(respond_success) as server:
        yield server
        assert server.requests == []


@pytest.fixture
async def callfire(server):
    """A client of that server."""
    async with CallFire("login", "hunter2", base_url=server.url) as callfire:
        yield callfire


def check_message(caught):
    """The message quotes no value."""
    assert not any(secret in str(caught.value) for secret in SECRETS)


@pytest.mark.parametrize(("values", "kind", "message"), [*WRONG_FIELDS, *MISSING_FIELDS, *WRONG_REQUEST_IDS], ids=ids)
async def test_a_create_refuses_wrong_values(callfire, values, kind, message):
    """Nothing is dropped or converted: CallFire would subscribe to something else."""
    with pytest.raises(kind, match=message) as caught:
        await callfire.subscriptions.create(**{"endpoint": ENDPOINT, "trigger_event": TRIGGER} | values)

    check_message(caught)


@pytest.mark.parametrize(("values", "kind", "message"), [*WRONG_FIELDS, *WRONG_REQUEST_IDS], ids=ids)
async def test_an_update_refuses_wrong_values(callfire, values, kind, message):
    """As a create does."""
    with pytest.raises(kind, match=message) as caught:
        await callfire.subscriptions.update(42, **values)

    check_message(caught)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (4102444800000, TypeError, "^expires_at must be a datetime, not int"),
        (datetime(2100, 1, 1), ValueError, "^expires_at must be an aware datetime"),  # noqa: DTZ001  # the mistake
    ],
    ids=["int", "naive"],
)
async def test_the_end_of_a_subscription_has_a_time_zone(callfire, value, kind, message):
    """Milliseconds are not accepted: CallFire's reference does not state the unit."""
    with pytest.raises(kind, match=message):
        await callfire.subscriptions.create(ENDPOINT, TRIGGER, expires_at=value)
    with pytest.raises(kind, match=message):
        await callfire.subscriptions.update(42, expires_at=value)


@pytest.mark.parametrize(("values", "kind", "message"), [*WRONG_FIELDS, *MISSING_FIELDS], ids=ids)
def test_a_spec_refuses_wrong_values(values, kind, message):
    """When it is constructed, not when it is applied."""
    with pytest.raises(kind, match=message) as caught:
        SubscriptionSpec(**{"endpoint": ENDPOINT, "trigger_event": TRIGGER} | values)

    check_message(caught)


@pytest.mark.parametrize(("values", "kind", "message"), WRONG_FILTERS, ids=ids)
def test_a_filter_refuses_wrong_values(values, kind, message):
    """An empty field of a form is not a filter, so CallFire would post everything."""
    with pytest.raises(kind, match=message) as caught:
        SubscriptionFilter(**values)

    check_message(caught)


async def test_an_update_cannot_remove_a_filter(callfire):
    """A filter without fields would not be sent, so nothing would change."""
    with pytest.raises(ValueError, match=r"^filter must have at least one field: an update cannot remove a filter"):
        await callfire.subscriptions.update(42, filter=SubscriptionFilter())


def test_a_filter_without_fields_is_not_a_filter():
    """In a spec, and in a create."""
    assert SubscriptionSpec(ENDPOINT, TRIGGER, filter=SubscriptionFilter()).filter == SubscriptionFilter()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("TextFinished", "INBOUND_TEXT_FINISHED or OUTBOUND_TEXT_FINISHED"),
        ("TextNotification", "INBOUND_TEXT_FINISHED or OUTBOUND_TEXT_FINISHED"),
        ("TextReceived", "INBOUND_TEXT_FINISHED"),
        ("TextSent", "OUTBOUND_TEXT_FINISHED"),
        ("CallFinished", "INBOUND_CALL_FINISHED or OUTBOUND_CALL_FINISHED"),
        ("CampaignStarted", "CAMPAIGN_STARTED"),
        ("campaign_stopped", "CAMPAIGN_STOPPED"),
        ("outbound-text-finished", "OUTBOUND_TEXT_FINISHED"),
        ("OutboundText.Finished", "OUTBOUND_TEXT_FINISHED"),
        (" CAMPAIGN_STARTED ", "CAMPAIGN_STARTED"),
    ],
)
def test_the_name_of_an_event_is_not_a_trigger_event(given, meant):
    """The message lists the trigger events, and names those that are meant."""
    with pytest.raises(ValueError, match=r"^trigger_event must be one of") as caught:
        SubscriptionSpec(ENDPOINT, given)

    assert str(caught.value).endswith(f"; did you mean {meant}?")
    assert all(trigger in str(caught.value) for trigger in TriggerEvent)


@pytest.mark.parametrize("trigger_event", ["SOMETHING_NEW", TriggerEvent("TEXT_V2_DONE")])
async def test_new_trigger_events_can_be_used(trigger_event):
    """CallFire extends the set, so an unknown upper-case value is sent unchanged."""

    async def answer(_, writer):
        writer.write(response_bytes(b'{"ResourceReference": {"Id": 7}}', "201 Created"))

    async with serve_with(answer) as server, CallFire("login", "password", base_url=server.url) as callfire:
        await callfire.subscriptions.create("me@example.com", trigger_event, notification_format="JSON2")

    form = parse_qs(server.requests[0].body.decode())
    assert (form["TriggerEvent"], form["NotificationFormat"]) == ([trigger_event], ["JSON2"])


# --- IDs and pages ----------------------------------------------------------------------------------------

INTEGER_CALLS = {
    "subscription_id": [
        lambda callfire, value: callfire.subscriptions.get(value),
        lambda callfire, value: callfire.subscriptions.delete(value),
        lambda callfire, value: callfire.subscriptions.update(value, enabled=True),
    ],
    "id": [lambda callfire, value: callfire.texts.get(value), lambda callfire, value: callfire.calls.get(value)],
    "max_results": [
        lambda callfire, value: callfire.subscriptions.query(max_results=value),
        lambda callfire, value: callfire.texts.query(max_results=value),
    ],
    "first_result": [
        lambda callfire, value: callfire.subscriptions.query(first_result=value),
        lambda callfire, value: callfire.calls.query(first_result=value),
    ],
    "broadcast_id": [lambda callfire, value: callfire.texts.query(broadcast_id=value)],
    "batch_id": [lambda callfire, value: callfire.calls.query(batch_id=value)],
}


@pytest.mark.parametrize("value", ["10", 10.0, True, b"1", [1], Fraction(1), int, -1])
@pytest.mark.parametrize("name", INTEGER_CALLS)
async def test_an_integer_is_not_converted(callfire, name, value):
    """Strings, floats and booleans are a mistake of the caller."""
    for call in INTEGER_CALLS[name]:
        with pytest.raises(ValueError if value == -1 else TypeError, match=rf"^{name} must be an integer"):
            await call(callfire, value)


@pytest.mark.parametrize("name", ["subscription_id", "id", "max_results", "first_result"])
async def test_a_required_integer_cannot_be_none(callfire, name):
    """There is no default for it."""
    for call in INTEGER_CALLS[name]:
        with pytest.raises(TypeError, match=rf"^{name} must be an integer, not None"):
            await call(callfire, None)


async def test_a_reference_is_not_an_id(callfire):
    """The message says what to pass."""
    with pytest.raises(TypeError, match=r"^broadcast_id must be an integer, not ResourceReference: pass its id"):
        await callfire.texts.query(broadcast_id=ResourceReference(5))
    with pytest.raises(TypeError, match=r"^subscription_id must be an integer, not Subscription: pass its id"):
        await callfire.subscriptions.delete(Subscription(5))


@pytest.mark.parametrize(
    ("page_size", "kind"),
    [("10", TypeError), (True, TypeError), (None, TypeError), (0, ValueError), (1001, ValueError)],
)
async def test_a_page_size_is_checked_before_the_iteration(callfire, page_size, kind):
    """The call itself raises."""
    for service in (callfire.subscriptions, callfire.texts, callfire.calls):
        with pytest.raises(kind, match=r"^page_size must be an integer"):
            service.all(page_size=page_size)


# --- filters of texts and calls ---------------------------------------------------------------------------

WRONG_QUERIES = [
    ({"state": "FINISHED READY"}, ValueError, "^state must be one or more of READY, .*pass several as a list"),
    ({"state": "finished"}, ValueError, "^state must be one or more of .* did you mean FINISHED"),
    ({"state": ["FINISHED", "ready"]}, ValueError, "^state must be one or more of .* did you mean READY"),
    ({"state": Result.SENT}, TypeError, "^state must be an ActionState or a string, or several of them, not Result"),
    ({"state": [None]}, TypeError, "^state must be an ActionState or a string, or several of them, not None"),
    ({"state": []}, ValueError, "^state must not be empty"),
    ({"state": ""}, ValueError, "^state must not be empty"),
    ({"state": ActionState}, TypeError, "^state must be .*the class ActionState"),
    ({"state": 5}, TypeError, "^state must be an ActionState or a string, or several of them, not int"),
    ({"result": "sent"}, ValueError, "^result must be one or more of .* did you mean SENT"),
    ({"result": "LA,AM"}, ValueError, "^result must be one or more of LA, .*pass several as a list"),
    ({"result": b"LA"}, TypeError, "^result must be a Result or a string, or several of them, not bytes"),
    ({"result": BroadcastType.TEXT}, TypeError, "^result must be a Result .*not BroadcastType"),
    ({"inbound": "false"}, TypeError, "^inbound must be True or False, not str"),
    ({"inbound": 0}, TypeError, "^inbound must be True or False, not int"),
    ({"interval_begin": "2024-01-01"}, TypeError, "^interval_begin must be a datetime, not str"),
    ({"interval_begin": date(2024, 1, 1)}, TypeError, "^interval_begin must be a datetime, not date"),
    ({"interval_end": 1700000000}, TypeError, "^interval_end must be a datetime, not int"),
    ({"from_number": int(NUMBER)}, TypeError, "^from_number must be a string, not int"),
    ({"from_number": ""}, ValueError, "^from_number must not be empty"),
    ({"from_number": [NUMBER]}, TypeError, "^from_number must be a string, not list"),
    ({"to_number": int(NUMBER)}, TypeError, "^to_number must be a string, or several of them, not int"),
    ({"to_number": [int(NUMBER)]}, TypeError, "^to_number must be a string, or several of them, not int"),
    ({"to_number": [""]}, ValueError, "^to_number must not be empty"),
    ({"to_number": ()}, ValueError, "^to_number must not be empty"),
    ({"label_name": ""}, ValueError, "^label_name must not be empty"),
    ({"label_name": ["a"]}, TypeError, "^label_name must be a string, not list"),
]


@pytest.mark.parametrize(("filters", "kind", "message"), WRONG_QUERIES, ids=ids)
async def test_a_query_refuses_wrong_filters(callfire, filters, kind, message):
    """A filter that is dropped would list everything. `all` raises before the iteration starts."""
    for service in (callfire.texts, callfire.calls):
        with pytest.raises(kind, match=message) as caught:
            await service.query(**filters)
        check_message(caught)
        with pytest.raises(kind, match=message):
            service.all(**filters)


async def test_a_query_refuses_more_than_a_url_can_have(callfire):
    """Thousands of numbers have to be queried in several parts; the message quotes none."""
    with pytest.raises(ValueError, match=r"^the parameters are too long for a URL") as caught:
        await callfire.texts.query(to_number=[NUMBER] * 6_000)

    check_message(caught)


async def test_all_refuses_an_unknown_filter(callfire):
    """The call itself raises."""
    with pytest.raises(TypeError, match="max_results"):
        callfire.texts.all(max_results=5)


# --- texts ------------------------------------------------------------------------------------------------

WRONG_TEXTS = [
    ({"to": None}, TypeError, "^to must be a string, or several of them, not None"),
    ({"to": int(NUMBER)}, TypeError, "^to must be a string, or several of them, not int"),
    ({"to": NUMBER.encode()}, TypeError, "^to must be a string, or several of them, not bytes"),
    ({"to": bytearray(NUMBER.encode())}, TypeError, "^to must be a string, or several of them, not bytearray"),
    ({"to": {NUMBER: "Hello"}}, TypeError, "^to must be a string, or several of them, not dict"),
    ({"to": []}, ValueError, "^to must not be empty"),
    ({"to": ""}, ValueError, "^to must not be empty"),
    ({"to": [None]}, TypeError, "^to must be a string, or several of them, not None"),
    ({"to": [NUMBER, int(NUMBER)]}, TypeError, "^to must be a string, or several of them, not int"),
    ({"to": [NUMBER, ""]}, ValueError, "^to must not be empty"),
    ({"to": f"{NUMBER} {NUMBER}"}, ValueError, "^to must not contain white space or commas: pass several as a list"),
    ({"to": f"{NUMBER},{NUMBER}"}, ValueError, "^to must not contain white space or commas: pass several as a list"),
    ({"message": None}, TypeError, "^message must be a string, not None"),
    ({"message": b"Hello"}, TypeError, "^message must be a string, not bytes"),
    ({"message": ["Hello"]}, TypeError, "^message must be a string, not list"),
    ({"message": ""}, ValueError, "^message must not be empty"),
    ({"message": " \n"}, ValueError, "^message must not be empty"),
    ({"message": "Hello \ud83d"}, ValueError, "^message must not contain half of a surrogate pair"),
    ({"from_number": int(NUMBER)}, TypeError, "^from_number must be a string, not int"),
    ({"from_number": ""}, ValueError, "^from_number must not be empty"),
    ({"broadcast_name": 5}, TypeError, "^broadcast_name must be a string, not int"),
    ({"broadcast_name": ""}, ValueError, "^broadcast_name must not be empty"),
    ({"big_message_strategy": True}, TypeError, "^big_message_strategy must be a string, not bool"),
    ({"big_message_strategy": "trim"}, ValueError, "^big_message_strategy must be one of .* did you mean TRIM"),
]


@pytest.mark.parametrize(("values", "kind", "message"), WRONG_TEXTS, ids=ids)
async def test_send_refuses_wrong_arguments(callfire, values, kind, message):
    """A text to a wrong number, or with the repr of an object as its message, costs money."""
    with pytest.raises(kind, match=message) as caught:
        await callfire.texts.send(**{"to": NUMBER, "message": "Hello"} | values)

    check_message(caught)


async def test_the_value_of_a_string_is_sent():
    """Not the result of its `str`, which may be a name or a mask."""

    async def answer(_, writer):
        writer.write(response_bytes(b'{"ResourceReference": {"Id": 7}}', "201 Created"))

    async with serve_with(answer) as server, CallFire("login", "password", base_url=server.url) as callfire:
        await callfire.texts.send([Number.MINE, MaskedStr(NUMBER)], MaskedStr("Hello"), from_number=Number.MINE)

    form = parse_qs(server.requests[0].body.decode())
    assert (form["To"], form["Message"], form["From"]) == ([f"{NUMBER} {NUMBER}"], ["Hello"], [NUMBER])


# --- plans ------------------------------------------------------------------------------------------------

SUBSCRIPTION = Subscription(5, endpoint=ENDPOINT, trigger_event=TRIGGER)


async def asynchronous(_):
    """Return a coroutine, which is always true."""
    return False


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"specs": SPEC}, TypeError, "^specs must be SubscriptionSpec objects, not a single SubscriptionSpec"),
        ({"specs": None}, TypeError, "^specs must be SubscriptionSpec objects, not None"),
        ({"specs": [None]}, TypeError, r"^specs\[0\] must be a SubscriptionSpec, not None"),
        ({"specs": [SPEC, SUBSCRIPTION]}, TypeError, r"^specs\[1\] must be a SubscriptionSpec, not Subscription"),
        ({"specs": [{"endpoint": ENDPOINT}]}, TypeError, r"^specs\[0\] must be a SubscriptionSpec, not dict"),
        ({"specs": "specs"}, TypeError, r"^specs\[0\] must be a SubscriptionSpec, not str"),
        ({"tokens": "hunter2"}, TypeError, "^tokens must be EndpointTokens, not str"),
        ({"tokens": ["hunter2"]}, TypeError, "^tokens must be EndpointTokens, not list"),
        ({"tokens": EndpointTokens}, TypeError, "^tokens must be EndpointTokens, not the class EndpointTokens"),
        ({"prune": "false"}, TypeError, "^prune must be True or False, not str"),
        ({"prune": None}, TypeError, "^prune must be True or False, not None"),
        ({"owned": [5]}, TypeError, "^owned must be a function of a subscription, not list"),
        ({"owned": asynchronous}, TypeError, "^owned must be a function of a subscription that is not async"),
    ],
)
async def test_a_plan_refuses_wrong_arguments(callfire, arguments, kind, message):
    """Before the account is read."""
    with pytest.raises(kind, match=message) as caught:
        await callfire.subscriptions.plan(**{"specs": [SPEC]} | arguments)

    check_message(caught)


async def test_an_owned_function_that_returns_an_awaitable_is_refused():
    """An awaitable is true, so pruning would delete every subscription."""

    async def answer(_, writer):
        writer.write(response_bytes(b'{"ResourceList": {"Subscription": [{"@id": 1}]}}'))

    async with serve_with(answer) as server, CallFire("login", "password", base_url=server.url) as callfire:
        pending = asyncio.get_running_loop().create_future()
        with pytest.raises(TypeError, match=r"^owned must be a function that returns True or False, not Future"):
            await callfire.subscriptions.plan([SPEC], prune=True, owned=lambda _: pending)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (([SPEC],), r"^specs\[0\] must be a SubscriptionSpec, not list: pass ensure\(\*specs\)"),
        ((SPEC, SUBSCRIPTION), r"^specs\[1\] must be a SubscriptionSpec, not Subscription$"),
    ],
)
async def test_ensure_refuses_wrong_specs(callfire, specs, message):
    """A list of specs has to be unpacked."""
    with pytest.raises(TypeError, match=message):
        await callfire.subscriptions.ensure(*specs)


@pytest.mark.parametrize("plan", [None, [SPEC], Plan, "plan"])
async def test_apply_refuses_what_is_not_a_plan(callfire, plan):
    """A list of specs has to become a plan first."""
    with pytest.raises(TypeError, match=r"^plan must be a Plan, as returned by plan\(\), not "):
        await callfire.subscriptions.apply(plan)


# --- credentials ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["login", "password"])
@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (b"hunter2", TypeError, "must be a string, not bytes: .*decode"),
        (SecretStr("hunter2"), TypeError, r"must be a string, not SecretStr: pass secret\.get_secret_value\(\)"),
        (12135551212, TypeError, "must be a string, not int"),
        (["hunter2"], TypeError, "must be a string, not list"),
        (False, TypeError, "must be a string, not bool"),
        ("", ValueError, "is empty, so there are no credentials"),
        ("hunter2\n", ValueError, "must not contain control characters, such as a line break"),
        ("hunter\x002", ValueError, "must not contain control characters"),
        ("hunter2\x7f", ValueError, "must not contain control characters"),
        ("hunter2\ud800", ValueError, "must not contain half of a surrogate pair"),
    ],
)
def test_wrong_credentials_are_refused(name, value, kind, message):
    """Their mask, or their repr, would be sent."""
    with pytest.raises(kind, match=rf"^{name} {message}") as caught:
        CallFire(**{"login": "login", "password": "password"} | {name: value})

    check_message(caught)


def test_a_login_with_a_colon_is_refused():
    """HTTP Basic would send a part of it as the password."""
    with pytest.raises(ValueError, match=r"^login must not contain a colon"):
        CallFire("log:in", "password")


async def test_a_password_may_contain_a_colon_and_any_printable_character():
    """Nothing of it is changed; the value of a masked string is sent."""
    async with (
        serve_with(respond_success) as server,
        CallFire("login", MaskedStr(" p:ä "), base_url=server.url) as callfire,
    ):
        await callfire.subscriptions.get(42)

    assert "Authorization: Basic bG9naW46IHA6w6Qg\r\n" in server.requests[0].headers


@pytest.mark.parametrize(("arguments", "name"), [((None, "hunter2"), "login"), (("login", None), "password")])
@pytest.mark.parametrize("environment", [None, ""])
def test_missing_credentials_name_the_parameter(monkeypatch, arguments, name, environment):
    """And the environment variable, which may be empty."""
    variable = f"CALLFIRE_API_{name.upper()}"
    monkeypatch.delenv(variable, raising=False)
    if environment is not None:
        monkeypatch.setenv(variable, environment)

    with pytest.raises(ValueError, match=rf"^{name} is missing, so there are no credentials: .*{variable}") as caught:
        CallFire(*arguments)

    check_message(caught)


# --- settings ---------------------------------------------------------------------------------------------

NAN, INFINITY = float("nan"), float("inf")
WRONG_SETTINGS = [
    ({"base_url": None}, TypeError, "^base_url must be a string, not None"),
    ({"base_url": b"https://hunter2"}, TypeError, "^base_url must be a string, not bytes"),
    ({"base_url": httpx.URL("https://hunter2")}, TypeError, "^base_url must be a string, not URL"),
    ({"base_url": "https://10.0.0.256"}, ValueError, "^base_url is not a URL"),
    ({"webhooks_base_url": "https://10.0.0.256/v2"}, ValueError, "^webhooks_base_url is not a URL"),
    ({"response_format": "JSON"}, ValueError, "^response_format must be 'json' or 'xml'"),
    ({"response_format": None}, TypeError, "^response_format must be a string, not None"),
    ({"response_format": NotificationFormat.JSON}, ValueError, "^response_format must be 'json' or 'xml'"),
    ({"timeout": "30"}, TypeError, "^timeout must be a number of seconds, not str"),
    ({"timeout": None}, TypeError, "^timeout must be a number of seconds, not None"),
    ({"timeout": True}, TypeError, "^timeout must be a number of seconds, not bool"),
    ({"timeout": httpx.Timeout(5)}, TypeError, "^timeout must be a number of seconds, not Timeout"),
    ({"timeout": 1j}, TypeError, "^timeout must be a number of seconds, not complex"),
    ({"timeout": NAN}, ValueError, "^timeout must be a finite number of seconds above 0"),
    ({"timeout": INFINITY}, ValueError, "^timeout must be a finite number"),
    ({"timeout": 10**400}, ValueError, "^timeout must be a finite number"),
    ({"timeout": 0}, ValueError, "^timeout must be a finite number"),
    ({"max_retries": "3"}, TypeError, "^max_retries must be an integer, not str"),
    ({"max_retries": True}, TypeError, "^max_retries must be an integer, not bool"),
    ({"max_retries": 3.0}, TypeError, "^max_retries must be an integer, not float"),
    ({"max_retries": NAN}, TypeError, "^max_retries must be an integer, not float"),
    ({"max_retries": None}, TypeError, "^max_retries must be an integer, not None"),
    ({"max_retries": -1}, ValueError, "^max_retries must be an integer from 0"),
    ({"max_connections": "20"}, TypeError, "^max_connections must be an integer, not str"),
    ({"max_connections": True}, TypeError, "^max_connections must be an integer, not bool"),
    ({"max_connections": INFINITY}, TypeError, "^max_connections must be an integer, not float"),
    ({"max_connections": None}, TypeError, "^max_connections must be an integer, not None"),
    ({"trust_env": "false"}, TypeError, "^trust_env must be True or False, not str"),
    ({"trust_env": None}, TypeError, "^trust_env must be True or False, not None"),
    ({"ssl_context": "ca.pem"}, TypeError, r"^ssl_context must be an ssl\.SSLContext, not str"),
    ({"ssl_context": False}, TypeError, r"^ssl_context must be an ssl\.SSLContext, not bool"),
    ({"ssl_context": ssl.SSLContext}, TypeError, r"^ssl_context must be .*, not the class SSLContext"),
    (
        {"http_client": httpx.AsyncClient},
        TypeError,
        "^http_client must be an httpx.AsyncClient or an httpx2.AsyncClient, not the class AsyncC",
    ),
    (
        {"http_client": object()},
        TypeError,
        "^http_client must be an httpx.AsyncClient or an httpx2.AsyncClient, not object",
    ),
    ({"http_client": False}, TypeError, "^http_client must be an httpx.AsyncClient or an httpx2.AsyncClient, not bool"),
]


@pytest.mark.parametrize(("settings", "kind", "message"), WRONG_SETTINGS, ids=ids)
def test_wrong_settings_are_refused(settings, kind, message):
    """By the constructor, with the parameter's name first."""
    with pytest.raises(kind, match=message) as caught:
        CallFire("login", "password", **settings)

    check_message(caught)


def test_a_synchronous_http_client_is_refused(library):
    """It would block the event loop."""
    with (
        library.Client(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as client,
        pytest.raises(
            TypeError, match=r"^http_client must be an httpx\.AsyncClient or an httpx2\.AsyncClient, not Client"
        ),
    ):
        CallFire("login", "password", http_client=client)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"timeout": "30"}, TypeError, "^timeout must be a number of seconds, not str"),
        ({"timeout": NAN}, ValueError, "^timeout must be a finite number"),
        ({"max_retries": True}, TypeError, "^max_retries must be an integer, not bool"),
        ({"max_retries": 0.5}, TypeError, "^max_retries must be an integer, not float"),
    ],
)
async def test_wrong_options_of_a_view_are_refused(callfire, options, kind, message):
    """Like those of the constructor."""
    with pytest.raises(kind, match=message):
        callfire.with_options(**options)


async def test_numbers_of_other_types_are_settings(server):
    """A fraction is a number of seconds."""
    async with CallFire("login", "password", base_url=server.url, timeout=Fraction(1, 2)) as callfire:
        assert callfire._connection._timeout == 0.5


async def test_times_are_sent():
    """A datetime is a date too, but only a datetime is a time."""

    async def answer(_, writer):
        writer.write(response_bytes(b'{"ResourceList": {}}'))

    async with serve_with(answer) as server, CallFire("login", "password", base_url=server.url) as callfire:
        await callfire.texts.query(interval_begin=datetime(2024, 1, 1, tzinfo=UTC))

    assert "IntervalBegin=2024-01-01T00%3A00%3A00Z" in server.requests[0].target
