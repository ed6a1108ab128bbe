"""What each operation of API v2 sends, and how its response or its error is read."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from callfire_async.client._operations.api_2 import (
    create_webhook,
    delete_webhook,
    get_webhook,
    list_resources,
    query_webhooks,
    same_webhook,
    update_webhook,
)
from callfire_async.client._responses import HttpResponse, parse_response
from callfire_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerError,
)
from callfire_async.models import (
    Page,
    ResourceReference,
    TriggerEvent,
    Webhook,
    WebhookEvent,
    WebhookResource,
    WebhookResourceInfo,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALLBACK = "https://hooks.example.com/callfire/Tok3n"
VALID = {"callback": CALLBACK, "resource": WebhookResource.OUTBOUND_TEXT}
CREATE = create_webhook(VALID | {"name": "texts"})


def read(operation, content, *, status=200, maybe_executed=False, content_type="application/json", **details):
    """Read a response; return the value and the problems."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    response = HttpResponse(status, body, content_type, **details)
    return parse_response(operation, response, attempts=1, maybe_executed=maybe_executed, now=NOW)


# --- requests --------------------------------------------------------------------------------------------


def test_a_create_is_json():
    """None is not sent; enumerations are CallFire's values, times Unix time in milliseconds."""
    operation = create_webhook(
        {
            "callback": CALLBACK,
            "resource": "outboundtext",
            "events": ["finished"],
            "name": "Zoë's texts",
            "enabled": True,
            "secret": None,
            "single_use": False,
            "expires_at": datetime(2023, 11, 14, 23, 13, 20, 5000, tzinfo=timezone(timedelta(hours=1))),
            "non_strict_ssl": None,
            "fields": "id",
        }
    )

    assert (operation.method, operation.target("json"), operation.api_version) == ("POST", "/webhooks", "2")
    assert operation.content_type == "application/json"
    assert json.loads(operation.content()) == {
        "callback": CALLBACK,
        "resource": "OutboundText",
        "events": ["Finished"],
        "name": "Zoë's texts",
        "enabled": True,
        "singleUse": False,
        "expiresAt": 1700000000005,
        "fields": "id",
    }
    assert operation.request_id is None
    assert CALLBACK not in repr(operation)


@pytest.mark.parametrize(
    ("resource", "events"),
    [
        (WebhookResource.OUTBOUND_TEXT, ["Finished"]),
        ("cccCampaign", ["Started", "Stopped", "Finished"]),
        (WebhookResource.CONTACT_LIST, ["ValidationFinished", "ValidationFailed"]),
        (WebhookResource.LOW_BALANCE, ["Finished", "Failed"]),
    ],
)
def test_all_events_are_sent_by_default(resource, events):
    """Those that CallFire publishes for the resource."""
    assert json.loads(create_webhook(VALID | {"resource": resource}).content())["events"] == events


def test_unknown_resources_and_events_are_sent_as_they_are():
    """CallFire extends its sets; a resource without that event is CallFire's to refuse."""
    values = VALID | {"resource": "SomethingNew", "events": ["HappenedToday", "finished", "Finished"]}

    sent = json.loads(create_webhook(values).content())

    assert (sent["resource"], sent["events"]) == ("SomethingNew", ["HappenedToday", "Finished"])


def test_a_query_always_sends_limit_and_offset():
    """CallFire's default limit is not certain; filters that are None are not sent."""
    plain = query_webhooks({}, limit=100, offset=0)
    filters = {
        "name": "a b",
        "resource": "inboundtext",
        "event": WebhookEvent.FINISHED,
        "callback": CALLBACK,
        "enabled": False,
        "fields": "items(id)",
    }

    assert plain.target("json") == "/webhooks?limit=100&offset=0"
    assert plain.target("xml") == plain.target("json")
    assert plain.content() is plain.content_type is None
    assert query_webhooks(filters, limit=5, offset=7).query == {
        "limit": "5",
        "offset": "7",
        "name": "a b",
        "resource": "InboundText",
        "event": "Finished",
        "callback": CALLBACK,
        "enabled": "false",
        "fields": "items(id)",
    }


@pytest.mark.parametrize(
    ("operation", "line", "route"),
    [
        (get_webhook(2**60), f"GET /webhooks/{2**60}", "/webhooks/{id}"),
        (delete_webhook(7), "DELETE /webhooks/7", "/webhooks/{id}"),
        (update_webhook(7, {"enabled": False}), "PUT /webhooks/7", "/webhooks/{id}"),
        (list_resources(), "GET /webhooks/resources", "/webhooks/resources"),
    ],
)
def test_other_operations_have_a_path(operation, line, route):
    """Telemetry has the route, without the ID."""
    assert (str(operation), operation.route) == (line, route)


def test_an_update_sends_only_what_is_given():
    """No default is added."""
    assert json.loads(update_webhook(7, {"enabled": False, "name": None}).content()) == {"enabled": False}
    assert get_webhook(7, fields="id,name").target("json") == "/webhooks/7?fields=id%2Cname"


@pytest.mark.parametrize(
    "callback",
    [
        "sms:callfire",
        "https://hooks.example.com",
        "HTTP://[::1]:8080/x?y#z",
        " https://h.example/1 ",
        "https://ümlaut.example/",
    ],
)
def test_a_callback_has_any_scheme(callback):
    """An example of CallFire's has the callback "sms:callfire"."""
    assert json.loads(create_webhook(VALID | {"callback": callback}).content())["callback"] == callback


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"callback": None}, TypeError, "callback must be a string, not None"),
        ({"callback": b"https://h.example"}, TypeError, "callback must be a string, not bytes: decode it"),
        ({"callback": " "}, ValueError, "callback must not be empty"),
        ({"callback": "h.example/callfire"}, ValueError, "callback must be a URL"),
        ({"callback": "me@example.com"}, ValueError, "callback must be a URL"),
        ({"callback": "https:///path"}, ValueError, "callback must be a URL"),
        ({"callback": "https://[::1"}, ValueError, "callback must be a URL"),
        ({"callback": "https:"}, ValueError, "callback must be a URL"),
        ({"callback": "https://h.example/\ud800"}, ValueError, "callback must not contain half of a surrogate"),
        ({"resource": None}, TypeError, "resource must be a WebhookResource or a string, not None"),
        ({"resource": ""}, ValueError, "resource must not be empty"),
        ({"resource": WebhookResource}, TypeError, "resource must be a WebhookResource or a string, not the class"),
        ({"resource": TriggerEvent.CAMPAIGN_STARTED}, TypeError, "resource must be a WebhookResource or a string"),
        ({"resource": WebhookEvent.FINISHED}, TypeError, "resource must be a WebhookResource or a string"),
        ({"resource": "SomethingNew"}, ValueError, "events must be given"),
        ({"events": "Finished"}, TypeError, "events must be a list of WebhookEvent, not str"),
        ({"events": b"Finished"}, TypeError, "events must be a list of WebhookEvent, not bytes"),
        ({"events": {"Finished": 1}}, TypeError, "events must be a list of WebhookEvent, not dict"),
        ({"events": WebhookEvent}, TypeError, "events must be a list of WebhookEvent, not the class"),
        ({"events": 7}, TypeError, "events must be a list of WebhookEvent, not int"),
        ({"events": []}, ValueError, "events must not be empty"),
        ({"events": ["Finished", ""]}, ValueError, r"events\[1\] must not be empty"),
        ({"events": [None]}, TypeError, r"events\[0\] must be a WebhookEvent or a string, not None"),
        ({"name": ""}, ValueError, "name must not be empty"),
        ({"name": 7}, TypeError, "name must be a string"),
        ({"enabled": 1}, TypeError, "enabled must be True or False"),
        ({"secret": b"x" * 20}, TypeError, "secret must be a string, not bytes: decode it"),
        ({"single_use": "no"}, TypeError, "single_use must be True or False"),
        ({"expires_at": datetime(2026, 1, 1)}, ValueError, "expires_at must be an aware datetime"),  # noqa: DTZ001  # the point
        ({"expires_at": 1700000000000}, TypeError, "expires_at must be a datetime, not int"),
        ({"non_strict_ssl": 0}, TypeError, "non_strict_ssl must be True or False"),
        ({"fields": ""}, ValueError, "fields must not be empty"),
    ],
)
def test_a_wrong_value_is_never_sent(values, error, message):
    """The message begins with the parameter's name."""
    with pytest.raises(error, match=f"^{message}"):
        create_webhook(VALID | values)


def test_the_error_for_a_secret_object_has_the_remedy():
    """As for passwords."""

    class SecretStr:
        def get_secret_value(self):
            pytest.fail("the value is not read")

    with pytest.raises(TypeError, match=r"secret must be a string, not SecretStr: pass secret.get_secret_value\(\)"):
        create_webhook(VALID | {"secret": SecretStr()})


# --- values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201])
def test_a_create_returns_the_id(status):
    """The status has changed over the years; IDs have 64 bits, and API v2 returns no URL."""
    assert read(CREATE, {"id": 2**60}, status=status) == (ResourceReference(2**60), ())


@pytest.mark.parametrize("content", [{}, {"id": None}, {"id": "x"}, [], None, b"", b"<html></html>", b"\xff", b"{"])
def test_a_create_without_a_readable_id_is_an_error(content):
    """A webhook may exist: the caller looks it up."""
    with pytest.raises(ResponseError):
        read(CREATE, content)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize("body", [b"", b"{}", b"anything"])
def test_an_update_or_delete_succeeds_with_any_body(status, body):
    """CallFire's own clients accept any 2xx."""
    assert read(update_webhook(7, {}), body, status=status) == (None, ())
    assert read(delete_webhook(7), body, status=status) == (None, ())


def test_a_webhook_that_is_gone_after_an_unknown_outcome_is_deleted():
    """But not if no earlier attempt can have deleted it."""
    assert read(delete_webhook(7), {}, status=404, maybe_executed=True) == (None, ())
    with pytest.raises(NotFoundError):
        read(delete_webhook(7), {}, status=404)


def test_a_webhook_is_read():
    """Unknown keys are ignored; null and missing are the same."""
    content = {"id": 2**60, "name": None, "events": ["Finished"], "createdAt": 0, "owner": {"id": 1}}

    webhook, problems = read(get_webhook(7), content)

    assert (webhook, problems) == (
        Webhook(2**60, events=(WebhookEvent.FINISHED,), created_at=datetime(1970, 1, 1, tzinfo=UTC)),
        (),
    )


def test_an_unreadable_field_of_a_webhook_is_a_problem():
    """It is left out."""
    assert read(get_webhook(7), {"id": 7, "enabled": "perhaps"}) == (Webhook(7), ("not a boolean @ Webhook.enabled",))


def test_the_id_of_a_partial_webhook_is_that_of_the_request():
    """With `fields` the response may not have it; without, it must."""
    assert read(get_webhook(7, fields="name"), {"name": "a"}) == (Webhook(7, name="a"), ())
    with pytest.raises(ResponseError, match=r"missing @ Webhook\.id"):
        read(get_webhook(7), {"name": "a"})


@pytest.mark.parametrize(
    ("content", "page"),
    [
        (
            {"items": [{"id": 1}, {"id": 2}], "limit": 2, "offset": 4, "totalCount": 6},
            Page((Webhook(1), Webhook(2)), 6, 4),
        ),
        ({"items": [{"id": 1}], "totalCount": -1}, Page((Webhook(1),), None, 4)),
        ({"items": [{"id": 1}]}, Page((Webhook(1),), None, 4)),
        ({"items": None, "totalCount": 0}, Page((), 0, 4)),
        ({"totalCount": "3"}, Page((), 3, 4)),
        ({"items": []}, Page((), None, 4)),
    ],
)
def test_a_page_is_read(content, page):
    """A total of -1 is not known; paging keys can be missing."""
    assert read(query_webhooks({}, limit=2, offset=4), content) == (page, ())


def test_an_unreadable_total_is_a_problem():
    """It is left out."""
    assert read(query_webhooks({}, limit=2, offset=0), {"items": [], "totalCount": "many"}) == (
        Page((), None, 0),
        ("not an integer @ totalCount",),
    )


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"message": "OK"},
        {"items": [{"name": "a"}]},
        {"items": ["a"]},
        {"items": "abc"},
        [],
        b"<html></html>",
        b'{"items": [' + b"[" * 100 + b"]" * 100 + b"]}",
        b'{"items": [' + b"{}," * 30_000 + b"{}]}",
        {"items": [{"id": 1, "enabled": "x", "singleUse": "x", "createdAt": "x", "nonStrictSsl": "x"}] * 1300},
    ],
)
def test_a_response_that_is_not_a_page_is_an_error(content):
    """Anything else that CallFire, or a proxy, returns with status 200."""
    with pytest.raises(ResponseError):
        read(query_webhooks({}, limit=100, offset=0), content)


@pytest.mark.parametrize("key", ["supportedEvents", "events"])
def test_resources_are_read(key):
    """Older descriptions call the events by another key, and have other names."""
    content = {"items": [{"resource": "InboundText", key: ["Finished"]}, {"resource": "textCampaign", key: ["start"]}]}

    assert read(list_resources(), content) == (
        (
            WebhookResourceInfo(WebhookResource.INBOUND_TEXT, (WebhookEvent.FINISHED,)),
            WebhookResourceInfo(WebhookResource("textCampaign"), (WebhookEvent("start"),)),
        ),
        (),
    )


@pytest.mark.parametrize("content", [{}, {"items": ["InboundText"]}, [], b""])
def test_a_response_that_is_not_a_list_of_resources_is_an_error(content):
    """Anything else with status 200."""
    with pytest.raises(ResponseError):
        read(list_resources(), content)


# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, APIError),
        (429, RateLimitError),
        (500, ServerError),
        (503, ServerError),
    ],
)
@pytest.mark.parametrize(("code", "text"), [("40001", "40001"), (40001, "40001"), (None, None), (True, None)])
def test_an_error_has_message_and_code(status, kind, code, text):
    """CallFire's description and its clients differ in the type of the code."""
    content = {
        "httpStatusCode": status,
        "internalCode": code,
        "message": " no webhook ",
        "developerMessage": "dev",
        "helpLink": "https://example.com",
    }

    with pytest.raises(kind) as caught:
        read(get_webhook(7), content, status=status)

    assert type(caught.value) is kind
    assert (caught.value.status_code, caught.value.message, caught.value.code) == (status, "no webhook", text)
    assert "no webhook" in str(caught.value)
    assert caught.value.request_id is None


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html><h1>Bad gateway</h1></html>", "text/html"),
        (b"", None),
        (b"not json", "application/json"),
        (b"[]", "application/json"),
        (b'{"message": {"a": 1}}', "application/json"),
        (b'{"message": " "}', "application/json"),
    ],
)
def test_an_error_without_json_maps_by_status(body, content_type):
    """The body is an attribute; its text is not in the message."""
    with pytest.raises(ServerError) as caught:
        read(get_webhook(7), body, status=502, content_type=content_type)

    assert (caught.value.message, caught.value.code, caught.value.body) == (None, None, body)
    assert str(caught.value) == "GET /webhooks/7 returned 502"


def test_an_error_that_cannot_be_decompressed_maps_by_status():
    """As for API 1.1."""
    with pytest.raises(ServerError, match=r"GET /webhooks/7 returned 502$"):
        read(get_webhook(7), b"no gzip", status=502, content_encoding="gzip")


def test_private_data_in_a_message_is_masked():
    """CallFire's message may quote the request."""
    with pytest.raises(BadRequestError) as caught:
        read(CREATE, {"message": f"callback {CALLBACK} of 12135551212 is taken"}, status=400)

    assert "Tok3n" not in str(caught.value)
    assert "12135551212" not in str(caught.value)
    assert "Tok3n" in caught.value.message


@pytest.mark.parametrize("status", [204, 301, 302, 307])
def test_an_unexpected_status_is_an_error(status):
    """Redirects are never followed."""
    with pytest.raises(ResponseError, match=f"returned {status}"):
        read(get_webhook(7), b"", status=status)


# --- comparison with the account -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "same"),
    [
        ({}, True),
        ({"callback": f" {CALLBACK}", "name": "texts ", "enabled": False, "secret": "x"}, True),
        ({"callback": None}, False),
        ({"callback": f"{CALLBACK}x"}, False),
        ({"resource": WebhookResource.INBOUND_TEXT}, False),
        ({"resource": None}, False),
        ({"events": (WebhookEvent.FINISHED, WebhookEvent.FAILED)}, False),
        ({"events": ()}, False),
        ({"name": "other"}, False),
        ({"name": None}, False),
    ],
)
def test_a_webhook_is_recognized(details, same):
    """By callback, resource, events and name."""
    found = {"callback": CALLBACK, "resource": WebhookResource.OUTBOUND_TEXT, "events": (WebhookEvent.FINISHED,)}
    webhook = Webhook(1, **(found | {"name": "texts"} | details))

    assert same_webhook(CREATE.json, webhook) is same


def test_any_name_is_the_same_if_none_is_given():
    """CallFire may give a webhook a name."""
    webhook = Webhook(1, "any", None, WebhookResource.OUTBOUND_TEXT, (WebhookEvent.FINISHED,), CALLBACK)

    assert same_webhook(create_webhook(VALID).json, webhook)
