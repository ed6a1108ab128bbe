"""The requests of operations, and the values and errors of their responses, without I/O."""

import copy
import gzip
import time
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfire_async.client._operations.api_1_1 import (
    create_subscription,
    delete_subscription,
    get_subscription,
    matches_update,
    query_subscriptions,
    same_subscription,
    send_text,
    update_subscription,
)
from callfire_async.client._operations.operation import Operation
from callfire_async.client._operations.validation import checked_base_url, checked_count, checked_timeout
from callfire_async.client._responses import (
    MAX_BODY_BYTES,
    MAX_RETRY_AFTER_SECONDS,
    HttpResponse,
    RetrySafety,
    parse_response,
    parse_retry_after,
    redact,
    retry_delay,
    retry_safety_of,
    should_retry,
)
from callfire_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    CallFireError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerError,
    TransportError,
)
from callfire_async.models import (
    NotificationFormat,
    Page,
    ResourceReference,
    Subscription,
    SubscriptionFilter,
    TriggerEvent,
)

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
NAMESPACES = 'xmlns="http://api.callfire.com/data" xmlns:r="http://api.callfire.com/resource"'

CREATE = create_subscription(
    {
        "endpoint": "https://hooks.example.com/callfire/secret",
        "trigger_event": TriggerEvent.OUTBOUND_TEXT_FINISHED,
        "notification_format": NotificationFormat.JSON,
        "enabled": True,
        "non_strict_ssl": None,
        "filter": SubscriptionFilter(broadcast_id=5, to_number="67076:KEYWORD"),
        "request_id": "0123456789abcdef",
    }
)
QUERY = query_subscriptions(max_results=100, first_result=200)
GET = get_subscription(42)
UPDATE = update_subscription(42, {"enabled": False, "endpoint": None, "request_id": "fedcba9876543210"})
DELETE = delete_subscription(42)
OPERATIONS = [CREATE, QUERY, GET, UPDATE, DELETE]


def read(operation, body, status=200, *, maybe_executed=False, **rest):
    """Parse a response."""
    body = body if isinstance(body, bytes) else body.encode()
    return parse_response(
        operation, HttpResponse(status, body, **rest), attempts=2, maybe_executed=maybe_executed, now=NOW
    )


def value(operation, body, status=200, **rest):
    """Parse a response that must have no unreadable field."""
    result, problems = read(operation, body, status, **rest)
    assert problems == ()
    return result


# --- requests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "method", "json_target", "xml_target"),
    [
        (CREATE, "POST", "/subscription.json", "/subscription"),
        (
            QUERY,
            "GET",
            "/subscription.json?MaxResults=100&FirstResult=200",
            "/subscription?MaxResults=100&FirstResult=200",
        ),
        (GET, "GET", "/subscription/42.json", "/subscription/42"),
        (UPDATE, "PUT", "/subscription/42.json", "/subscription/42"),
        (DELETE, "DELETE", "/subscription/42.json", "/subscription/42"),
    ],
    ids=str,
)
def test_a_request_matches_the_reference(operation, method, json_target, xml_target):
    """The method is the documented one, and the suffix of the path selects JSON."""
    assert (operation.method, operation.target("json"), operation.target("xml")) == (
        method,
        json_target,
        xml_target,
    )


@pytest.mark.parametrize(
    ("operation", "route"),
    [(CREATE, "/subscription"), (QUERY, "/subscription"), (GET, "/subscription/{id}"), (DELETE, "/subscription/{id}")],
    ids=str,
)
def test_a_route_is_equal_for_all_ids(operation, route):
    """It identifies the kind of request in every format."""
    assert operation.route == route


def test_a_create_sends_a_flat_form():
    """Names are PascalCase, filter fields are at the top level, booleans are lower case, and None is not sent."""
    assert CREATE.content() == (
        b"Endpoint=https%3A%2F%2Fhooks.example.com%2Fcallfire%2Fsecret&TriggerEvent=OUTBOUND_TEXT_FINISHED"
        b"&NotificationFormat=JSON&Enabled=true&RequestId=0123456789abcdef&BroadcastId=5&ToNumber=67076%3AKEYWORD"
    )


def test_an_update_sends_only_given_values():
    """None is not sent; the RequestId always is."""
    assert UPDATE.form == {"Enabled": "false", "RequestId": "fedcba9876543210"}


@pytest.mark.parametrize("operation", [QUERY, GET, DELETE], ids=str)
def test_queries_and_deletes_have_no_body(operation):
    """Neither a form nor a RequestId."""
    assert (operation.content(), operation.request_id) == (None, None)


def test_only_a_create_is_not_idempotent():
    """The others have the same effect if they are executed twice."""
    assert [operation.is_idempotent for operation in OPERATIONS] == [False, True, True, True, True]


def test_the_repr_of_an_operation_contains_no_form():
    """Endpoints and numbers stay out of logs and tracebacks."""
    assert "secret" not in repr(CREATE)


def test_an_operation_can_be_copied():
    """Its copy equals it."""
    assert copy.deepcopy(CREATE) == CREATE


def test_values_of_open_enums_can_be_strings():
    """An unknown trigger is sent unchanged."""
    operation = create_subscription({"endpoint": "me@example.com", "trigger_event": "SOMETHING_NEW"})

    assert operation.form == {"Endpoint": "me@example.com", "TriggerEvent": "SOMETHING_NEW"}


VALID = {"endpoint": "https://example.com", "trigger_event": TriggerEvent.CAMPAIGN_STARTED}


@pytest.mark.parametrize(
    ("build", "parameter"),
    [
        (lambda: create_subscription(VALID | {"endpoint": ""}), "endpoint"),
        (lambda: create_subscription(VALID | {"endpoint": " \t"}), "endpoint"),
        (lambda: create_subscription(VALID | {"trigger_event": ""}), "trigger_event"),
        (lambda: create_subscription(VALID | {"notification_format": ""}), "notification_format"),
        (lambda: create_subscription(VALID | {"filter": SubscriptionFilter(broadcast_id=0)}), r"filter\.broadcast_id"),
        (lambda: create_subscription(VALID | {"filter": SubscriptionFilter(batch_id=-1)}), r"filter\.batch_id"),
        (lambda: update_subscription(1, {"endpoint": ""}), "endpoint"),
        (lambda: update_subscription(0, {}), "subscription_id"),
        (lambda: get_subscription(-5), "subscription_id"),
        (lambda: delete_subscription(0), "subscription_id"),
        (lambda: query_subscriptions(max_results=0, first_result=0), "max_results"),
        (lambda: query_subscriptions(max_results=1001, first_result=0), "max_results"),
        (lambda: query_subscriptions(max_results=1, first_result=-1), "first_result"),
    ],
)
def test_an_invalid_parameter_is_an_error(build, parameter):
    """The error names the parameter."""
    with pytest.raises(ValueError, match=parameter):
        build()


@pytest.mark.parametrize("wrong", ["42", 1.5, None, "1/../2"])
def test_an_id_must_be_an_integer(wrong):
    """Nothing else gets into a path."""
    with pytest.raises(TypeError):
        get_subscription(wrong)


@given(form=st.dictionaries(st.sampled_from(["endpoint", "request_id"]), st.text(min_size=1), min_size=1))
def test_a_form_encodes_any_text(form):
    """Decoding returns the original text."""
    from callfire_async._codec.documents import read_form

    try:
        operation = update_subscription(1, form)
    except (ValueError, UnicodeEncodeError):
        return

    try:
        assert read_form(operation.content()) == operation.form
    except UnicodeEncodeError:
        assert any(0xD800 <= ord(letter) < 0xE000 for text in form.values() for letter in text)


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_url", "checked_url"),
    [
        ("https://www.callfire.com/api/1.1/rest", "https://www.callfire.com/api/1.1/rest"),
        ("https://www.callfire.com/api/1.1/rest/", "https://www.callfire.com/api/1.1/rest"),
        ("https://callfire.example:8443", "https://callfire.example:8443"),
        ("http://localhost:8080/rest", "http://localhost:8080/rest"),
        ("http://127.0.0.1:80", "http://127.0.0.1:80"),
        ("http://127.8.9.1", "http://127.8.9.1"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_a_base_url_is_https_or_on_loopback(given_url, checked_url):
    """A trailing slash is removed."""
    assert checked_base_url(given_url) == checked_url


@pytest.mark.parametrize(
    ("base_url", "message"),
    [
        ("http://www.callfire.com/api", "https"),
        ("http://10.0.0.1/api", "https"),
        ("http://localhost.example.com", "https"),
        ("https://login:hunter2@www.callfire.com/api", "credentials"),
        ("https://login@www.callfire.com/api", "credentials"),
        ("https://www.callfire.com/api?key=hunter2", "query"),
        ("https://www.callfire.com/api?", "query"),
        ("https://www.callfire.com/api#hunter2", "fragment"),
        ("ftp://www.callfire.com", "https"),
        ("www.callfire.com", "https"),
        ("https://", "host"),
        ("https://callfire.c\N{LATIN SMALL LETTER O WITH DIAERESIS}m", "host"),
        ("", "host"),
        ("https://www.callfire.com/a b", "URL"),
        ("https://www.callfire.com/\n", "URL"),
        ("https://www.callfire.com:hunter2", "not a URL"),
        ("https://[::1", "not a URL"),
    ],
)
def test_an_insecure_base_url_is_an_error(base_url, message):
    """The error does not quote the URL."""
    with pytest.raises(ValueError, match=message) as caught:
        checked_base_url(base_url)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_timeout_must_be_positive_and_finite(seconds):
    """Anything else is an error."""
    with pytest.raises(ValueError, match="timeout"):
        checked_timeout(seconds)


def test_a_valid_setting_is_returned():
    """Unchanged."""
    assert (checked_timeout(0.5), checked_count("max_retries", 0, minimum=0)) == (0.5, 0)


# --- successes --------------------------------------------------------------------------------------------

COMPLETE = Subscription(
    id=567040003,
    enabled=False,
    endpoint="https://hooks.example.com/callfire/token",
    non_strict_ssl=True,
    notification_format=NotificationFormat.SOAP,
    trigger_event=TriggerEvent.INBOUND_CALL_FINISHED,
    filter=SubscriptionFilter(
        broadcast_id=896807881003, batch_id=7, from_number="12135551212", to_number="67076:KEYWORD", inbound=True
    ),
)
COMPLETE_JSON = """{"@id": 567040003, "Enabled": false, "NonStrictSsl": true, "NotificationFormat": "SOAP",
    "Endpoint": "https://hooks.example.com/callfire/token", "TriggerEvent": "INBOUND_CALL_FINISHED",
    "SubscriptionFilter": {"BroadcastId": 896807881003, "BatchId": 7, "FromNumber": 12135551212,
    "ToNumber": "67076:KEYWORD", "Inbound": true}, "Unknown": [1]}"""
COMPLETE_XML = """<Subscription id="567040003"><!-- any order --><TriggerEvent> INBOUND_CALL_FINISHED </TriggerEvent>
    <Enabled>false</Enabled><Endpoint>https://hooks.example.com/callfire/token</Endpoint><Unknown/>
    <NotificationFormat>SOAP</NotificationFormat><NonStrictSsl>true</NonStrictSsl><SubscriptionFilter>
    <BroadcastId>896807881003</BroadcastId><BatchId>7</BatchId><FromNumber>12135551212</FromNumber>
    <ToNumber>67076:KEYWORD</ToNumber><Inbound>true</Inbound></SubscriptionFilter></Subscription>"""


@pytest.mark.parametrize(
    "body",
    [
        f'{{"Resource": {{"Subscription": {COMPLETE_JSON}}}}}',
        f'{{"Resource": {{"Subscription": [{COMPLETE_JSON}]}}}}',
        f'{{"Resource": {{"Subscription": {COMPLETE_JSON.replace("567040003", chr(34) + "567040003" + chr(34))}}}}}',
        f"<r:Resource {NAMESPACES}><r:note>Processing time was 38.7ms</r:note>{COMPLETE_XML}</r:Resource>",
        (
            f'<x:Resource xmlns="http://api.callfire.com/data" xmlns:x="http://api.callfire.com/resource">{COMPLETE_XML}'
            "</x:Resource>"
        ),
        f"<Resource>{COMPLETE_XML}</Resource>",
    ],
)
def test_a_subscription_is_equal_in_every_format(body):
    """JSON or XML, any prefix, any order, unknown elements, IDs as strings."""
    assert value(GET, body) == COMPLETE


@pytest.mark.parametrize(
    ("head", "item", "tail"),
    [
        ('{"ResourceList": {"Subscription": [', COMPLETE_JSON + ",", '{"@id": 567040003}]}}'),
        (f"<r:ResourceList {NAMESPACES}>", COMPLETE_XML, '<Subscription id="567040003"/></r:ResourceList>'),
    ],
    ids=["json", "xml"],
)
def test_the_longest_page_can_be_read(head, item, tail):
    """A thousand complete subscriptions stay below every limit."""
    page = value(QUERY, head + item * 999 + tail)

    assert len(page.items) == 1000
    assert page.items[500] == COMPLETE


@pytest.mark.parametrize("filter_json", ["{}", "null", '""'])
def test_an_empty_filter_reads_as_none(filter_json):
    """In any of its forms."""
    body = f'{{"Resource": {{"Subscription": {{"@id": 1, "SubscriptionFilter": {filter_json}}}}}}}'

    assert value(GET, body) == Subscription(id=1)


def json_list(*items, total=None):
    """Format a list as JSON."""
    head = "" if total is None else f'"@totalResults": {total}, '
    return f'{{"ResourceList": {{{head}"Subscription": [{", ".join(items)}]}}}}'


@pytest.mark.parametrize(
    ("body", "ids", "total"),
    [
        ('{"ResourceList": {"@totalResults": 0}}', [], 0),
        ('{"ResourceList": {"@totalResults": -1}}', [], None),
        ('{"ResourceList": {}}', [], None),
        ('{"ResourceList": {"Subscription": null}}', [], None),
        (json_list(), [], None),
        ('{"ResourceList": {"@totalResults": 1, "Subscription": {"@id": 5}}}', [5], 1),
        (json_list('{"@id": 5}', total=1), [5], 1),
        (json_list('{"@id": "5"}', '{"@id": 6}', total='"2"'), [5, 6], 2),
        (f'<r:ResourceList {NAMESPACES} totalResults="0"/>', [], 0),
        (f"<r:ResourceList {NAMESPACES}/>", [], None),
        (f'<r:ResourceList {NAMESPACES} totalResults="1"><Subscription id="5"/></r:ResourceList>', [5], 1),
        (
            (
                f'<r:ResourceList {NAMESPACES} totalResults="9"><Subscription id="5"/><x/><Subscription id="6"/>'
                "</r:ResourceList>"
            ),
            [5, 6],
            9,
        ),
        (
            f"<r:ResourceList {NAMESPACES}><Subscription id='5'/><x>&#55357;&#56832;\x0b&#8;</x></r:ResourceList>",
            [5],
            None,
        ),
    ],
)
def test_lists_of_any_length_are_pages(body, ids, total):
    """Without the key, with a bare item, and with an array."""
    expected = Page(items=tuple(map(Subscription, ids)), total_results=total, first_result=200)

    assert value(QUERY, body) == expected


@pytest.mark.parametrize(
    ("body", "location"),
    [
        (
            '{"ResourceReference": {"Id": 609951003, "Location": "https://www.callfire.com/x/609951003"}}',
            "https://www.callfire.com/x/609951003",
        ),
        ('{"ResourceReference": {"Id": "609951003"}}', None),
        (
            (
                f"<r:ResourceReference {NAMESPACES}><r:Id>609951003</r:Id><r:Location>https://www.callfire.com/x</r:Location>"
                "</r:ResourceReference>"
            ),
            "https://www.callfire.com/x",
        ),
    ],
)
@pytest.mark.parametrize("status", [200, 201])
def test_a_create_returns_a_reference(body, location, status):
    """It has the ID, and the URL if CallFire sent one."""
    assert value(CREATE, body, status) == ResourceReference(609951003, location)


@pytest.mark.parametrize("status", [200, 204])
@pytest.mark.parametrize("operation", [UPDATE, DELETE], ids=str)
def test_an_update_and_a_delete_return_nothing(operation, status):
    """After a 204, or a 200 with any body."""
    assert value(operation, "anything", status) is None


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
@pytest.mark.parametrize("operation", [UPDATE, DELETE], ids=str)
def test_a_success_without_a_body_may_name_a_compression(operation, encoding):
    """A proxy that compresses responses may add its header to a 204; there is nothing to decompress."""
    assert value(operation, b"", 204, content_encoding=encoding) is None


def test_a_404_to_a_repeated_delete_is_success():
    """An earlier attempt may have deleted it."""
    assert value(DELETE, "<html>", 404, maybe_executed=True) is None


def test_a_404_to_a_first_delete_is_an_error():
    """The subscription did not exist."""
    with pytest.raises(NotFoundError):
        read(DELETE, "", 404)


def test_unreadable_optional_fields_are_left_out_and_listed():
    """By their paths, without their values."""
    body = (
        '{"ResourceList": {"@totalResults": "many", "Subscription": [{"@id": 1, "Enabled": "perhaps"},'
        ' {"@id": 2, "SubscriptionFilter": {"BatchId": "12135551212000000000", "ToNumber": [1],'
        ' "Inbound": 1}}]}}'
    )

    page, problems = read(QUERY, body)

    assert page == Page((Subscription(1), Subscription(2, filter=SubscriptionFilter(inbound=True))), None, 200)
    assert problems == (
        "not an integer @ ResourceList.@totalResults",
        "not a boolean @ ResourceList.Subscription[0].Enabled",
        "not an integer @ ResourceList.Subscription[1].SubscriptionFilter.BatchId",
        "not a string @ ResourceList.Subscription[1].SubscriptionFilter.ToNumber",
    )


# --- invalid responses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "body", "reason"),
    [
        (GET, "", "neither XML nor JSON"),
        (GET, "oops", "neither XML nor JSON"),
        (GET, '{"Resource": {"Subscription": {"@id": 1', "neither XML nor JSON"),
        (GET, "<r:Resource", "invalid XML"),
        (GET, "<html><body>Welcome</body></html>", "HTML"),
        (GET, "[]", "one key"),
        (GET, '{"Resource": null}', "not an object"),
        (GET, '{"Resource": {}}', "expected one resource, got 0"),
        (GET, '{"Resource": {"Subscription": [{"@id": 1}, {"@id": 2}]}}', "expected one resource, got 2"),
        (GET, '{"Resource": {"Subscription": "text"}}', "not an object @ Resource.Subscription"),
        (GET, '{"Resource": {"Subscription": {"Enabled": true}}}', "missing @ Resource.Subscription.@id"),
        (GET, '{"Resource": {"Subscription": {"@id": "x"}}}', "not an integer @ Resource.Subscription.@id"),
        (GET, '{"ResourceList": {"Subscription": {"@id": 1}}}', "not a Resource"),
        (GET, '{"ResourceException": {"HttpStatus": 404, "Message": "no"}}', "not a Resource"),
        (QUERY, '{"Resource": {"Subscription": {"@id": 1}}}', "not a ResourceList"),
        (QUERY, '{"ResourceList": {"Subscription": [{"@id": 1}, {}]}}', "missing @ ResourceList.Subscription[1].@id"),
        (QUERY, '{"ResourceList": {"Subscription": ["12135551212"]}}', "not an object"),
        (CREATE, '{"ResourceReference": {"Location": "https://x"}}', "missing @ ResourceReference.Id"),
        (CREATE, "", "neither XML nor JSON"),
    ],
)
def test_a_success_of_the_wrong_shape_is_a_response_error(operation, body, reason):
    """It has the reason, method, path, status and body."""
    with pytest.raises(ResponseError) as caught:
        read(operation, body)

    error = caught.value
    assert reason in str(error)
    assert (error.method, error.path, error.status_code, error.body) == (
        operation.method,
        operation.path,
        200,
        body.encode(),
    )
    assert error.__cause__ is not None


@pytest.mark.parametrize("status", [100, 202, 204, 206, 301, 302, 303, 304, 307, 308, 600, 999])
@pytest.mark.parametrize("operation", [GET, CREATE], ids=str)
def test_an_undocumented_status_is_a_response_error(operation, status):
    """Redirects, undocumented successes and invalid codes."""
    with pytest.raises(ResponseError, match=r"redirects are never" if 300 <= status < 400 else "unexpected status"):
        read(operation, "", status)


def test_a_filter_with_half_of_a_surrogate_pair_is_left_out():
    """It cannot be sent again; the other fields of the subscription are readable."""
    filter_json = '{"FromNumber": "\\ud83d"}'
    body = f'{{"Resource": {{"Subscription": {{"@id": 1, "Enabled": true, "SubscriptionFilter": {filter_json}}}}}}}'

    subscription, problems = read(GET, body)

    assert subscription == Subscription(1, enabled=True)
    assert problems == (
        "from_number must not contain half of a surrogate pair @ Resource.Subscription.SubscriptionFilter",
    )


def test_a_page_with_too_many_unreadable_fields_is_a_response_error():
    """Reading stops after five thousand; the error lists ten."""
    page = b'{"ResourceList":{"Subscription":[' + b'{"@id":1,"Enabled":"x"},' * 6_000 + b'{"@id":2}]}}'

    with pytest.raises(ResponseError, match=r"Subscription\[9\].Enabled and 4991 more") as caught:
        read(QUERY, page)

    assert len(str(caught.value)) < 1_000


def test_a_response_that_is_too_long_is_an_error():
    """The error stores no more of it than the limit."""
    with pytest.raises(ResponseError, match="longer than 16777216 bytes") as caught:
        read(GET, b"x" * (MAX_BODY_BYTES + 1))

    assert len(caught.value.body) == MAX_BODY_BYTES


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP ", "deflate"])
def test_an_unexpected_compression_is_decoded(encoding):
    """A proxy may ignore Accept-Encoding."""
    compress = zlib.compress if encoding == "deflate" else gzip.compress
    body = compress(b'{"Resource": {"Subscription": {"@id": 1}}}')

    assert value(GET, body, content_encoding=encoding) == Subscription(1)


@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (gzip.compress(b" " * (MAX_BODY_BYTES + 1)), "gzip", "longer than"),
        (gzip.compress(b" " * 1000)[:-9], "gzip", "truncated"),
        (gzip.compress(b" " * MAX_BODY_BYTES)[:-1], "gzip", "truncated"),
        (b"plain", "gzip", "does not match its content encoding"),
        (b"plain", "br", "unsupported content encoding"),
        (gzip.compress(gzip.compress(b"{}")), "gzip, gzip", "unsupported content encoding"),
    ],
    ids=["too long", "cut short", "longest and cut short", "not compressed", "unknown", "twice"],
)
def test_an_invalid_compression_is_an_error(body, encoding, reason):
    """Bombs, truncated streams and unsupported encodings."""
    with pytest.raises(ResponseError, match=reason):
        read(GET, body, content_encoding=encoding)


def test_a_body_without_compression_may_say_so():
    """As ``identity``."""
    assert value(GET, '{"Resource": {"Subscription": {"@id": 1}}}', content_encoding="Identity") == Subscription(1)


def test_the_longest_body_is_read():
    """Up to and with the limit."""
    body = b'{"Resource": {"Subscription": {"@id": 1}}}'

    assert value(GET, body + b" " * (MAX_BODY_BYTES - len(body))) == Subscription(1)


def test_the_charset_of_the_content_type_is_used():
    """For a value and for the message of an error, which XML without a declaration does not name."""
    word = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    found = f"<Resource><Subscription id='1'><Endpoint>{word}</Endpoint></Subscription></Resource>"
    refused = f"<ResourceException><Message>{word}</Message></ResourceException>"
    latin = {"content_type": "application/xml; charset=iso-8859-1"}

    assert value(GET, found.encode("latin-1"), **latin).endpoint == word
    with pytest.raises(BadRequestError) as caught:
        read(GET, refused.encode("latin-1"), 400, **latin)
    assert caught.value.message == word


@pytest.mark.parametrize(
    ("status", "reason", "retry_safety"),
    [
        (299, "unexpected status code", RetrySafety.UNKNOWN),
        (300, "redirects are never followed", RetrySafety.POINTLESS),
        (399, "redirects are never followed", RetrySafety.POINTLESS),
        (600, "unexpected status code", RetrySafety.POINTLESS),
    ],
)
def test_a_status_that_is_neither_success_nor_error_is_named(status, reason, retry_safety):
    """Its request may have been executed if it is a success by its number."""
    with pytest.raises(ResponseError) as caught:
        read(GET, b"", status)

    assert str(caught.value) == f"GET /subscription/42 returned {status} (attempt 2): {reason}"
    assert retry_safety_of(caught.value) is retry_safety


@given(body=st.binary(max_size=300), status=st.integers(100, 599), operation=st.sampled_from(OPERATIONS))
def test_any_response_is_a_value_or_a_documented_error(body, status, operation):
    """For arbitrary bytes and statuses."""
    try:
        result, _ = read(operation, body, status)
    except (APIError, ResponseError):
        return

    assert result is None or isinstance(result, Page | Subscription | ResourceReference)


# --- errors -----------------------------------------------------------------------------------------------

KINDS = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: APIError,
    409: APIError,
    429: RateLimitError,
    500: ServerError,
    502: ServerError,
    503: ServerError,
    599: ServerError,
}


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize(("status", "kind"), KINDS.items())
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            '{"ResourceException": {"HttpStatus": 400, "Message": "TriggerEvent is required"}}',
            "TriggerEvent is required",
        ),
        (
            (
                f"<r:ResourceException {NAMESPACES}><r:HttpStatus>4</r:HttpStatus><r:Message> Not\r\nso </r:Message>"
                "</r:ResourceException>"
            ),
            "Not\nso",
        ),
        ('{"ResourceException": {"HttpStatus": 400}}', None),
        ('{"ResourceException": {"Message": {"a": 1}}}', None),
        ('{"Resource": {"Message": "no exception"}}', None),
        ("<html><body><h1>502 Bad Gateway</h1></body></html>", None),
        ("<!DOCTYPE html><html><br></html>", None),
        ("", None),
        ("\x00\xff", None),
    ],
)
def test_an_error_status_is_a_typed_error_with_any_body(operation, status, kind, body, message):
    """With CallFire's message if either format contains one."""
    with pytest.raises(CallFireError) as caught:
        read(operation, body, status)

    error = caught.value
    assert type(error) is kind
    assert (error.status_code, error.message, error.body) == (status, message, body.encode())
    assert (error.method, error.path, error.attempts) == (operation.method, operation.path, 2)
    assert error.request_id == operation.request_id


def test_an_error_names_the_request_and_the_remedy():
    """In one line."""
    with pytest.raises(AuthenticationError) as caught:
        read(GET, '{"ResourceException": {"Message": "Unauthorized"}}', 401)

    assert str(caught.value) == (
        "GET /subscription/42 returned 401 (attempt 2): Unauthorized: check the API login and password"
    )


def test_an_error_with_a_corrupt_body_is_typed():
    """By its status."""
    with pytest.raises(ServerError) as caught:
        read(GET, b"plain", 503, content_encoding="gzip", retry_after="7")

    assert (caught.value.message, caught.value.retry_after) == (None, 7.0)


@pytest.mark.parametrize(
    ("message", "masked"),
    [
        ("TriggerEvent is required", "TriggerEvent is required"),
        ("NotificationFormat OUTBOUND_TEXT_FINISHED", "NotificationFormat OUTBOUND_TEXT_FINISHED"),
        ("MaxResults must be 1 to 1000", "MaxResults must be 1 to 1000"),
        ("12135551212 is no number", "***12 is no number"),
        ("number +1 (213) 555-1212, please", "number ***12, please"),
        ("FromNumber=(213)555.1212", "FromNumber=***12"),
        ("at https://u:pw@h.example/callfire/Tok3n?x=1 now", "at https://***@h.example/callfire/***?*** now"),
        ('at "https://h.example/callfire/Tok3n" now', "at *** now"),
        ("to someone@example.com", "to ***@example.com"),
        ("to a@12135551212 or https://h.example/12135551212/a", "to ***@***12 or https://h.example/***12/***"),
        ("path /callfire/hunter2 there", "path *** there"),
        ("token Abcdefgh12345678-_x", "token ***"),
        ("long " + "word " * 100, "long " + "word " * 58 + "..."),
        ("words " + "word " * 59, "words " + "word " * 58 + "word"),
        ("wordss " + "word " * 59, "wordss " + "word " * 58 + "..."),
        ("word " * 57 + "Abcdefgh-Tok3n12345678", "word " * 57 + "..."),
        ("see 'https://h.example/callfire/Tok3n'", "see ***"),
        ("number '12135551212' is wrong", "number '***12' is wrong"),
        ("x" * 5000, "..."),
        ("https://[::1 is no URL", "*** is no URL"),
    ],
)
def test_callfires_message_is_masked_in_the_text_of_an_error(message, masked):
    """It may quote the request; the attribute is unmasked."""
    assert redact(message) == masked


def test_an_error_has_the_request_and_the_number_of_attempts():
    """So that a log of it says what failed."""
    with pytest.raises(RateLimitError) as caught:
        read(CREATE, b"", 429, retry_after="7")

    error = caught.value
    assert (error.method, error.path, error.request_id) == ("POST", "/subscription", "0123456789abcdef")
    assert (error.status_code, error.attempts, error.retry_after, error.body) == (429, 2, 7.0, b"")


@pytest.mark.parametrize("retry_after", [None, MAX_RETRY_AFTER_SECONDS, MAX_RETRY_AFTER_SECONDS + 1])
def test_texts_and_calls_are_never_sent_again_after_a_response(retry_after):
    """Not even after a 429; another operation is repeated after one, unless the wait is too long."""
    with pytest.raises(RateLimitError) as caught:
        read(CREATE, b"", 429, retry_after=None if retry_after is None else str(retry_after))

    def is_repeated(operation):
        asked = caught.value.retry_after
        return should_retry(operation, caught.value, RetrySafety.SAFE, retry_after=asked, is_recoverable=False)

    sent = send_text({"to": ["12135551212"], "message": "hello"})
    assert not is_repeated(sent)
    assert is_repeated(CREATE) == ((retry_after or 0) <= MAX_RETRY_AFTER_SECONDS)


@given(st.text(alphabet="0123456789+-(). /:@abcXYZ_", max_size=60))
def test_no_long_number_survives_masking(message):
    """Five digits in a row count as a phone number."""
    import re

    assert not re.search(r"(?<![a-zA-Z_-])[0-9]{5}", redact(message).replace("***", ""))


# --- retries ----------------------------------------------------------------------------------------------


def raised(status, operation=GET, **rest):
    """Return the error for a status."""
    with pytest.raises(CallFireError) as caught:
        read(operation, "", status, **rest)
    return caught.value


@pytest.mark.parametrize(
    ("status", "retry_safety"),
    [
        (200, RetrySafety.UNKNOWN),
        (202, RetrySafety.UNKNOWN),
        (302, RetrySafety.POINTLESS),
        (400, RetrySafety.POINTLESS),
        (401, RetrySafety.POINTLESS),
        (404, RetrySafety.POINTLESS),
        (409, RetrySafety.POINTLESS),
        (429, RetrySafety.SAFE),
        (500, RetrySafety.UNKNOWN),
        (503, RetrySafety.UNKNOWN),
    ],
)
def test_the_retry_safety_of_an_error_depends_on_its_status(status, retry_safety):
    """A 429 was not executed; a 5xx or an unreadable success may have been."""
    assert retry_safety_of(raised(status)) is retry_safety


def test_the_retry_safety_of_a_transport_error_is_not_derived():
    """Only the transport knows how much was sent."""
    assert retry_safety_of(TransportError("", method="GET", path="/")) is RetrySafety.POINTLESS


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("Mon, 06 May 2024 07:08:39 GMT", 30.0),
        ("Monday, 06-May-24 07:08:39 GMT", 30.0),
        ("Mon May  6 07:08:39 2024", 30.0),
        ("Mon, 06 May 2024 09:08:39 +0200", 30.0),
        ("Sun, 05 May 2024 07:08:39 GMT", 0.0),
        ("Mon, 06 May 9999 07:08:39 GMT", 31536000.0),
        ("99999999999999999999", 31536000.0),
        ("9" * 400, 31536000.0),
        ("soon", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("٣", None),
        ("Mon, 32 May 2024 07:08:39 GMT", None),
        ("Mon, 06 May 2024 07:08:39 +99999999999999", None),
        ("Mon, 01 Jan 0001 00:00:00 +0800", 0.0),
        ("1, 2", None),
    ],
)
def test_retry_after_is_parsed_in_every_form(header, seconds):
    """Past dates are 0, absurd values a year, and anything else None."""
    assert parse_retry_after(header, NOW) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_harmless(header):
    """The result is a number from 0 to a year, or None."""
    seconds = parse_retry_after(header, NOW)

    assert seconds is None or 0 <= seconds <= 31536000


@given(st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)))
def test_a_date_in_retry_after_is_relative_to_now(moment):
    """In seconds from the given time."""
    expected = min(max((moment - NOW) / timedelta(seconds=1), 0), 31536000)

    assert parse_retry_after(format_datetime(moment, usegmt=True), NOW) == expected


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone of a process cannot be set")
def test_a_date_without_a_time_zone_is_in_utc(monkeypatch):
    """Whatever the time zone of the machine is."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert parse_retry_after("Mon May  6 07:08:39 2024", NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("attempt", "maximum"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 16.0), (7, 16.0), (9999, 16.0)]
)
def test_the_delay_doubles_up_to_a_maximum(attempt, maximum):
    """With full jitter, so that clients do not retry in step."""
    assert [retry_delay(attempt, None, lambda draw=draw: draw) for draw in (0.0, 0.5, 1.0)] == [
        0.0,
        maximum / 2,
        maximum,
    ]


def test_retry_after_replaces_the_backoff():
    """It is the delay."""
    assert retry_delay(5, 3.5, lambda: 1.0) == 3.5


# --- equal subscriptions ----------------------------------------------------------------------------------


EXPIRY = datetime(2100, 1, 1, tzinfo=UTC)


def found(**changes):
    """Return the subscription that CREATE makes."""
    fields = {
        "id": 1,
        "endpoint": "https://hooks.example.com/callfire/secret",
        "trigger_event": TriggerEvent.OUTBOUND_TEXT_FINISHED,
        "filter": SubscriptionFilter(broadcast_id=5, to_number="67076:KEYWORD"),
    }
    return Subscription(**fields | changes)


@pytest.mark.parametrize(
    ("subscription", "same"),
    [
        (found(), True),
        (found(enabled=False, notification_format=NotificationFormat.XML, non_strict_ssl=True), True),
        (found(filter=SubscriptionFilter(broadcast_id=5, to_number=" 67076:keyword")), True),
        (found(endpoint="https://hooks.example.com/callfire/other"), False),
        (found(endpoint=None), False),
        (found(trigger_event=TriggerEvent.INBOUND_TEXT_FINISHED), False),
        (found(trigger_event=None), False),
        (found(filter=None), False),
        (found(filter=SubscriptionFilter(broadcast_id=6, to_number="67076:KEYWORD")), False),
        (found(filter=SubscriptionFilter(broadcast_id=5, to_number="67076:KEYWORD", batch_id=1)), False),
    ],
)
def test_subscriptions_are_compared_by_endpoint_trigger_and_filter(subscription, same):
    """Other fields, and the format of numbers, do not matter."""
    assert same_subscription(CREATE.form, subscription) is same


def test_numbers_are_compared_by_their_digits():
    """CallFire may leave out separators."""
    wanted = create_subscription(VALID | {"filter": SubscriptionFilter(from_number="+1 (213) 555-1212")}).form
    subscription = Subscription(1, **VALID, filter=SubscriptionFilter(from_number="12135551212"))

    assert same_subscription(wanted, subscription)


def test_no_filter_equals_an_empty_one():
    """CallFire returns either."""
    subscription = Subscription(1, **VALID, filter=SubscriptionFilter())

    assert same_subscription(create_subscription(VALID).form, subscription)


@pytest.mark.parametrize(
    ("changes", "took_effect"),
    [
        ({"filter": SubscriptionFilter(to_number="67076:keyword")}, True),
        ({"enabled": True, "notification_format": NotificationFormat.XML, "request_id": "r"}, True),
        ({}, True),
        ({"enabled": False}, False),
        ({"notification_format": NotificationFormat.JSON}, False),
        ({"non_strict_ssl": False}, False),
        ({"endpoint": "https://hooks.example.com/callfire/other"}, False),
        ({"enabled": True, "filter": SubscriptionFilter(batch_id=7)}, False),
    ],
)
def test_an_update_took_effect_if_all_its_values_are_there(changes, took_effect):
    """Other fields do not matter."""
    subscription = found(enabled=True, notification_format=NotificationFormat.XML)

    assert matches_update(update_subscription(1, changes).form, subscription) is took_effect


@pytest.mark.parametrize(
    ("expires_at", "took_effect"), [(None, True), (EXPIRY, True), (EXPIRY.replace(year=2101), False)]
)
def test_the_end_of_a_subscription_is_compared_if_callfire_returns_it(expires_at, took_effect):
    """It is not known to."""
    form = update_subscription(1, {"expires_at": EXPIRY}).form

    assert form == {"ExpiresAt": "4102444800000"}
    assert matches_update(form, found(expires_at=expires_at)) is took_effect


def test_the_text_of_an_operation_is_method_and_path():
    """As in logs and errors."""
    assert str(Operation("GET", "/text/7", lambda *_: (None, ()))) == "GET /text/7"
