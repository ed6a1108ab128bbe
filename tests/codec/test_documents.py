"""Bytes to plain mappings and back: every format alike, and nothing hostile gets through."""

import codecs
import json
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfire_async._codec.documents import (
    DATA,
    MAX_DEPTH,
    MAX_ELEMENTS,
    MAX_NAMESPACE_LENGTH,
    MAX_UNKNOWN_NAMES,
    NOTIFICATION,
    RESOURCE,
    SOAP_11,
    SOAP_12,
    InvalidDocumentError,
    UnexpectedDocumentError,
    canonicalize,
    fingerprint,
    read,
    read_form,
    write_form,
    write_json,
    write_xml,
)
from callfire_async._codec.scalars import format_scalar, normalize

# --- documents --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ('{"Resource": {"Subscription": {"@id": 1}}}', ("Resource", {"Subscription": {"@id": 1}})),
        ('{"Anything": {}}', ("Anything", {})),
        ('{"a": {"b": [1, 1.5, 1e3, true, null]}}', ("a", {"b": [1, 1.5, 1000.0, True, None]})),
        (
            (
                f'<r:Resource xmlns="{DATA}" xmlns:r="{RESOURCE}"><Subscription id="1"><Enabled>true</Enabled>'
                "</Subscription></r:Resource>"
            ),
            ("Resource", {"Subscription": {"@id": "1", "Enabled": "true"}}),
        ),
        (
            f'<q:ResourceReference xmlns:q="{RESOURCE}"><q:Id>12<!-- and -->34</q:Id></q:ResourceReference>',
            ("ResourceReference", {"Id": "1234"}),
        ),
        ("<Resource/>", ("Resource", {})),
        ("<Resource>  </Resource>", ("Resource", {})),
        ("<Resource>text</Resource>", ("Resource", {"#text": "text"})),
        (
            '<a xmlns="urn:x" xmlns:y="urn:y"><y:b y:c="1">t</y:b><b/></a>',
            ("a", {"b": [{"@c": "1", "#text": "t"}, None]}),
        ),
        ("<a><![CDATA[<!DOCTYPE z>]]></a>", ("a", {"#text": "<!DOCTYPE z>"})),
        ("<a>&lt;&#233;&amp;</a>", ("a", {"#text": "<é&"})),
        (" \n<?xml version='1.0'?><a/>", ("a", {})),
        (
            '<?xml-stylesheet href="x"?><a xmlns:s="urn:s" s:schemaLocation="urn:x y"/>',
            ("a", {"@schemaLocation": "urn:x y"}),
        ),
    ],
)
@pytest.mark.parametrize("as_text", [False, True], ids=["bytes", "text"])
def test_a_document_becomes_its_root_and_what_stands_in_it(document, expected, as_text):
    """Attributes with an @, repeated elements as lists, neither prefixes nor declarations of them."""
    assert read(document if as_text else document.encode()) == expected


@pytest.mark.parametrize("soap", [SOAP_11, SOAP_12])
def test_what_a_soap_envelope_holds_is_read(soap):
    """Header and namespaces are left behind."""
    document = (
        f'<s:Envelope xmlns:s="{soap}"><s:Header><x/></s:Header><s:Body s:encodingStyle="">'
        f'<n:CallFinished xmlns:n="{NOTIFICATION}" xmlns="{DATA}"><Call id="1"/></n:CallFinished></s:Body></s:Envelope>'
    )

    assert read(document) == ("CallFinished", {"Call": {"@id": "1"}})


@pytest.mark.parametrize(
    "inside",
    ["", "text", "<Body/>", "<Body>text</Body>", "<Body><a/><b/></Body>", "<Body><a/><a/></Body>", "<Header/>"],
)
def test_a_soap_envelope_holds_one_element(inside):
    """None, two or two of a kind are no document."""
    with pytest.raises(UnexpectedDocumentError, match="SOAP"):
        read(f"<Envelope>{inside}</Envelope>")


@pytest.mark.parametrize("page", ["<html><body/></html>", "<HTML/>", '<html xmlns="http://www.w3.org/1999/xhtml"/>'])
def test_a_page_of_html_is_no_document(page):
    """Well-formed or not."""
    with pytest.raises(UnexpectedDocumentError, match="HTML"):
        read(page)


@pytest.mark.parametrize(
    "tree", ["null", "1", '"text"', "[]", '[{"a": {}}]', "{}", '{"a": {}, "b": {}}', '{"a": []}', '{"a": 1}']
)
def test_json_is_one_named_object(tree):
    """Anything else is well-formed, and nothing to us."""
    with pytest.raises(UnexpectedDocumentError):
        read(tree)


def test_the_last_of_two_keys_counts():
    """As JSON parsers have it."""
    assert read('{"a": {"b": 1, "b": 2}}') == ("a", {"b": 2})


# --- encodings --------------------------------------------------------------------------------------------

XML = "<a>é</a>"
READ = ("a", {"#text": "é"})


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (XML.encode(), None),
        (codecs.BOM_UTF8 + b" " + XML.encode(), None),
        (XML.encode("utf-16"), None),
        (codecs.BOM_UTF16_BE + XML.encode("utf-16-be"), None),
        (XML.encode("utf-16-be"), None),
        (XML.encode("utf-16-le"), None),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?>' + XML.encode("latin-1"), None),
        (b'<?xml version="1.0" encoding="windows-1252"?>' + XML.encode("cp1252"), None),
        (b'<?xml version="1.0" encoding="UTF-8"?>' + XML.encode(), "text/xml; charset=ISO-8859-1"),
        (XML.encode("latin-1"), "text/xml; charset=ISO-8859-1"),
        (XML.encode("cp1252"), 'text/xml; Charset="windows-1252"'),
        (XML.encode(), "text/xml; charset=ISO-8859-1"),
        (XML.encode(), "text/xml; charset=rot13"),
        (XML.encode(), "application/json"),
    ],
)
def test_the_body_and_then_the_content_type_say_the_encoding(body, content_type):
    """What is valid UTF-8 is UTF-8, whatever the header says."""
    assert read(body, content_type) == READ


def test_text_has_no_encoding():
    """What its declaration names is ignored."""
    assert read(f'\ufeff<?xml version="1.0" encoding="utf-16"?>{XML}') == READ


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_json_in_any_of_its_encodings(encoding):
    """With a byte order mark or without."""
    assert read('{"a": {"#text": "é"}}'.encode(encoding)) == READ


# --- hostile and broken -----------------------------------------------------------------------------------

DTD = "<!DOCTYPE z [{}]><z>&e;</z>"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("<!DOCTYPE z><z/>", "DOCTYPE"),
        (DTD.format('<!ENTITY e "e">'), "DOCTYPE"),
        (DTD.format('<!ENTITY e SYSTEM "file:///etc/passwd">'), "DOCTYPE"),
        (DTD.format('<!ENTITY % p SYSTEM "file:///etc/passwd">%p;'), "DOCTYPE"),
        (DTD.format('<!ATTLIST z admin CDATA "true">'), "DOCTYPE"),
        ('<!DOCTYPE z SYSTEM "http://127.0.0.1:9/x"><z/>', "DOCTYPE"),
        ("<!DOCTYPE z><z/>".encode("utf-16"), "DOCTYPE"),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?><!DOCTYPE z><z/>', "DOCTYPE"),
        ("<z>&unknown;</z>", "undefined entity"),
        ("<z>" + "<a/>" * MAX_ELEMENTS + "</z>", "too many"),
        ("<z " + " ".join(f"a{number}=''" for number in range(2 * MAX_ELEMENTS + 1)) + "/>", "too many"),
        ("<a>" * (MAX_DEPTH + 2) + "</a>" * (MAX_DEPTH + 2), "too deeply"),
        ("<a>" * 4_000 + "</a>" * 4_000, "too deeply"),
        (f"<z xmlns='{'u' * 900_000}'>{'<a/>' * 100}</z>", "namespace that is too long"),
        (
            f"<z xmlns:q='{'u' * 900_000}' " + " ".join(f"q:a{n}=''" for n in range(100)) + "/>",
            "namespace that is too long",
        ),
        ("<z>" + "".join(f"<a{n} xmlns='u'/>" for n in range(MAX_UNKNOWN_NAMES + 1)) + "</z>", "unknown names"),
        ("<a>&#0;</a>", "invalid XML"),
        (b"<a>\xff</a>", "invalid XML"),
        (b"<a>\xc0\xbc</a>", "invalid XML"),
        (b"<a>\xed\xa0\x80</a>", "invalid XML"),
        (b"<a>\0</a>", "invalid XML"),
        ("<a>\ud800</a>", "lone surrogate"),
        (codecs.BOM_UTF16_LE + b"<", "not valid UTF-16"),
        (b'<?xml version="1.0" encoding="utf-7"?><a/>', "encoding"),
        (b'<?xml version="1.0" encoding="rot13"?><a/>', "encoding"),
        (b'<?xml version="1.0" encoding="Shift_JIS"?><a/>', "encoding"),
        (b"<a>\x81</a>", "invalid XML"),
        ("<a/><b/>", "invalid XML"),
        ("<a", "invalid XML"),
        ("<a></b>", "invalid XML"),
        ('<a b="1" b="2"/>', "invalid XML"),
        ("<!DOCTYPE html><html><br></html>", "DOCTYPE"),
        ("<", "invalid XML"),
        ("", "neither XML nor JSON"),
        ("  ", "neither XML nor JSON"),
        ("hello", "neither XML nor JSON"),
        ("{", "neither XML nor JSON"),
        ('{"a": {}} trailing', "neither XML nor JSON"),
        ('{"a": {"b": NaN}}', "NaN and Infinity are not allowed"),
        ('{"a": {"b": -Infinity}}', "NaN and Infinity are not allowed"),
        ('{"a": {"b": 1e999}}', "out of range"),
        ('{"a": {"b": ' + "9" * 4301 + "}}", "out of range"),
        ('{"a": ' * 1_100 + "1" + "}" * 1_100, "out of range|too deeply"),
        ("[" * 1_000_000, "too many"),
        ('{"a": {"b": ' + "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2) + "}}", "too deeply"),
        ('{"a": {"b": [' + "1," * (2 * MAX_ELEMENTS + 1) + "1]}}", "too many"),
        (b'{"a": {"b": "\xe9"}}', "not valid UTF-8"),
    ],
)
def test_what_is_broken_or_made_to_do_harm_is_no_document(body, reason):
    """It is refused in our words, which quote nothing."""
    with pytest.raises(InvalidDocumentError, match=reason) as caught:
        read(body)

    assert "passwd" not in str(caught.value)


def test_a_wrong_charset_in_the_header_is_said():
    """Bytes that the named encoding does not have."""
    with pytest.raises(InvalidDocumentError, match="not valid WINDOWS-1252"):
        read(b"<a>\x81\xff</a>", "text/xml; charset=windows-1252")


@pytest.mark.parametrize(
    "document",
    [
        "<z>" + "<a/>" * (MAX_ELEMENTS - 2) + "</z>",
        "<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH,
        '{"a": ' * MAX_DEPTH + "{}" + "}" * MAX_DEPTH,
        f"<z xmlns='{'u' * MAX_NAMESPACE_LENGTH}'>{'<a/>' * 9_000}</z>",
        f"<z xmlns:q='{'u' * 100_000}'><a/></z>",
        "<z>" + "".join(f"<a{n} xmlns='u'/>" for n in range(MAX_UNKNOWN_NAMES - 1)) + "</z>",
        '{"a": {"b": [' + "1," * 19_000 + "1]}}",
        '{"a": {"b": "' + "{" * 1000 + '", "c": [[1], [2]]}}',
    ],
)
def test_what_is_within_the_limits_is_read(document):
    """The guards do not bite anything real."""
    assert read(document)


def test_a_longer_document_is_read_where_it_is_expected():
    """Who knows where it comes from can raise the limit."""
    document = "<z>" + "<a/>" * MAX_ELEMENTS + "</z>"

    assert len(read(document, max_elements=2 * MAX_ELEMENTS)[1]["a"]) == MAX_ELEMENTS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32-be"])
def test_white_space_stands_on_both_sides_of_a_json_document(encoding):
    """Whatever it is encoded in."""
    assert read(' \r\n\t{"a": {"b": 1}} \r\n\t'.encode(encoding)) == ("a", {"b": 1})


def test_what_stands_after_a_json_document_is_said_where_it_begins():
    """White space is passed over and counted; it may have come in before, where nobody strips it."""
    with pytest.raises(InvalidDocumentError, match=r"at line 2, column 2"):
        read('{"a": {}}\n {}')
    with pytest.raises(InvalidDocumentError, match=r"at line 3, column 2"):
        read('\n{"a": {}}\n {}'.encode("utf-16-be"))


def test_a_broken_document_is_said_where_it_breaks():
    """Line and column, from 1."""
    with pytest.raises(InvalidDocumentError, match=r"mismatched tag at line 2, column 3"):
        read("<a>\n</b>")
    with pytest.raises(InvalidDocumentError, match=r"at line 2, column 1"):
        read('{"a":\nx}')


@given(st.binary(max_size=200), st.one_of(st.none(), st.sampled_from(["text/xml; charset=latin-1", "charset=cp1252"])))
def test_any_bytes_are_a_document_or_none(body, content_type):
    """No other exception comes out."""
    try:
        root, content = read(body, content_type)
    except InvalidDocumentError:
        return

    assert isinstance(root, str)
    assert isinstance(content, dict)


@given(st.text(alphabet="<>/ab&;!?[]\"'= {}:,1\ufeff\ud800\0é", max_size=60))
def test_any_text_is_a_document_or_none(body):
    """Neither from text."""
    try:
        read(body)
    except InvalidDocumentError:
        return


# --- writing ----------------------------------------------------------------------------------------------


def test_xml_is_written_with_its_prefixes():
    """A parser of somebody else's reads it."""
    tree = {"r:Resource": {"@xmlns:r": RESOURCE, "@xmlns": DATA, "Subscription": [{"@id": 1}, {"@id": 2}]}}

    root = ET.fromstring(write_xml(tree))

    assert root.tag == f"{{{RESOURCE}}}Resource"
    assert [(item.tag, item.get("id")) for item in root] == [(f"{{{DATA}}}Subscription", number) for number in "12"]


def test_json_is_written_as_callfire_words_it():
    """Text beside attributes stands under `value`; letters beyond ASCII stay."""
    tree = {"a": {"b": [{"@c": 1, "#text": "é"}], "d": True}}

    assert write_json(tree).decode() == '{"a":{"b":[{"@c":1,"value":"é"}],"d":true}}'


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))))
def test_a_form_says_what_it_was_given(fields):
    """Any text survives."""
    assert read_form(write_form(fields)) == fields


def test_of_a_repeated_field_the_last_stays():
    """And an empty one is there."""
    assert read_form(b"a=1&a=2&b=") == {"a": "2", "b": ""}


words = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1).map(str.strip).filter(bool)


@given(st.dictionaries(st.sampled_from(["a", "b", "@c"]), words, max_size=3))
def test_what_is_written_is_read(content):
    """In XML and in JSON alike."""
    assert read(write_xml({"root": content})) == read(write_json({"root": content})) == ("root", content)


# --- what two documents have in common --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": "1"}),
        ({"a": True}, {"a": " true "}),
        ({"a": [1]}, {"a": 1}),
        ({"a": None}, {}),
        ({"a": ""}, {}),
        ({"a": {}}, {}),
        ({"a": []}, {}),
        ({"a": [None, 1]}, {"a": "1"}),
        ({"a": {"value": "x", "@b": 1}}, {"a": {"#text": "x", "@b": "1"}}),
        ({"a": {"value": "x"}}, {"a": "x"}),
        ({"a": 1, "b": 2}, {"b": "2", "a": "1"}),
        ({"a": "x\r\ny"}, {"a": "x\ny\n"}),
    ],
)
def test_what_says_the_same_is_worded_alike(one, other):
    """Whatever format it came in."""
    assert canonicalize(one) == canonicalize(other)
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": 1}, {"a": 2}), ({"a": [1, 2]}, {"a": [2, 1]}), ({"a": 1}, {"b": 1}), ({"a": {"b": 1}}, {"a": 1})],
)
def test_what_says_something_else_is_worded_otherwise(one, other):
    """The order of repeated elements counts."""
    assert canonicalize(one) != canonicalize(other)
    assert fingerprint(one) != fingerprint(other)


def test_a_fingerprint_is_a_sha_256():
    """Of the canonical form, the same for ever."""
    assert json.loads(canonicalize({"b": 1, "a": None})) == {"b": "1"}
    assert fingerprint({"b": 1}) == "1a0d01b57c7c0313b1a54ee9a538d7f37edf9b93a14afbd81689d1e0f7919acf"


@pytest.mark.parametrize(
    ("value", "word"), [("x", "x"), (None, ""), (True, "true"), (False, "false"), (42, "42"), (1.5, "1.5")]
)
def test_a_scalar_is_worded_as_in_xml(value, word):
    """Booleans are small, nothing is nothing."""
    assert format_scalar(value) == word


@pytest.mark.parametrize(
    ("text", "kept"),
    [("x", "x"), (" x\t", "x"), ("a\r\nb\rc\nd", "a\nb\nc\nd"), ("", None), (" \r\n ", None), ("a  b", "a  b")],
)
def test_text_is_normalised(text, kept):
    """One kind of line end, no white space around it, and None for nothing."""
    assert normalize(text) == kept
