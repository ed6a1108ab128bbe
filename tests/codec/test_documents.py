"""Tests of reading and writing XML, JSON, SOAP and forms, and of the limits for hostile input."""

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
def test_a_document_is_read_as_its_root_and_content(document, expected, as_text):
    """Attributes have an @, repeated elements are lists, and there are no prefixes or their declarations."""
    assert read(document if as_text else document.encode()) == (*expected, ())


@pytest.mark.parametrize("soap", [SOAP_11, SOAP_12])
def test_the_content_of_a_soap_envelope_is_read(soap):
    """The header and the namespaces are dropped."""
    document = (
        f'<s:Envelope xmlns:s="{soap}"><s:Header><x/></s:Header><s:Body s:encodingStyle="">'
        f'<n:CallFinished xmlns:n="{NOTIFICATION}" xmlns="{DATA}"><Call id="1"/></n:CallFinished></s:Body></s:Envelope>'
    )

    assert read(document) == ("CallFinished", {"Call": {"@id": "1"}}, ())


@pytest.mark.parametrize(
    "inside",
    ["", "text", "<Body/>", "<Body>text</Body>", "<Body><a/><b/></Body>", "<Body><a/><a/></Body>", "<Header/>"],
)
def test_a_soap_body_must_have_exactly_one_element(inside):
    """No element, two elements and text are errors."""
    with pytest.raises(UnexpectedDocumentError, match="SOAP"):
        read(f"<Envelope>{inside}</Envelope>")


@pytest.mark.parametrize("page", ["<html><body/></html>", "<HTML/>", '<html xmlns="http://www.w3.org/1999/xhtml"/>'])
def test_an_html_page_is_an_error(page):
    """The root is compared without case."""
    with pytest.raises(UnexpectedDocumentError, match="HTML"):
        read(page)


@pytest.mark.parametrize(
    "tree", ["null", "1", '"text"', "[]", '[{"a": {}}]', "{}", '{"a": {}, "b": {}}', '{"a": []}', '{"a": 1}']
)
def test_json_must_be_one_named_object(tree):
    """Any other well-formed JSON is an error."""
    with pytest.raises(UnexpectedDocumentError):
        read(tree)


def test_the_last_of_duplicate_keys_wins():
    """As in the json module."""
    assert read('{"a": {"b": 1, "b": 2}}') == ("a", {"b": 2}, ())


# --- encodings --------------------------------------------------------------------------------------------

XML = "<a>é</a>"
READ = ("a", {"#text": "é"}, ())


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
        (b'<?xml version="1.0" encoding="latin1"?>' + XML.encode("latin-1"), None),
        (b'<?xml version="1.0" encoding="UTF8"?>' + XML.encode(), None),
        (b'<?xml version="1.0" encoding="utf-16"?>' + XML.encode(), None),
        (codecs.BOM_UTF8 + b'<?xml version="1.0" encoding="latin1"?>' + XML.encode(), None),
        (b"<?xml version='1.0'?>" + XML.encode("latin-1"), "text/xml; charset=ISO8859_1"),
        (b"<?xml version='1.0' standalone='yes'".ljust(300) + b"?>" + XML.encode("latin-1"), "charset=latin1"),
    ],
)
def test_the_encoding_comes_from_the_body_or_else_the_content_type(body, content_type):
    """A body that is valid UTF-8 is read as UTF-8, whatever the header declares."""
    assert read(body, content_type) == READ


def test_a_declared_encoding_is_never_looked_up(monkeypatch):
    """Not even the names in the table of encodings, nor the charset of a content type."""
    looked_up: list[str] = []
    monkeypatch.setattr(codecs, "lookup", looked_up.append)

    for name in ("rot13", "zlib", "x" * 1_000):
        with pytest.raises(InvalidDocumentError, match="encoding"):
            read(f'<?xml version="1.0" encoding="{name}"?><a/>'.encode(), f"text/xml; charset={name}")

    assert looked_up == []


def test_the_declared_encoding_of_text_is_ignored():
    """Text is decoded already."""
    assert read(f'\ufeff<?xml version="1.0" encoding="utf-16"?>{XML}') == READ


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_json_in_each_encoding(encoding):
    """With or without a byte order mark."""
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
        ("<a>&#8;&#0;</a>", "invalid XML"),
        ("<a>" + "&#8;" * (2 * MAX_ELEMENTS + 1) + "</a>", "too many references"),
        ("<a>&#8;</b>", "mismatched tag"),
        (b'<?xml version="1.0" encoding="latin1"?><!DOCTYPE z><z/>', "DOCTYPE"),
        (b'<?xml version="1.0" encoding="ascii"?><a>\xe9</a>', "not valid US-ASCII"),
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
def test_broken_and_hostile_bodies_are_rejected(body, reason):
    """The message quotes nothing of the body."""
    with pytest.raises(InvalidDocumentError, match=reason) as caught:
        read(body)

    assert "passwd" not in str(caught.value)


def test_a_body_that_does_not_match_its_charset_is_rejected():
    """Windows-1252 does not define all bytes."""
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
def test_documents_within_the_limits_are_read(document):
    """Real documents are far below the limits."""
    assert read(document)


def test_the_limit_of_elements_can_be_raised():
    """The client does so for lists."""
    document = "<z>" + "<a/>" * MAX_ELEMENTS + "</z>"

    assert len(read(document, max_elements=2 * MAX_ELEMENTS)[1]["a"]) == MAX_ELEMENTS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32-be"])
def test_white_space_around_json_is_ignored(encoding):
    """In every encoding."""
    assert read(' \r\n\t{"a": {"b": 1}} \r\n\t'.encode(encoding)) == ("a", {"b": 1}, ())


def test_the_error_for_trailing_data_has_its_position():
    """White space counts for the position unless it was stripped from the start."""
    with pytest.raises(InvalidDocumentError, match=r"at line 2, column 2"):
        read('{"a": {}}\n {}')
    with pytest.raises(InvalidDocumentError, match=r"at line 3, column 2"):
        read('\n{"a": {}}\n {}'.encode("utf-16-be"))


def test_a_parse_error_has_its_position():
    """Lines and columns start at 1."""
    with pytest.raises(InvalidDocumentError, match=r"mismatched tag at line 2, column 3"):
        read("<a>\n</b>")
    with pytest.raises(InvalidDocumentError, match=r"at line 2, column 1"):
        read('{"a":\nx}')


@given(st.binary(max_size=200), st.one_of(st.none(), st.sampled_from(["text/xml; charset=latin-1", "charset=cp1252"])))
def test_any_bytes_are_a_document_or_our_error(body, content_type):
    """No other exception is raised."""
    try:
        root, content, _ = read(body, content_type)
    except InvalidDocumentError:
        return

    assert isinstance(root, str)
    assert isinstance(content, dict)


@given(st.text(alphabet="<>/ab&;!?[]\"'= {}:,1\ufeff\ud800\0é", max_size=60))
def test_any_text_is_a_document_or_our_error(body):
    """No other exception is raised."""
    try:
        read(body)
    except InvalidDocumentError:
        return


# --- writing ----------------------------------------------------------------------------------------------


def test_xml_is_written_with_its_prefixes():
    """Another parser reads the namespaces."""
    tree = {"r:Resource": {"@xmlns:r": RESOURCE, "@xmlns": DATA, "Subscription": [{"@id": 1}, {"@id": 2}]}}

    root = ET.fromstring(write_xml(tree))

    assert root.tag == f"{{{RESOURCE}}}Resource"
    assert [(item.tag, item.get("id")) for item in root] == [(f"{{{DATA}}}Subscription", number) for number in "12"]


def test_json_is_written_in_callfires_style():
    """Text beside attributes is under `value`; non-ASCII characters are not escaped."""
    tree = {"a": {"b": [{"@c": 1, "#text": "é"}], "d": True}}

    assert write_json(tree).decode() == '{"a":{"b":[{"@c":1,"value":"é"}],"d":true}}'


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))))
def test_a_form_can_be_read_back(fields):
    """Any text is preserved."""
    assert read_form(write_form(fields)) == fields


def test_the_last_value_of_a_repeated_field_wins():
    """An empty value is kept."""
    assert read_form(b"a=1&a=2&b=") == {"a": "2", "b": ""}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a\x08b", "a\ufffdb"),
        ("a\0b", "a\ufffdb"),
        ("a\ud83db", "a\ufffdb"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\ufffe\uffff", "\ufffd\ufffd"),
    ],
)
def test_any_text_is_written_as_xml_that_every_parser_reads(text, written):
    """Surrogates are combined, and what XML forbids is replaced, in elements and attributes."""
    root = ET.fromstring(write_xml({"a": {"@b": text, "#text": text}}))

    assert (root.text, root.get("b")) == (written, written)


@pytest.mark.parametrize("name", ["", "1", "a\x08", "a\ud83d", "a b", "a<", "a&", "é\0", "a:b"])
def test_xml_is_not_written_with_a_name_that_is_not_one(name):
    """No parser could read the document."""
    with pytest.raises(ValueError, match="name"):
        write_xml({name: "text"})


@pytest.mark.parametrize("name", ["1.5", ":a", "-", "a:b"])
def test_xml_is_not_written_with_a_name_that_has_no_namespace(name):
    """A parser that knows namespaces could not read the document, although its syntax is valid."""
    with pytest.raises(ValueError, match="name"):
        write_xml({f"n:{name}": {"@xmlns:n": DATA}})


@pytest.mark.parametrize("content", [{"b": {"@xsi:nil": "true"}}, {"b": [{"@xsi:type": "c", "#text": "d"}, "e"]}])
def test_attributes_of_xml_schema_are_written_with_their_namespace(content):
    """`read` keeps their prefix, whatever it was in the document."""
    document = write_xml({"a": content})

    assert ET.fromstring(document).tag == "a"
    assert read(document) == ("a", content, ())


def test_any_text_is_written_as_json():
    """A lone surrogate is escaped, so that the bytes are UTF-8."""
    text = 'a\ud83d"\0\x08\ufffe\U0001f600'

    assert json.loads(write_json({text: text}).decode()) == {text: text}


texts = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1).map(str.strip).filter(bool)


@given(st.dictionaries(st.sampled_from(["a", "b", "@c"]), texts, max_size=3))
def test_a_written_document_can_be_read_back(content):
    """XML and JSON are read as the same content."""
    assert read(write_xml({"root": content})) == read(write_json({"root": content})) == ("root", content, ())


# --- comparing --------------------------------------------------------------------------------------------


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
def test_equal_content_has_one_canonical_form(one, other):
    """Whatever the format was."""
    assert canonicalize(one) == canonicalize(other)
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": 1}, {"a": 2}), ({"a": [1, 2]}, {"a": [2, 1]}), ({"a": 1}, {"b": 1}), ({"a": {"b": 1}}, {"a": 1})],
)
def test_different_content_has_different_canonical_forms(one, other):
    """The order of repeated elements is significant."""
    assert canonicalize(one) != canonicalize(other)
    assert fingerprint(one) != fingerprint(other)


def test_a_fingerprint_is_a_sha_256():
    """The fingerprint of stored keys must never change."""
    assert json.loads(canonicalize({"b": 1, "a": None})) == {"b": "1"}
    assert fingerprint({"b": 1}) == "1a0d01b57c7c0313b1a54ee9a538d7f37edf9b93a14afbd81689d1e0f7919acf"
