"""Texts and calls that are sent through the fake's API 1.1, and the queries that find them."""

import httpx
import pytest
from attrs import evolve

from callfire_async.testing import FakeCallFire, PostbackRecorder, make_call_finished, make_text_sent, samples

BASE = "https://callfire.example/api/1.1/rest"
CALLS = {"To": "12135550142", "LiveSoundText": "Hello"}
TEXTS = {"To": "12135550142", "Message": "Hello"}

each_kind = pytest.mark.parametrize(("path", "form"), [("/text.json", TEXTS), ("/call.json", CALLS)])


@pytest.fixture
async def fake() -> FakeCallFire:
    """Return a fake that posts into memory."""
    return FakeCallFire(transport=PostbackRecorder())


@pytest.fixture
async def http(fake):
    """Yield a bare HTTP client of the fake."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(fake), base_url=BASE, auth=("login", "password")
    ) as client:
        yield client


async def send(http: httpx.AsyncClient, path: str, form: dict) -> int:
    """Send texts or calls, and return the ID of their broadcast."""
    response = await http.post(path, data=form)
    assert response.status_code == 201, response.text
    return response.json()["ResourceReference"]["Id"]


async def listed(http: httpx.AsyncClient, path: str, query: dict | list[tuple[str, str]]) -> list[dict]:
    """Return the texts or calls of a query as JSON."""
    response = await http.get(path, params=query)
    assert response.status_code == 200, response.text
    items = response.json()["ResourceList"]
    return items.get("Text", items.get("Call", []))


def numbers_of(items: list[dict]) -> list[str]:
    """Return the numbers that were called, in JSON each an object."""
    return [item["ToNumber"]["value"] for item in items]


def message_of(response: httpx.Response) -> str:
    """Return the message of an error 400."""
    assert response.status_code == 400, response.text
    return response.json()["ResourceException"]["Message"]


# --- recipients -------------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize(
    "recipients",
    [
        ["12135550143", "12135550142"],
        ["12135550143 12135550142"],
        ["12135550143,12135550142"],
        [" 12135550143 ,\n12135550142,"],
        ["", "12135550143", "12135550142"],
    ],
)
async def test_every_recipient_of_every_parameter(http, path, form, recipients):
    """The newest is the first of a list."""
    broadcast_id = await send(http, path, form | {"To": recipients})

    assert numbers_of(await listed(http, path, {"BroadcastId": broadcast_id})) == ["12135550142", "12135550143"]


@each_kind
@pytest.mark.parametrize(
    ("repeated", "statuses", "count"),
    [("first", [201, 201], 1), ("ignored", [201, 201], 2), ("refused", [201, 400], 1)],
)
async def test_a_repeated_request_id(path, form, repeated, statuses, count):
    """It identifies a send, as in CallFire's older reference; the effect is an option, as of creates."""
    transport = httpx.ASGITransport(FakeCallFire(transport=PostbackRecorder(), repeated_request_id=repeated))
    async with httpx.AsyncClient(transport=transport, base_url=BASE, auth=("login", "password")) as http:
        sent = [await http.post(path, data=form | {"RequestId": "1"}) for _ in range(2)]
        items = await listed(http, path, {})

    assert ([response.status_code for response in sent], len(items)) == (statuses, count)
    assert (sent[0].json() == sent[1].json()) is (repeated == "first")


@each_kind
@pytest.mark.parametrize(("scrub", "count"), [("true", 1), ("false", 2), (None, 2)])
async def test_a_repeated_recipient(http, path, form, scrub, count):
    """Duplicates are removed on request only."""
    numbers = {"To": ["12135550142", "12135550142"]}
    broadcast_id = await send(http, path, form | numbers | ({"ScrubBroadcastDuplicates": scrub} if scrub else {}))

    assert len(await listed(http, path, {"BroadcastId": broadcast_id})) == count


@each_kind
@pytest.mark.parametrize(
    ("recipients", "expected"),
    [
        (["12135550142?name=Bo&age=7"], [{"@age": "7", "@name": "Bo"}]),
        (["12135550142?name=Bo%20B", "12135550143"], [{}, {"@name": "Bo B"}]),
        (["12135550142?name=Bo Bo, 12135550143?x=", "12135550144"], [{}, {"@x": ""}, {"@name": "Bo Bo"}]),
    ],
)
async def test_the_attributes_of_a_recipient(http, path, form, recipients, expected):
    """They follow a question mark."""
    broadcast_id = await send(http, path, form | {"To": recipients})

    found = [item["ToNumber"] for item in await listed(http, path, {"BroadcastId": broadcast_id})]
    assert [{name: number[name] for name in number if name != "value"} for number in found] == expected


@each_kind
@pytest.mark.parametrize("attribute", ["first name=Bo", "1st=Bo", "=Bo", "x:name=Bo"])
async def test_an_attribute_without_a_valid_name(fake, http, path, form, attribute):
    """XML has no such attribute: the response is 400, and nothing is sent."""
    response = await http.post(path, data=form | {"To": ["12135550142", f"12135550143?{attribute}"]})

    assert (response.status_code, await listed(http, path, {})) == (400, [])


@each_kind
@pytest.mark.parametrize("number", ["abc", "1234", "111111", "22135550142", "213555014²"])
async def test_an_invalid_recipient(fake, http, path, form, number):
    """It is invalid at once, and has neither a result nor a record; no event follows."""
    broadcast_id = await send(http, path, form | {"To": ["12135550142", number]})

    invalid, valid = await listed(http, path, {"BroadcastId": broadcast_id})
    assert (invalid["State"], invalid["ToNumber"], valid["State"]) == ("INVALID", {"value": number}, "FINISHED")
    assert not {"FinalResult", "Message", "TextRecord", "CallRecord"} & invalid.keys()
    assert (await fake.finish_texts(), await fake.finish_calls()) == ([], [])


@each_kind
@pytest.mark.parametrize("number", ["12135550142", "+12135550142", "2135550142", "1-213-555-0142", "(213)555-0142"])
async def test_a_valid_recipient(http, path, form, number):
    """The number is kept as it was sent."""
    broadcast_id = await send(http, path, form | {"To": number})

    (item,) = await listed(http, path, {"BroadcastId": broadcast_id})
    assert (item["State"], item["ToNumber"]) == ("FINISHED", {"value": number})


@each_kind
@pytest.mark.parametrize("recipients", [[], "", " , ", ["", " "]])
async def test_a_send_without_a_recipient(http, path, form, recipients):
    """The response is 400."""
    assert message_of(await http.post(path, data=form | {"To": recipients})) == "To is required"


# --- senders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "form", "number", "message"),
    [
        ("/text.json", TEXTS, "1234", "invalid from number"),
        ("/text.json", TEXTS, "abc", "invalid from number"),
        ("/call.json", CALLS, "1234", "1234 is not a valid from number"),
        ("/call.json", CALLS, "67076", "67076 is not a valid from number"),
    ],
)
async def test_an_invalid_sender(http, path, form, number, message):
    """The response is 400, in CallFire's words, and nothing is sent."""
    assert message_of(await http.post(path, data=form | {"From": number})) == message
    assert await listed(http, path, {}) == []


@pytest.mark.parametrize(
    ("path", "form", "number", "expected"),
    [
        ("/text.json", TEXTS, "67076", "67076"),
        ("/text.json", TEXTS, "12135550100", "12135550100"),
        ("/text.json", TEXTS, "", "67076"),
        ("/call.json", CALLS, "2135550100", "2135550100"),
        ("/call.json", CALLS, "", "12135550100"),
    ],
)
async def test_a_valid_sender(http, path, form, number, expected):
    """Without one, CallFire chooses."""
    await send(http, path, form | {"From": number})

    assert [item["FromNumber"] for item in await listed(http, path, {})] == [expected]


# --- what is sent -----------------------------------------------------------------------------------------


async def test_a_sent_text(http):
    """It has the message in the text and in its record, labels, and an amount that is a number."""
    broadcast_id = await send(http, "/text.json", TEXTS | {"Label": ["one", "two words", "one", ""]})

    (text,) = await listed(http, "/text.json", {"LabelName": "two words"})
    assert (await http.get(f"/text/{text['@id']}.json")).json() == {"Resource": {"Text": text}}
    (record,) = text["TextRecord"]
    assert (text["BroadcastId"], text["Inbound"], text["FinalResult"]) == (broadcast_id, False, "SENT")
    assert (text["Message"], record["Message"], record["BilledAmount"]) == ("Hello", "Hello", 1.0)
    assert text["Label"] == [{"Name": "one"}, {"Name": "two words"}]
    assert all(9 <= len(str(number)) <= 13 for number in (text["@id"], record["@id"], text["ContactId"], broadcast_id))


async def test_a_sent_call(http):
    """It is answered, and posted like other calls."""
    broadcast_id = await send(http, "/call.json", CALLS)

    (call,) = await listed(http, "/call.json", {"Result": "LA"})
    (record,) = call["CallRecord"]
    assert (call["BroadcastId"], call["AgentCall"], call["FinalResult"]) == (broadcast_id, False, "LA")
    assert (record["Result"], record["BilledAmount"], record["Duration"]) == ("LA", 1.0, 33)


async def test_calls_are_finished_on_request():
    """Then their events are posted."""
    postbacks = PostbackRecorder()
    fake = FakeCallFire(finishes_calls=False, transport=postbacks)
    async with (
        fake.client() as callfire,
        httpx.AsyncClient(transport=httpx.ASGITransport(fake), base_url=BASE, auth=("login", "password")) as http,
    ):
        await callfire.subscriptions.create("https://hooks.example.com/token", "OUTBOUND_CALL_FINISHED")
        await send(http, "/call.json", CALLS)
        (before,) = (await callfire.calls.query()).items

        (posted,) = await fake.finish_calls()

        after = await callfire.calls.get(before.id)
    assert (before.state, before.final_result, before.records) == ("READY", None, ())
    assert (after.state, after.final_result, posted.key) == ("FINISHED", "LA", ("call", before.id, "LA"))


async def test_texts_without_a_message(http):
    """The response is 400."""
    assert message_of(await http.post("/text.json", data=TEXTS | {"Message": " "})) == "Message is required"


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/text.json", TEXTS | {"Type": "VOICE"}),
        ("/call.json", CALLS | {"Type": "TEXT"}),
        ("/call.json", CALLS | {"Type": "CCC"}),
        ("/call.json", CALLS | {"Type": "NOTHING"}),
    ],
)
async def test_a_wrong_type(http, path, form):
    """Texts are of the type TEXT, calls VOICE or IVR."""
    assert message_of(await http.post(path, data=form)) == f"Type is unknown: {form['Type']}"


async def test_an_invalid_configuration(http):
    """The response is 400."""
    response = await http.post("/call.json", data=CALLS | {"MaxActiveTransfers": "many"})

    assert message_of(response) == "not an integer @ VoiceBroadcastConfig.MaxActiveTransfers"


# --- IDs --------------------------------------------------------------------------------------------------


async def test_a_send_overwrites_nothing(fake, http):
    """Neither the samples nor texts and calls that a test adds with the next IDs."""
    for event in samples.EVENTS.values():
        fake.add(*([event.text] if hasattr(event, "text") else [event.call] if hasattr(event, "call") else []))
    await send(http, "/text.json", TEXTS)
    newest = (await listed(http, "/text.json", {}))[0]["@id"]
    fake.add(evolve(make_text_sent().text, id=newest + 1000), evolve(make_call_finished().call, id=newest + 2000))
    before = {item["@id"] for path in ("/text.json", "/call.json") for item in await listed(http, path, {})}

    await send(http, "/text.json", TEXTS)
    await send(http, "/call.json", CALLS)

    after = [item["@id"] for path in ("/text.json", "/call.json") for item in await listed(http, path, {})]
    assert len(after) == len(set(after)) == len(before) + 2
    assert before < set(after)


# --- broadcasts -------------------------------------------------------------------------------------------


async def broadcast_of(http: httpx.AsyncClient, path: str, form: dict) -> dict:
    """Send, and return the broadcast at the location of the response."""
    response = await http.post(path, data=form)
    found = await http.get(response.json()["ResourceReference"]["Location"] + ".json")
    assert found.status_code == 200, found.text
    return found.json()["Resource"]["Broadcast"]


async def test_the_location_of_a_send(http):
    """It is that of the broadcast, which has finished with its texts."""
    broadcast = await broadcast_of(
        http, "/text.json", TEXTS | {"BroadcastName": "Spring", "From": "67076", "BigMessageStrategy": "TRIM"}
    )

    config = broadcast["TextBroadcastConfig"]
    assert (broadcast["Name"], broadcast["Type"], broadcast["Status"]) == ("Spring", "TEXT", "FINISHED")
    assert (config["Message"], config["FromNumber"], config["BigMessageStrategy"]) == ("Hello", "67076", "TRIM")


async def test_the_broadcast_of_calls(http):
    """Its configuration has the fields of the form, which has those of nested objects at the top level."""
    form = CALLS | {
        "Label": "one",
        "AnsweringMachineConfig": "AM_AND_LIVE",
        "MachineSoundId": "7",
        "MaxAttempts": "2",
        "RetryResults": ["BUSY", "NO_ANS"],
        "RetryPhoneTypes": "FIRST_NUMBER HOME_PHONE",
        "LocalRestrictBegin": "04:10:10",
        "LocalRestrictEnd": "22:20:20",
    }

    broadcast = await broadcast_of(http, "/call.json", form)

    config = broadcast["VoiceBroadcastConfig"]
    assert (broadcast["Type"], broadcast["Label"], config["LiveSoundText"]) == ("VOICE", [{"Name": "one"}], "Hello")
    assert (config["MachineSoundId"], config["AnsweringMachineConfig"]) == (7, "AM_AND_LIVE")
    assert config["RetryConfig"] == {
        "MaxAttempts": 2,
        "RetryResults": "BUSY NO_ANS",
        "RetryPhoneTypes": "FIRST_NUMBER HOME_PHONE",
    }
    assert config["LocalTimeZoneRestriction"] == {"BeginTime": "04:10:10", "EndTime": "22:20:20"}


async def test_an_interactive_call(http):
    """The type follows from the dialplan."""
    broadcast = await broadcast_of(http, "/call.json", {"To": "12135550142", "DialplanXml": "<dialplan/>"})

    assert (broadcast["Type"], broadcast["IvrBroadcastConfig"]["DialplanXml"]) == ("IVR", "<dialplan/>")


async def test_a_send_to_an_existing_broadcast(http):
    """The response and the texts have its ID."""
    first = await send(http, "/text.json", TEXTS)

    second = await send(http, "/text.json", TEXTS | {"BroadcastId": str(first)})

    assert second == first
    assert len(await listed(http, "/text.json", {"BroadcastId": first})) == 2


@pytest.mark.parametrize("path", ["/broadcast/5.json", "/text/5.json", "/call/5.json"])
async def test_what_does_not_exist(http, path):
    """The response is 404, in CallFire's words."""
    response = await http.get(path)

    assert (response.status_code, response.json()["ResourceException"]["Message"]) == (404, "Not Found")


# --- queries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ([("State", "READY"), ("State", "FINISHED")], "cba"),
        ([("State", "READY FINISHED")], "cba"),
        ([("Result", "DNT"), ("Result", "TOO_BIG SENT")], "cb"),
        ([("ToNumber", "12135550141"), ("ToNumber", "12135550143")], "ca"),
        ([("FromNumber", "1"), ("FromNumber", "67076")], "cba"),
        ([("State", "FINISHED"), ("MaxResults", "1"), ("FirstResult", "1")], "b"),
    ],
)
@pytest.mark.parametrize("in_body", [False, True])
async def test_repeated_parameters_of_a_query(http, fake, query, expected, in_body):
    """All values count; of a parameter that is not a list, the last. CallFire accepts them in the body as well."""
    results = {"a": "CARRIER_ERROR", "b": "DNT", "c": "SENT"}
    for number, (name, result) in enumerate(results.items(), 1):
        text = make_text_sent(to_number=f"1213555014{number}", labels=(name,)).text
        fake.add(evolve(text, final_result=result))
    # httpx has no form for a GET.
    request = (
        http.build_request(
            "GET",
            "/text.json",
            content=str(httpx.QueryParams(query)),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        if in_body
        else http.build_request("GET", "/text.json", params=query)
    )

    items = (await http.send(request)).json()["ResourceList"]["Text"]

    assert "".join(item["Label"][0]["Name"] for item in items) == expected


async def test_a_number_in_xml_is_text(http):
    """Only JSON has an object."""
    await send(http, "/text.json", TEXTS)

    assert b"<ToNumber>12135550142</ToNumber>" in (await http.get("/text")).content


async def test_an_invalid_query(http):
    """The response is 400."""
    assert message_of(await http.get("/text.json", params={"BroadcastId": "x"})) == "not an integer @ query.BroadcastId"


async def test_a_query_by_a_naive_time(http):
    """It is taken as UTC."""
    await send(http, "/text.json", TEXTS)

    assert len(await listed(http, "/text.json", {"IntervalBegin": "2012-10-26T00:00:00"})) == 1


# --- forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded; charset=ISO-8859-1", b"To=12135550142&Message=Gr%FC%DFe"),
        ('Application/X-WWW-Form-URLEncoded;charset="iso-8859-1"', b"To=12135550142&Message=Gr\xfc\xdfe"),
        ("application/x-www-form-urlencoded; charset=utf-8", b"To=12135550142&Message=Gr%C3%BC%C3%9Fe"),
        ("application/x-www-form-urlencoded", "To=12135550142&Message=Grüße".encode()),
    ],
)
async def test_the_charset_of_a_form(http, content_type, body):
    """The content type declares it; the default is UTF-8."""
    await http.post("/text.json", content=body, headers={"Content-Type": content_type})

    assert [text["Message"] for text in await listed(http, "/text.json", {})] == ["Grüße"]


@pytest.mark.parametrize(
    ("charset", "body"),
    [("UTF-8", b"Message=%FC"), ("US-ASCII", b"Message=\xfc"), ("nothing", b"Message=x"), ("hex", b"Message=x")],
)
async def test_a_form_that_is_not_in_its_charset(http, charset, body):
    """The response is 400."""
    content_type = f"application/x-www-form-urlencoded; charset={charset}"

    response = await http.post("/text.json", content=body, headers={"Content-Type": content_type})

    assert message_of(response) == f"The form is not {charset}"


async def test_a_body_that_is_not_a_form(http):
    """It has no parameters."""
    response = await http.post("/text.json", json=TEXTS)

    assert message_of(response) == "To is required"
