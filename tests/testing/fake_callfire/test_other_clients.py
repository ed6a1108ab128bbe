"""
The requests of CallFire's Java client of API 1.1, byte for byte, and the parts of the responses that it reads.

The client was run against the fake once; these are the requests that it sent.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from notifications.servers import uvicorn_server

from callfire_async.testing import FakeCallFire

HEADERS = (
    "Connection: Keep-Alive\r\nUser-Agent: Apache-HttpClient/4.5 (Java/1.8.0_292)\r\nAccept-Encoding: gzip,deflate\r\n"
    "Authorization: Basic bG9naW46cGFzc3dvcmQ=\r\n"
)
FORM = "Content-Type: application/x-www-form-urlencoded; charset=ISO-8859-1\r\n"
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")

Request = Callable[..., Any]


@pytest.fixture
async def fake() -> FakeCallFire:
    """Return a fake whose sends finish on request."""
    return FakeCallFire(finishes_texts=False, finishes_calls=False)


@pytest.fixture
async def request_fake(fake) -> AsyncIterator[Request]:
    """Yield a function that sends a request as the Java client does, and returns the status and the JSON response."""
    async with uvicorn_server(fake) as port:

        async def send(method: str, path: str, form: str | None = None) -> tuple[int, Any]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            body = (form or "").encode("ascii")
            accept = "Accept: application/json\r\n" if method in ("POST", "PUT") else ""
            length = "" if form is None else f"Content-Length: {len(body)}\r\n{FORM}"
            head = f"{method} /api/1.1/rest{path} HTTP/1.1\r\n{accept}{length}Host: 127.0.0.1:{port}\r\n{HEADERS}\r\n"
            writer.write(head.encode() + body)
            status, answer = await _read_response(reader)
            writer.close()
            await writer.wait_closed()
            return status, answer

        yield send


async def _read_response(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = re.search(r"content-length: (\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return int(head.split()[1]), json.loads(body) if body else None


async def created(request_fake: Request, path: str, form: str) -> int:
    """Send a form, and return the ID in the response."""
    status, answer = await request_fake("POST", path, form)
    reference = answer["ResourceReference"]
    assert (status, isinstance(reference["Id"], int), isinstance(reference["Location"], str)) == (201, True, True)
    return reference["Id"]


# --- subscriptions ----------------------------------------------------------------------------------------


async def test_the_life_cycle_of_a_subscription(request_fake):
    """An update sends the whole subscription; the response to it and to a delete has no body."""
    form = (
        "Endpoint=test_endpoint&NotificationFormat=JSON&TriggerEvent=CAMPAIGN_STARTED&BroadcastId=1&FromNumber=123"
        "&ToNumber={}"
    )
    id = await created(request_fake, "/subscription.json", form.format("321"))
    path = f"/subscription/{id}.json"

    updated = await request_fake("PUT", path, form.format("67076%3AKEYWORD"))
    found = await request_fake("GET", path)
    listed = await request_fake("GET", "/subscription.json?FirstResult=0&MaxResults=1")
    deleted = await request_fake("DELETE", path)
    missing = await request_fake("GET", path)

    subscription = {
        "@id": id,
        "Enabled": True,
        "NonStrictSsl": False,
        "Endpoint": "test_endpoint",
        "NotificationFormat": "JSON",
        "TriggerEvent": "CAMPAIGN_STARTED",
        "SubscriptionFilter": {"BroadcastId": 1, "FromNumber": "123", "ToNumber": "67076:KEYWORD"},
    }
    assert (updated, deleted) == ((204, None), (204, None))
    assert found == (200, {"Resource": {"Subscription": subscription}})
    assert listed == (200, {"ResourceList": {"@totalResults": 1, "Subscription": [subscription]}})
    assert missing == (404, {"ResourceException": {"HttpStatus": 404, "Message": "Not Found"}})


async def test_an_empty_subscription(request_fake):
    """Without fields the client sends an empty form; the message is CallFire's."""
    status, answer = await request_fake("POST", "/subscription.json", "")

    assert (status, answer["ResourceException"]["Message"]) == (400, "TriggerEvent is required")


# --- texts ------------------------------------------------------------------------------------------------

TEXT = (
    "Type=TEXT&BroadcastName=Java+%E4%F6&ScrubBroadcastDuplicates=true&To=12132212384%3Fattr1%3Dval1%26attr2%3Dval2"
    "&To=16505339974%3Fattr1%3D%E9&Label=label1&Label=label2&UseDefaultBroadcast=false&From=67076"
    "&LocalRestrictBegin=10%3A10%3A10&LocalRestrictEnd=11%3A20%3A20&Message=Gr%FC%DFe&BigMessageStrategy=SEND_MULTIPLE"
)


async def test_texts(fake, request_fake):
    """Sent to two numbers with attributes, found by a query with repeated parameters, and fetched."""
    broadcast_id = await created(request_fake, "/text.json", TEXT)
    await fake.finish_texts()

    _, answer = await request_fake(
        "GET",
        f"/text.json?BroadcastId={broadcast_id}&Inbound=false&FromNumber=67076&LabelName=label2&State=READY"
        "&State=FINISHED&FirstResult=0&MaxResults=10&Result=RECEIVED&Result=SENT",
    )
    second, first = answer["ResourceList"]["Text"]
    _, fetched = await request_fake("GET", f"/text/{first['@id']}.json")

    assert (answer["ResourceList"]["@totalResults"], fetched) == (2, {"Resource": {"Text": first}})
    assert first["ToNumber"] == {"value": "12132212384", "@attr1": "val1", "@attr2": "val2"}
    assert second["ToNumber"] == {"value": "16505339974", "@attr1": "é"}
    assert first["Label"] == [{"Name": "label1"}, {"Name": "label2"}]
    _check_action(first, {"FromNumber": "67076", "FinalResult": "SENT", "BroadcastId": broadcast_id})
    _check_record(first["TextRecord"], {"Result": "SENT", "Message": "Grüße"})
    assert first["Message"] == "Grüße"


async def test_a_text_to_an_invalid_number(request_fake):
    """It is invalid, and without a result."""
    broadcast_id = await created(request_fake, "/text.json", "Type=TEXT&To=1234&From=12132212384&Message=Api+test")

    _, answer = await request_fake("GET", f"/text.json?BroadcastId={broadcast_id}&FirstResult=0&MaxResults=1000")

    (text,) = answer["ResourceList"]["Text"]
    assert (text["State"], text["ToNumber"], "FinalResult" in text) == ("INVALID", {"value": "1234"}, False)


# --- calls ------------------------------------------------------------------------------------------------

RECIPIENTS = "MaxActive=2&ScrubBroadcastDuplicates=false&Label=label1&To=12132212384%3Fa%3D1&To=12132212384"
RETRIES = "MaxAttempts=2&MinutesBetweenAttempts=1&RetryResults=BUSY&RetryResults=NO_ANS&RetryPhoneTypes=FIRST_NUMBER"
VOICE = (
    f"Type=VOICE&{RECIPIENTS}&From=12132212384&{RETRIES}&AnsweringMachineConfig=LIVE_WITH_AMD&LiveSoundText=this+is+LA"
    "&LiveSoundTextVoice=MALE1&TransferDigit=7&TransferNumber=12132212384&MaxActiveTransfers=2&DncDigit=9"
)
IVR = f"Type=IVR&{RECIPIENTS}&From=12132212384&{RETRIES}&DialplanXml=%3Cdialplan+name%3D%22Root%22%2F%3E"


@pytest.mark.parametrize("form", [VOICE, IVR])
async def test_calls(fake, request_fake, form):
    """Two to the same number, as duplicates are not removed."""
    broadcast_id = await created(request_fake, "/call.json", form)
    await fake.finish_calls()

    _, answer = await request_fake(
        "GET", f"/call.json?BroadcastId={broadcast_id}&State=FINISHED&MaxResults=10&Result=LA&Result=NO_ANS"
    )
    calls = answer["ResourceList"]["Call"]
    _, fetched = await request_fake("GET", f"/call/{calls[0]['@id']}.json")

    assert (len(calls), fetched) == (2, {"Resource": {"Call": calls[0]}})
    _check_action(calls[0], {"FromNumber": "12132212384", "FinalResult": "LA", "AgentCall": False})
    _check_record(calls[0]["CallRecord"], {"Result": "LA", "Duration": 33})


@pytest.mark.parametrize(
    ("path", "form", "message"),
    [
        ("/text.json", "Type=TEXT&To=12132212384&From=1234&Message=Api+test", "invalid from number"),
        ("/call.json", "Type=VOICE&To=12132212384&From=1234&LiveSoundText=x", "1234 is not a valid from number"),
    ],
)
async def test_an_invalid_sender(request_fake, path, form, message):
    """The messages are CallFire's."""
    assert await request_fake("POST", path, form) == (
        400,
        {"ResourceException": {"HttpStatus": 400, "Message": message}},
    )


def _check_action(action: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check the fields of a text or call that the client reads into numbers, booleans and dates."""
    assert expected.items() <= action.items()
    assert {"State": "FINISHED", "Inbound": False}.items() <= action.items()
    assert all(isinstance(action[name], int) for name in ("@id", "BroadcastId", "ContactId"))
    assert all(DATE.fullmatch(action[name]) for name in ("Created", "Modified"))


def _check_record(records: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    """Check that there is one record in an array, with an amount that is a number."""
    (record,) = records
    assert expected.items() <= record.items()
    assert (isinstance(record["@id"], int), record["BilledAmount"]) == (True, 1.0)
    assert DATE.fullmatch(record["FinishTime"])
