"""XML is written in the order of CallFire's schema and with its required parts; JSON has the same values."""

import string
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from xml.etree import ElementTree as ET

import httpx
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from testing.schema_order import local_name, violations

from callfire_async import models, testing
from callfire_async._codec import converters, documents
from callfire_async.notifications import CallFinished, CampaignStarted, Notification, TextReceived, parse
from callfire_async.testing import FakeCallFire, encode, samples

no_deadline = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

texts = st.text(string.ascii_letters + " é", min_size=1, max_size=12).map(str.strip).filter(bool)
ids = st.integers(1, 2**53)
numbers = st.from_regex(r"[0-9]{5,11}", fullmatch=True)
moments = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(microsecond=0))
credits_ = st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=0, max_value=1000)
lengths = st.integers(0, 10**6).map(lambda seconds: timedelta(seconds=seconds))


def some(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """Draw None, or a value."""
    return st.none() | strategy


def tuples(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """Draw a tuple of up to three values."""
    return st.lists(strategy, max_size=3).map(tuple)


record = {
    "id": ids,
    "result": st.sampled_from(models.Result),
    "finish_time": moments,
    "billed_amount": credits_,
    "question_responses": tuples(st.builds(models.QuestionResponse, texts, texts)),
    "switch_id": some(texts),
    "caller_name": some(texts),
}
notes = tuples(st.builds(models.Note, texts, some(moments)))
recordings = st.builds(models.RecordingMeta, ids, texts, moments, some(lengths), some(texts))
text_records = st.builds(models.TextRecord, **record, message=texts)
call_records = st.builds(
    models.CallRecord,
    **record,
    originate_time=some(moments),
    answer_time=some(moments),
    duration=lengths,
    recordings=tuples(recordings),
    notes=notes,
)
action = {
    "id": ids,
    "from_number": numbers,
    "to_number": numbers,
    "to_number_attributes": st.dictionaries(st.sampled_from(["ClientData", "Region"]), texts).map(
        lambda attached: tuple(sorted(attached.items()))
    ),
    "state": st.sampled_from(models.ActionState),
    "batch_id": some(ids),
    "broadcast_id": some(ids),
    "contact_id": ids,
    "inbound": st.booleans(),
    "created": moments,
    "modified": moments,
    "final_result": some(st.sampled_from(models.Result)),
    "labels": tuples(texts),
}
config = {
    "id": some(ids),
    "created": some(moments),
    "from_number": some(numbers),
    "local_time_zone_restriction": some(
        st.builds(models.LocalTimeZoneRestriction, st.times().map(lambda moment: moment.replace(microsecond=0)))
    ),
    "retry_config": some(
        st.builds(
            models.RetryConfig,
            some(st.integers(0, 9)),
            some(st.integers(0, 99)),
            tuples(st.sampled_from(models.Result)),
            tuples(st.sampled_from(["FIRST_NUMBER", "HOME_PHONE", "WORK_PHONE", "MOBILE_PHONE"])),
        )
    ),
}


@st.composite
def voice_configs(draw: st.DrawFn) -> models.VoiceBroadcastConfig:
    """Draw a configuration in which each sound is text, the id of a recorded one, or missing."""
    sounds: dict[str, object] = {}
    for sound in ("live", "machine", "transfer", "dnc"):
        form = draw(st.sampled_from(["text", "id", "none"]))
        if form == "text":
            sounds |= {f"{sound}_sound_text": draw(texts), f"{sound}_sound_text_voice": draw(some(texts))}
        elif form == "id":
            sounds[f"{sound}_sound_id"] = draw(ids)
    fixed = {name: draw(strategy) for name, strategy in config.items()}
    return models.VoiceBroadcastConfig(
        **fixed,
        **sounds,
        answering_machine_config=draw(texts),
        transfer_digit=draw(some(st.sampled_from("0123456789#*"))),
        transfer_number=draw(some(numbers)),
        dnc_digit=draw(some(st.sampled_from("0123456789#*"))),
        max_active_transfers=draw(some(st.integers(0, 99))),
    )


# A configuration without any field is read as None.
configs = (
    voice_configs()
    | st.builds(models.TextBroadcastConfig, **config, message=texts, big_message_strategy=some(texts))
    | st.builds(models.IvrBroadcastConfig, **config, dialplan_xml=texts)
    | st.builds(
        models.CccBroadcastConfig,
        **config,
        agent_group_id=ids,
        smart_drop_sound_id=some(ids),
        script_id=some(ids),
        transfer_number_id_list=tuples(ids),
        allow_any_transfer=some(st.booleans()),
        transfer_caller_id=some(numbers),
        recorded=some(st.booleans()),
    )
)
broadcasts = st.builds(
    models.Broadcast,
    id=ids,
    name=some(texts),
    status=some(st.sampled_from(models.BroadcastStatus)),
    last_modified=some(moments),
    type=some(st.sampled_from(models.BroadcastType)),
    labels=tuples(texts),
    config=configs,
    resume_next_day=some(st.booleans()),
)
events = st.one_of(
    st.builds(
        TextReceived,
        subscription_id=some(ids),
        text=st.builds(models.Text, **action, message=some(texts), records=tuples(text_records)),
    ),
    st.builds(
        CallFinished,
        subscription_id=some(ids),
        call=st.builds(
            models.Call, **action, records=tuples(call_records), agent_call=some(st.booleans()), notes=notes
        ),
    ),
    st.builds(CampaignStarted, subscription_id=some(ids), name=st.just("BroadcastStarted"), broadcast=broadcasts),
)


def assert_schema(event: Notification) -> None:
    """Assert that the XML of an event follows the schema, and that its JSON has the same values."""
    body = encode(event)[1]

    assert list(violations(ET.fromstring(body))) == []
    assert parse(body).problems == ()
    assert parse(body) == parse(encode(event, "JSON")[1]) == parse(encode(event, "SOAP")[1])


@no_deadline
@given(events)
def test_any_event_follows_the_schema(event):
    """Each field is written in its place, whichever fields there are."""
    assert_schema(event)
    assert parse(encode(event)[1]) == event


@pytest.mark.parametrize("event", samples.EVENTS.values(), ids=samples.EVENTS)
def test_a_sample_follows_the_schema(event):
    """It has the required parts too, such as the amount of each record."""
    assert_schema(event)


FACTORIES = [
    testing.make_text_notification,
    testing.make_text_finished,
    testing.make_text_sent,
    testing.make_text_received,
    testing.make_call_finished,
    testing.make_campaign_notification,
    testing.make_campaign_started,
    testing.make_campaign_stopped,
    testing.make_campaign_finished,
]


@pytest.mark.parametrize("make", FACTORIES)
def test_an_event_of_a_factory_follows_the_schema(make):
    """It has the required parts without an argument."""
    assert_schema(make())


@pytest.mark.parametrize("kind", models.BroadcastType)
def test_a_campaign_of_a_factory_has_a_configuration(kind):
    """It is that of the campaign's type."""
    event = testing.make_campaign_started(type=kind)

    assert_schema(event)
    assert parse(encode(event, api="v2")[1]).broadcast == event.broadcast
    assert testing.make_campaign_started(type=kind, config=None).broadcast.config is None


@pytest.mark.parametrize(("result", "amount"), [("SENT", 1), ("RECEIVED", 1), ("CARRIER_ERROR", 0)])
def test_a_finished_text_has_an_amount(result, amount):
    """Only what was sent or received costs something."""
    text = testing.make_text_finished(result=result).text

    assert [record.billed_amount for record in text.records] == [Decimal(amount)]


def test_the_table_finds_violations():
    """An element in the wrong place, a missing one, an unknown one and a repeated one."""
    body = b"""<Text><ToNumber>1</ToNumber><FromNumber>2</FromNumber><Fax>1</Fax><State>READY</State><State>DNC</State>
        <TextRecord id="1"><Message>a</Message><Result>SENT</Result></TextRecord></Text>"""

    found = "\n".join(violations(ET.fromstring(body)))

    for part in (
        "Text: the order of",
        "Text: Fax is unknown",
        "Text: ContactId! is missing",
        "Text: State! is repeated",
        "Text: id is missing",
        "TextRecord: the order of",
        "TextRecord: BilledAmount! is missing",
    ):
        assert part in found


# --- REST -------------------------------------------------------------------------------------------------

SUBSCRIPTION = {
    "Endpoint": "https://hooks.example.com/callfire/TOKEN",
    "TriggerEvent": "OUTBOUND_TEXT_FINISHED",
    "NotificationFormat": "JSON",
    "ExpiresAt": "4102444800000",
}
FILTER = {"BroadcastId": "1", "BatchId": "2", "FromNumber": "67076", "ToNumber": "12135550142", "Inbound": "false"}


async def answers(form: dict[str, str], path: str, kind: str) -> tuple[list[ET.Element], list[object]]:
    """Post a form, and return the resources of a kind that a fake lists in XML and in JSON, as elements and models."""
    transport = httpx.ASGITransport(FakeCallFire())
    async with httpx.AsyncClient(
        transport=transport, base_url="http://callfire.example", auth=("login", "password")
    ) as client:
        created = await client.post(f"/{path}", data=form)
        assert created.status_code == 201, created.text
        as_xml, as_json = [await client.get(f"/{path}{ending}") for ending in ("", ".json")]
    elements = [child for child in ET.fromstring(as_xml.content) if local_name(child) == kind]
    assert elements
    assert models_in(as_xml.content, kind) == models_in(as_json.content, kind)
    return elements, models_in(as_xml.content, kind)


def models_in(body: bytes, kind: str) -> list[object]:
    """Return the models in a response."""
    content = documents.read(body).content[kind]
    items = content if isinstance(content, list) else [content]
    return [converters.structure(getattr(models, kind), item, kind)[0] for item in items]


@pytest.mark.parametrize("filter_", [{}, FILTER])
@pytest.mark.parametrize("ssl", [{}, {"NonStrictSsl": "true"}])
async def test_a_subscription_follows_the_schema(filter_, ssl):
    """The filter is the last element, also if it is empty."""
    elements, (subscription,) = await answers(SUBSCRIPTION | filter_ | ssl, "subscription", "Subscription")

    assert [problem for element in elements for problem in violations(element)] == []
    names = [local_name(child) for child in elements[0]]
    assert [*names[:4], names[-1]] == [
        "Enabled",
        "Endpoint",
        "NotificationFormat",
        "TriggerEvent",
        "SubscriptionFilter",
    ]
    assert subscription.expires_at == datetime(2100, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "kind", "form"),
    [
        ("text", "Text", {"Type": "TEXT", "To": "12135550142?ClientData=a", "Message": "Hello", "Label": "spring"}),
        ("call", "Call", {"Type": "VOICE", "To": "12135550142", "From": "12135550100", "LiveSoundText": "Hello"}),
    ],
)
async def test_texts_and_calls_follow_the_schema(path, kind, form):
    """The texts and calls of a send are listed as CallFire does."""
    elements, _ = await answers(form, path, kind)

    assert [problem for element in elements for problem in violations(element)] == []


def test_a_broadcast_without_a_required_part_is_written_as_it_is():
    """Nothing is made up for an event of the user's own."""
    event = evolve(samples.EVENTS["BroadcastStarted"], broadcast=models.Broadcast(1, labels=("a",)))

    assert parse(encode(event)[1]).broadcast == event.broadcast
