"""
Cases of hostile and broken input, and the expected outcome of each.

*Bad* is a `NotificationError`; *accepted* is an event, for which a case may have a condition; *bounded* is either one.
The process that parses a body also creates it.
"""

import codecs
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

MEGABYTE = 1024 * 1024
SAMPLE = "<TextSent><Text id='1'><Message>{}</Message></Text></TextSent>"
BEFORE_MESSAGE, _, AFTER_MESSAGE = SAMPLE.encode().partition(b"{}")
REPLACED = "replaced forbidden characters @ Text.Message"
COMBINED = "combined surrogates @ Text.Message"
CALL = b"<CallFinished><Call id='1'>%s</Call></CallFinished>"
BROADCAST = (
    b"<BroadcastStarted><Broadcast id='1'><TextBroadcastConfig><RetryConfig>%s</RetryConfig></TextBroadcastConfig>"
    b"</Broadcast></BroadcastStarted>"
)
NESTED_ENTITIES = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 9))


@dataclass(frozen=True)
class Case:
    """A body and its expected outcome."""

    name: str
    body: Callable[[], bytes]
    outcome: Literal["bad", "accepted", "bounded"] = "bad"
    #: The condition for an accepted event.
    condition: Callable[[Any], bool] = lambda event: True
    content_type: str | None = None
    #: Whether the body is an envelope with several events. The condition has all of them; a receiver stores each.
    has_several: bool = False


def xml(document: str) -> Callable[[], bytes]:
    """Return a function that encodes a document."""
    return document.encode


def call(**fields: object) -> Callable[[], bytes]:
    """Return a function that encodes a call with these fields, of which some are put into a record."""
    record = {name: fields.pop(name) for name in ("Duration", "BilledAmount", "FinishTime") if name in fields}
    content = {"@id": 1, **fields, "CallRecord": {"@id": 2, **record}}
    return json.dumps({"CallFinished": {"Call": content}}).encode


def has_problems(*problems: str) -> Callable[[Any], bool]:
    """Return a function that checks the problems of an event."""
    return lambda event: event.problems == problems


def repaired(message: str, *problems: str) -> Callable[[Any], bool]:
    """Return a function that checks a message and the problems of its event."""
    return lambda event: (event.text.message, event.problems) == (message, problems)


def message(content: bytes) -> Callable[[], bytes]:
    """Return a function that returns a text with this message in XML."""
    return lambda: BEFORE_MESSAGE + content + AFTER_MESSAGE


def filled_message(unit: bytes) -> Callable[[], bytes]:
    """Return a function that returns a text with a message of a megabyte in XML."""
    return lambda: BEFORE_MESSAGE + unit * (MEGABYTE // len(unit)) + AFTER_MESSAGE


def declared(encoding: str, content: str, codec: str) -> bytes:
    """Return a text with a declared encoding that is encoded by a codec of Python."""
    return f'<?xml version="1.0" encoding="{encoding}"?>{SAMPLE.format(content)}'.encode(codec)


def deep_xml(depth: int) -> Callable[[], bytes]:
    """Return a function that nests elements."""
    return lambda: b"<a>" * depth + b"</a>" * depth


XML = [
    Case("entity bomb of nine levels", xml(f'<!DOCTYPE z [<!ENTITY e0 "lol">{NESTED_ENTITIES}]><z>&e8;</z>')),
    Case(
        "entity bomb below expat's own limit",
        xml(f'<!DOCTYPE z [<!ENTITY e0 "{"x" * 70_000}"><!ENTITY e1 "{"&e0;" * 90}">]><z>&e1;</z>'),
    ),
    Case("quadratic entity bomb", xml(f'<!DOCTYPE z [<!ENTITY e "{"x" * 50_000}">]><z>{"&e;" * 50_000}</z>')),
    Case(
        "400 default attributes on 20,000 elements",
        lambda: (
            b"<!DOCTYPE z [<!ATTLIST b "
            + b" ".join(b'a%d CDATA "x"' % number for number in range(400))
            + b"]><z>"
            + b"<b/>" * 20_000
            + b"</z>"
        ),
    ),
    Case(
        "400 default attributes on few enough elements",
        lambda: (
            b"<!DOCTYPE z [<!ATTLIST b "
            + b" ".join(b'a%d CDATA "x"' % number for number in range(400))
            + b"]><z>"
            + b"<b/>" * 9_000
            + b"</z>"
        ),
    ),
    Case("injected attribute", xml('<!DOCTYPE z [<!ATTLIST z admin CDATA "true">]><z/>')),
    Case("external DTD", xml('<!DOCTYPE z SYSTEM "file:///etc/passwd"><z/>')),
    Case("external entity", xml('<!DOCTYPE z [<!ENTITY e SYSTEM "file:///etc/passwd">]><z>&e;</z>')),
    Case("parameter entity", xml('<!DOCTYPE z [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;]><z/>')),
    Case("bare DOCTYPE", xml("<!DOCTYPE z><z/>")),
    Case("undefined entity after a DTD", xml('<!DOCTYPE z SYSTEM "x"><z>&unknown;</z>')),
    Case("undefined entity", xml("<z>&unknown;</z>")),
    Case("DOCTYPE in UTF-16", lambda: "<!DOCTYPE z><z/>".encode("utf-16")),
    Case("DOCTYPE in UTF-16 without a BOM", lambda: "<!DOCTYPE z><z/>".encode("utf-16-le")),
    Case("DOCTYPE in Latin-1", xml('<?xml version="1.0" encoding="iso-8859-1"?><!DOCTYPE z><z/>')),
    Case(
        "DOCTYPE in the text of a message",
        xml(SAMPLE.format("<![CDATA[<!DOCTYPE z><z>]]>")),
        "accepted",
        lambda event: event.text.message == "<!DOCTYPE z><z>",
    ),
    Case("depth of 149,000", deep_xml(149_000)),
    Case("depth of 4,900", deep_xml(4_900)),
    Case("depth of 65", deep_xml(66)),
    Case("depth of 60", deep_xml(60), "accepted"),
    Case("260,000 siblings", lambda: b"<z>" + b"<a/>" * 260_000 + b"</z>"),
    Case("90,000 attributes", lambda: b"<z " + b" ".join(b"a%d=''" % number for number in range(90_000)) + b"/>"),
    Case(
        "19,000 attributes",
        lambda: b"<z " + b" ".join(b"a%d=''" % number for number in range(19_000)) + b"/>",
        "bounded",
    ),
    Case(
        "45,000 namespaces",
        lambda: b"<z " + b" ".join(b"xmlns:a%d='u%d'" % (number, number) for number in range(45_000)) + b"/>",
    ),
    Case(
        "9,000 elements, each in a namespace of its own",
        lambda: b"<z>" + b"".join(b"<a xmlns='u%d'/>" % number for number in range(9_000)) + b"</z>",
        "bounded",
    ),
    Case(
        "9,900 names in a namespace of 800,000 letters",
        lambda: b"<z xmlns='%s'>" % (b"u" * 800_000) + b"".join(b"<a%d/>" % n for n in range(9_900)) + b"</z>",
    ),
    Case(
        "19,900 attributes in a namespace of 700,000 letters",
        lambda: (
            b"<z xmlns:q='%s' " % (b"u" * 700_000) + b" ".join(b"q:a%d=''" % number for number in range(19_900)) + b"/>"
        ),
    ),
    Case(
        "19,000 attributes in a namespace of 280,000 quotation marks, in UTF-16",
        lambda: (
            "<z xmlns:q='%s' " % ("\u2727" * 280_000) + " ".join(f"q:a{number}=''" for number in range(19_000)) + "/>"
        ).encode("utf-16-le"),
    ),
    Case(
        "a long namespace where nothing is in it",
        lambda: b"<TextSent xmlns:q='%s'><Text id='1'/></TextSent>" % (b"u" * 100_000),
        "accepted",
    ),
    Case(
        "9,990 elements, each with two unknown attributes",
        lambda: b"<z xmlns:q='q'>" + b"".join(b"<b%d q:a%d='' q:b%d=''/>" % (n, n, n) for n in range(9_990)) + b"</z>",
    ),
    Case(
        "9,000 namespaces, each used once",
        lambda: (
            b"<z "
            + b" ".join(b"xmlns:a%d='u%d'" % (number, number) for number in range(9_000))
            + b">"
            + b"".join(b"<a%d:b/>" % number for number in range(9_000))
            + b"</z>"
        ),
    ),
    Case("9,990 empty records", lambda: CALL % (b"<CallRecord/>" * 9_990)),
    Case("9,990 records with ids that are invalid", lambda: CALL % (b"<CallRecord id='x'/>" * 9_990)),
    Case(
        "a megabyte of results",
        lambda: BROADCAST % (b"<RetryResults>" + b"a " * (MEGABYTE // 2 - 100) + b"</RetryResults>"),
        "accepted",
        has_problems("too many items @ Broadcast.TextBroadcastConfig.RetryConfig.RetryResults"),
    ),
    Case(
        "a megabyte of kinds of phones",
        lambda: BROADCAST % (b"<RetryPhoneTypes>" + b"a " * (MEGABYTE // 2 - 100) + b"</RetryPhoneTypes>"),
        "accepted",
        has_problems("too many items @ Broadcast.TextBroadcastConfig.RetryConfig.RetryPhoneTypes"),
    ),
    Case(
        "a megabyte of references to characters", lambda: b"<z>" + b"&#65;" * (MEGABYTE // 5 - 2) + b"</z>", "accepted"
    ),
    Case("a megabyte of line ends", lambda: b"<z>" + b"\r\n" * (MEGABYTE // 2 - 4) + b"</z>", "accepted"),
    Case("text of a megabyte", xml(SAMPLE.format("x" * MEGABYTE)), "bounded"),
    Case("attribute of a megabyte", xml(f"<TextSent><Text id='1' x='{'x' * MEGABYTE}'/></TextSent>"), "bounded"),
    Case("name of a megabyte", xml(f"<{'x' * MEGABYTE}/>"), "bounded"),
    Case("id of a megabyte", xml(f"<TextSent><Text id='{'1' * MEGABYTE}'/></TextSent>")),
    Case("megabyte of white space in an id", xml(f"<TextSent><Text id='1{' ' * MEGABYTE}x'/></TextSent>")),
    Case("a megabyte that is one open tag", lambda: b"<a " + b" " * MEGABYTE),
    Case("a comment of a megabyte", xml(f"<!--{'x' * MEGABYTE}-->{SAMPLE}"), "accepted"),
    Case("invalid UTF-8", lambda: SAMPLE.encode().replace(b"{}", b"\xff")),
    Case("overlong UTF-8", lambda: SAMPLE.encode().replace(b"{}", b"\xc0\xbc")),
    Case("surrogate in UTF-8", lambda: SAMPLE.encode().replace(b"{}", b"\xed\xa0\x80")),
    Case("NUL", message(b"\0")),
    Case("reference to NUL", message(b"&#0;")),
    Case("reference to NUL in hexadecimal digits", message(b"&#x00;")),
    Case("reference to a surrogate", message(b"a&#xD800;b"), "accepted", repaired("a\ufffdb", REPLACED)),
    *(
        Case(f"references to two surrogates, {form}", message(content), "accepted", repaired("\U0001f600", COMBINED))
        for form, content in (
            ("decimal", b"&#55357;&#56832;"),
            ("hexadecimal", b"&#xD83D;&#xDE00;"),
            ("mixed", b"&#xd83d;&#56832;"),
            ("with zeros", b"&#0055357;&#x0De00;"),
            ("CESU-8", b"\xed\xa0\xbd\xed\xb8\x80"),
        )
    ),
    Case(
        "references to surrogates in the wrong order",
        message(b"&#56832;&#55357;"),
        "accepted",
        repaired("\ufffd\ufffd", REPLACED),
    ),
    Case(
        "a lone surrogate beside a pair",
        message(b"&#55357;&#55357;&#56832;"),
        "accepted",
        repaired("\ufffd\U0001f600", REPLACED, COMBINED),
    ),
    Case("half a pair in CESU-8", message(b"\xed\xa0\xbd&#56832;")),
    Case("control character", message(b"a\x01b"), "accepted", repaired("a\ufffdb", REPLACED)),
    *(
        Case(f"the forbidden character {form}", message(content), "accepted", repaired("a\ufffdb", REPLACED))
        for form, content in (
            ("0x0B", b"a\x0bb"),
            ("U+FFFE", b"a\xef\xbf\xbeb"),
            ("U+FFFF", b"a\xef\xbf\xbfb"),
            ("0x1F in CDATA", b"<![CDATA[a\x1fb]]>"),
            ("8 as a reference", b"a&#8;b"),
            ("8 as a hexadecimal reference", b"a&#x8;b"),
            ("31 as a reference with zeros", b"a&#00000031;b"),
            ("U+FFFE as a reference", b"a&#xFFFE;b"),
            ("U+FFFF as a reference", b"a&#65535;b"),
            ("out of range", b"a&#x110000;b"),
            ("far out of range", b"a&#" + b"9" * 5_000 + b";b"),
        )
    ),
    Case("a reference to a control character in CDATA", message(b"<![CDATA[&#8;]]>"), "accepted", repaired("&#8;")),
    Case("a control character in a comment", message(b"a<!-- \x08 -->b"), "accepted", repaired("ab")),
    Case("a control character in a processing instruction", message(b"a<?b \x08?>b"), "accepted", repaired("ab")),
    Case(
        "a forbidden character in attributes",
        lambda: CALL % b"<ToNumber ClientData='a&#8;b' a12135551212='\x0b'>1</ToNumber>",
        "accepted",
        has_problems(
            "replaced forbidden characters @ Call.ToNumber.@ClientData",
            "replaced forbidden characters @ Call.ToNumber",
        ),
    ),
    Case(
        "a forbidden character in an unknown element",
        lambda: CALL % b"<a12135551212><Message>&#8;</Message></a12135551212>",
        "accepted",
        has_problems("replaced forbidden characters @ Call"),
    ),
    Case(
        "a control character in UTF-16",
        lambda: SAMPLE.format("a\x0bb").encode("utf-16"),
        "accepted",
        repaired("a\ufffdb", REPLACED),
    ),
    Case(
        "a control character in UTF-16 without BOM",
        lambda: SAMPLE.format("a\x0bb").encode("utf-16-le"),
        "accepted",
        repaired("a\ufffdb", REPLACED),
    ),
    Case(
        "a control character in Latin-1",
        lambda: b'<?xml version="1.0" encoding="ISO-8859-1"?>' + SAMPLE.format("é\x0b").encode("latin-1"),
        "accepted",
        repaired("é\ufffd", REPLACED),
    ),
    *(
        Case(f"a control character {place}", lambda document=document: document)
        for place, document in (
            ("in a name", b"<TextSent><Text id='1'><Mess\x08age/></Text></TextSent>"),
            ("between attributes", b"<TextSent><Text \x08 id='1'/></TextSent>"),
            ("before the root", b"<?xml version='1.0'?>\x08<TextSent><Text id='1'/></TextSent>"),
            ("after the root", b"<TextSent><Text id='1'/></TextSent>\x08"),
            ("as a reference in a name", b"<TextSent><Text id='1'><Mess&#8;age/></Text></TextSent>"),
        )
    ),
    Case("a forbidden character and a DOCTYPE", lambda: b"<!DOCTYPE z><z>&#8;</z>"),
    Case("a forbidden character in a DOCTYPE", lambda: b"<!DOCTYPE z [<!ENTITY e '&#8;'>]><z>&e;</z>"),
    Case("a forbidden character in a document that is not well-formed", lambda: b"<TextSent>&#8;</TextReceived>"),
    Case("an unfinished reference", message(b"&#8")),
    Case("a reference without digits", message(b"&#;&#x;&#8;")),
    *(
        Case(f"a megabyte of {name}", filled_message(unit), "bounded")
        for name, unit in (
            ("references to surrogates", b"&#55357;"),
            ("references to pairs", b"&#55357;&#56832;"),
            ("references to control characters", b"&#8;"),
            ("control characters", b"\x0b"),
            ("control characters among others", b"a\x0b"),
            ("noncharacters", b"\xef\xbf\xbe"),
            ("pairs in CESU-8", b"\xed\xa0\xbd\xed\xb8\x80"),
        )
    ),
    Case("a reference of a megabyte", message(b"&#" + b"1" * MEGABYTE + b";"), "bounded"),
    Case("a hexadecimal reference of a megabyte", message(b"&#x" + b"f" * MEGABYTE + b";"), "bounded"),
    Case("19,990 references to surrogates", message(b"&#55357;" * 19_990), "accepted"),
    *(
        Case(f"9,900 open {name} after a forbidden character", message(b"&#8;" + opening * 9_900 + b"x" * 900_000))
        for name, opening in (("comments", b"<!--"), ("sections", b"<![CDATA["), ("instructions", b"<?"))
    ),
    Case(
        "4,900 labels with a forbidden character",
        lambda: CALL % (b"<Label>\x0b</Label>" * 4_900),
        "accepted",
        lambda event: len(event.problems) == 100 and event.problems[99].endswith(" @ Call.Label[99]"),
    ),
    Case(
        "9,900 elements with attributes before a forbidden character",
        lambda: b"<z xmlns:q='q'>" + b"".join(b"<q:b%d a='' b=''/>" % (n % 900) for n in range(9_900)) + b"&#8;</z>",
        "bounded",
    ),
    Case("UTF-16 with BOM", lambda: SAMPLE.format("é").encode("utf-16"), "accepted", lambda e: e.text.message == "é"),
    Case(
        "UTF-16 without BOM",
        lambda: SAMPLE.format("é").encode("utf-16-be"),
        "accepted",
        lambda e: e.text.message == "é",
    ),
    Case("odd UTF-16", lambda: SAMPLE.encode("utf-16")[:-1]),
    Case(
        "Latin-1",
        lambda: b'<?xml version="1.0" encoding="ISO-8859-1"?>' + SAMPLE.format("é").encode("latin-1"),
        "accepted",
        lambda event: event.text.message == "é",
    ),
    Case(
        "windows-1252",
        lambda: b'<?xml version="1.0" encoding="windows-1252"?>' + SAMPLE.format("€").encode("cp1252"),
        "accepted",
        lambda event: event.text.message == "€",
    ),
    Case(
        "UTF-8 with BOM",
        lambda: codecs.BOM_UTF8 + SAMPLE.format("é").encode(),
        "accepted",
        lambda event: event.text.message == "é",
    ),
    *(
        Case(f"encoding {name!r}", xml(f'<?xml version="1.0" encoding="{name}"?>{SAMPLE}'))
        for name in ("UTF-7", "Shift_JIS", "rot13", "zlib", "idna", "x-unknown", "utf-32", "", "utf-8 ", "rot_13")
    ),
    *(
        Case(f"encoding {name} {where}", lambda name=name, codec=codec: declared(name, "a", codec))
        for name in ("rot13", "zlib")
        for where, codec in (("after a BOM", "utf-8-sig"), ("in UTF-16 without BOM", "utf-16-le"))
    ),
    *(
        Case(
            f"encoding {name} of {codec}",
            lambda name=name, codec=codec: declared(name, "é", codec),
            "accepted",
            lambda event: event.text.message == "é" and event.problems == (),
        )
        for name, codec in (
            ("UTF8", "utf-8"),
            ("utf8", "utf-8"),
            ("utf_8", "utf-8"),
            ("latin1", "latin-1"),
            ("Latin-1", "latin-1"),
            ("ISO8859-1", "latin-1"),
            ("ISO8859_1", "latin-1"),
            ("cp1252", "cp1252"),
            ("Windows1252", "cp1252"),
            ("UTF16", "utf-16"),
            ("UTF16", "utf-16-le"),
            ("utf-8", "utf-16-be"),
            ("utf-16", "utf-8"),
            ("utf-16", "utf-8-sig"),
            ("ISO-8859-1", "utf-8-sig"),
            ("ISO-8859-1", "utf-16"),
        )
    ),
    *(
        Case(f"encoding {name}", lambda name=name: declared(name, "e", "ascii"), "accepted")
        for name in ("ASCII", "us-ascii", "US_ASCII")
    ),
    Case("encoding ASCII of Latin-1", lambda: declared("ASCII", "é", "latin-1")),
    Case("encoding UTF8 of Latin-1", lambda: declared("UTF8", "é", "latin-1")),
    Case("content type names a codec", xml(SAMPLE), "accepted", content_type="text/xml; charset=zlib"),
    Case("white space before the declaration", xml(f'\n <?xml version="1.0"?>{SAMPLE}'), "accepted"),
    Case(
        "comment inside a value",
        xml("<CallFinished><Call id='1'><ContactId>12<!-- -->34</ContactId></Call></CallFinished>"),
        "accepted",
        lambda event: event.call.contact_id == 1234,
    ),
    Case(
        "CDATA inside a value",
        xml("<CallFinished><Call id='1'><ContactId>12<![CDATA[34]]></ContactId></Call></CallFinished>"),
        "accepted",
        lambda event: event.call.contact_id == 1234,
    ),
    Case("two roots", xml(SAMPLE + SAMPLE)),
    Case("truncated", xml(SAMPLE[:-5])),
    Case("empty", lambda: b""),
    Case("white space only", lambda: b" \n "),
    Case("HTML, well-formed", xml("<html><body><h1>502</h1></body></html>")),
    Case("HTML, not well-formed", xml("<!DOCTYPE html><html><body><br><p>502</body></html>")),
    Case(
        "JSON sent as XML", call(), "accepted", lambda event: event.call.id == 1, content_type="text/xml; charset=UTF-8"
    ),
    Case("duplicate attribute", xml("<TextSent><Text id='1' id='2'/></TextSent>")),
    Case("undeclared prefix", xml("<n:TextSent/>")),
    Case(
        "XInclude",
        xml(
            '<TextSent><Text id="1"><xi:include xmlns:xi="http://www.w3.org/2001/XInclude" '
            'href="file:///etc/passwd" parse="text"/></Text></TextSent>'
        ),
        "accepted",
        lambda event: "root:" not in str(event.payload),
    ),
    Case("xml-stylesheet", xml(f'<?xml-stylesheet href="http://127.0.0.1:9/x"?>{SAMPLE}'), "accepted"),
    Case(
        "schemaLocation",
        xml(
            '<TextSent xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
            'xsi:schemaLocation="urn:x http://127.0.0.1:9/x"><Text id="1"/></TextSent>'
        ),
        "accepted",
    ),
]

JSON = [
    Case("depth of 1,100", lambda: b'{"a":' * 1_100 + b"{}" + b"}" * 1_100),
    Case("depth of 66", lambda: b'{"a":' * 66 + b"{}" + b"}" * 66),
    Case("depth of 100,000", lambda: b'{"a":' * 100_000 + b"{}" + b"}" * 100_000),
    Case("lists of depth 900", lambda: b'{"a":{"b":' + b"[" * 900 + b"]" * 900 + b"}}"),
    Case("megabyte of brackets", lambda: b"[" * MEGABYTE),
    Case("megabyte of braces", lambda: b"{" * MEGABYTE),
    Case("integer of 4,301 digits", lambda: b'{"TextSent":{"Text":{"@id":' + b"1" * 4_301 + b"}}}"),
    Case("integer of 4,300 digits", lambda: b'{"TextSent":{"Text":{"@id":' + b"1" * 4_300 + b"}}}"),
    *(
        Case(f"the number {number}", xml(f'{{"TextSent":{{"Text":{{"@id":1,"BatchId":{number}}}}}}}'))
        for number in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999")
    ),
    Case(
        "duplicate keys",
        xml('{"TextSent":{"Text":{"@id":1,"BatchId":2,"BatchId":3}}}'),
        "accepted",
        lambda event: event.text.batch_id == 3,
    ),
    Case(
        "escaped NUL",
        xml('{"TextSent":{"Text":{"@id":1,"Message":"a\\u0000b"}}}'),
        "accepted",
        lambda event: event.text.message == "a\0b",
    ),
    *(
        Case(
            f"the control character {form} in a string",
            lambda content=content: b'{"TextSent":{"Text":{"@id":1,"Message":"a%sb"}}}' % content,
            "accepted",
            repaired(f"a{content.decode()}b", "unescaped control characters @ Text.Message"),
        )
        for form, content in (("0x0B", b"\x0b"), ("line feed", b"\n"), ("NUL", b"\0"))
    ),
    Case("a control character outside of a string", lambda: b'{"TextSent":{"Text":\x0b{"@id":1}}}'),
    Case(
        "a pair in CESU-8",
        lambda: b'{"TextSent":{"Text":{"@id":1,"Message":"\xed\xa0\xbd\xed\xb8\x80"}}}',
        "accepted",
        repaired("\U0001f600"),
    ),
    Case("half a pair in CESU-8, JSON", lambda: b'{"TextSent":{"Text":{"@id":1,"Message":"\xed\xa0\xbd"}}}'),
    Case(
        "a megabyte of control characters in a string",
        lambda: b'{"TextSent":{"Text":{"@id":1,"Message":"a%sb"}}}' % (b"\x0b" * MEGABYTE),
        "accepted",
    ),
    Case(
        "a megabyte of pairs in CESU-8, JSON",
        lambda: b'{"TextSent":{"Text":{"@id":1,"Message":"%s"}}}' % (b"\xed\xa0\xbd\xed\xb8\x80" * (MEGABYTE // 6)),
        "bounded",
    ),
    Case("lone surrogate", xml('{"TextSent":{"Text":{"@id":1,"Message":"\\ud800"}}}'), "accepted"),
    Case("lone surrogate as the root", xml('{"\\ud800":{"a":"\\udfff"}}'), "accepted"),
    Case("JSON with BOM", lambda: codecs.BOM_UTF8 + call()(), "accepted"),
    Case("JSON in UTF-16", lambda: call()().decode().encode("utf-16"), "accepted"),
    Case("JSON in UTF-16 without BOM", lambda: call()().decode().encode("utf-16-le"), "accepted"),
    Case("JSON in Latin-1", lambda: '{"TextSent":{"Text":{"@id":1,"Message":"é"}}}'.encode("latin-1")),
    *(
        Case(f"the document {document}", xml(document))
        for document in ("1", '"text"', "true", "null", "[]", '[{"TextSent":{}}]', "{}", '{"TextSent":null}')
    ),
    Case("trailing data", lambda: call()() + b"{}"),
    Case("trailing comma", xml('{"TextSent":{"Text":{"@id":1,}}}')),
    Case("single quotes", xml("{'TextSent':{'Text':{'@id':1}}}")),
    Case(
        "19,000 records that cannot be read",
        lambda: b'{"CallFinished":{"Call":{"@id":1,"CallRecord":[' + b'"x",' * 19_000 + b'"x"]}}}',
        "bounded",
    ),
    Case(
        "80,000 keys",
        lambda: json.dumps({"Ping": {f"key{number}": number for number in range(80_000)}}).encode(),
        "bounded",
    ),
    Case("330,000 empty objects", lambda: b'{"Ping":{"a":[' + b"{}," * 330_000 + b"{}]}}", "bounded"),
    Case(
        "330,000 empty records",
        lambda: b'{"CallFinished":{"Call":{"@id":1,"CallRecord":[' + b"{}," * 330_000 + b"{}]}}}",
        "bounded",
    ),
    Case(
        "170,000 records that cannot be read",
        lambda: b'{"CallFinished":{"Call":{"@id":1,"CallRecord":[' + b'"x",' * 170_000 + b'"x"]}}}',
        "bounded",
    ),
    Case(
        "4,950 recordings that cannot be read",
        lambda: (
            b'{"CallFinished":{"Call":{"@id":1,"CallRecord":[' + b'{"RecordingMeta":{"@id":"x"}},' * 4_950 + b"{}]}}}"
        ),
    ),
    Case(
        "9,900 records with long ids that are invalid",
        lambda: b'{"CallFinished":{"Call":{"@id":1,"CallRecord":[' + b'{"@id":"%s"},' % (b"x" * 38) * 9_900 + b"{}]}}}",
    ),
    Case(
        "19,900 answers that cannot be read",
        lambda: (
            b'{"CallFinished":{"Call":{"@id":1,"CallRecord":{"@id":1,"QuestionResponse":[' + b"1," * 19_900 + b"1]}}}}"
        ),
    ),
    Case(
        "900 parts that cannot be read",
        lambda: b'{"CallFinished":{"Call":{"@id":1,"CallRecord":[' + b"1," * 900 + b"{}]}}}",
        "accepted",
        lambda event: len(event.problems) == 900,
    ),
    Case(
        "three configurations that cannot be read, among many labels",
        lambda: (
            b'{"BroadcastStarted":{"Broadcast":{"@id":1,"TextBroadcastConfig":{"@id":"x"},'
            b'"VoiceBroadcastConfig":{"@id":"x"},"IvrBroadcastConfig":{"@id":"x"},"Label":['
            + b'{"Name":"a"},' * 9_900
            + b"1]}}}"
        ),
        "bounded",
    ),
    Case(
        "a megabyte of results in JSON",
        lambda: (
            b'{"BroadcastStarted":{"Broadcast":{"@id":1,"TextBroadcastConfig":{"@id":"x","RetryConfig":'
            b'{"RetryResults":"' + b"a " * (MEGABYTE // 2 - 100) + b'"}}}}}'
        ),
        "accepted",
        lambda event: len(event.problems) == 2,
    ),
    Case(
        "400,000 lists in lists",
        lambda: b'{"Ping":{"a":[' + (b"[" * 20 + b"]" * 20 + b",") * 19_900 + b"1]}}",
    ),
    Case("a fraction of a megabyte", lambda: b'{"Ping":{"a":1.' + b"1" * MEGABYTE + b"}}", "bounded"),
    Case("240 integers of 4,300 digits", lambda: b'{"Ping":{"a":[' + (b"9" * 4_300 + b",") * 240 + b"1]}}", "bounded"),
    Case("text of a megabyte in JSON", lambda: json.dumps({"Ping": {"a": "x" * MEGABYTE}}).encode(), "bounded"),
    Case("megabyte of escapes", lambda: b'{"Ping":{"a":"' + b"\\u0041" * (MEGABYTE // 6) + b'"}}', "bounded"),
    Case("megabyte of backslashes", lambda: b'{"a":"' + b"\\" * MEGABYTE),
]

TEXT_EVENT = b'{"resourceType":"InboundText","eventType":"Finished","resource":{"id":1%s}}'
CALL_EVENT = b'{"resourceType":"InboundCall","eventType":"Finished","resource":{"id":1%s}}'
CAMPAIGN_EVENT = b'{"resourceType":"CallBroadcast","eventType":"Started","resource":{"id":1%s}}'
UNREADABLE_CALL = (
    b',"created":"x","modified":"x","campaignId":"x","inbound":"x","contact":1,"records":[{"id":"x","duration":"x"},{}]'
)
UNREADABLE_CAMPAIGN = (
    b',"lastModified":"x","maxActiveTransfers":"x","sounds":{"liveSoundId":"x","dncSoundId":"x"},"retryConfig":{'
    b'"maxAttempts":"x"},"localTimeRestriction":{"beginHour":"x"}'
)


def events(element: bytes, count: int) -> Callable[[], bytes]:
    """Return a function that puts an event into an envelope *count* times."""
    return lambda: b'{"events":[' + b",".join([element] * count) + b"]}"


def text_event(fields: bytes) -> Callable[[], bytes]:
    """Return a function that returns an envelope with a text that has these fields."""
    return events(TEXT_EVENT % (b"," + fields), 1)


ENVELOPES = [
    Case("a megabyte of the smallest events", events(b"{}", MEGABYTE // 3 - 10)),
    Case("a megabyte of events that are numbers", events(b"1", MEGABYTE // 2 - 10)),
    Case("a megabyte of events that are lists", events(b"[]", MEGABYTE // 3 - 10)),
    Case("a megabyte of the smallest texts", events(TEXT_EVENT % b"", MEGABYTE // 80)),
    Case("1,001 events", events(TEXT_EVENT % b"", 1_001)),
    Case("1,001 events of {}", events(b"{}", 1_001)),
    Case("999 events of {}", events(b"{}", 999), has_several=True),
    Case("60,000 events that are null", events(b"null", 60_000)),
    Case(
        "1,000 texts of a kilobyte",
        events(TEXT_EVENT % (b',"message":"%s"' % (b"x" * 950)), 1_000),
        "accepted",
        lambda events: len(events) == 1_000,
        has_several=True,
    ),
    Case(
        "1,000 unreadable calls",
        events(CALL_EVENT % UNREADABLE_CALL, 1_000),
        "accepted",
        lambda events: {len(event.problems) for event in events} == {7},
        has_several=True,
    ),
    Case(
        "1,000 unreadable campaigns",
        events(CAMPAIGN_EVENT % UNREADABLE_CAMPAIGN, 1_000),
        "accepted",
        lambda events: {len(event.problems) for event in events} == {6},
        has_several=True,
    ),
    Case(
        "999 events and an unreadable one",
        lambda: events(TEXT_EVENT % b"", 999)()[:-2] + b",5]}",
        has_several=True,
    ),
    Case(
        "11,000 records and an unreadable one",
        events(CALL_EVENT % (b',"records":[' + b"{}," * 11_000 + b"1]"), 1),
        "accepted",
        has_problems("not an object @ resource.records[11000]"),
    ),
    Case("20,000 records", events(CALL_EVENT % (b',"records":[' + b"{}," * 20_000 + b"{}]"), 1)),
    Case("1,100 unreadable records", events(CALL_EVENT % (b',"records":[' + b"1," * 1_100 + b"1]"), 1)),
    Case("60,000 labels", events(CALL_EVENT % (b',"labels":[' + b'"a",' * 60_000 + b'"a"]'), 1), "accepted"),
    Case(
        "60,000 attributes",
        text_event(b'"attributes":{%s}' % b",".join(b'"a%d":%d' % (n, n) for n in range(60_000))),
        "bounded",
    ),
    Case("60,000 media that cannot be read", text_event(b'"media":[' + b"1," * 60_000 + b"1]")),
    Case("an event that is nested too deeply", text_event(b'"a":' + b"[" * 64 + b"]" * 64)),
    Case("an event that is nested to the limit", text_event(b'"a":' + b"[" * 58 + b"]" * 58), "accepted"),
    Case("a depth of 100,000 in an event", text_event(b'"a":' + b"[" * 100_000)),
    Case(
        "240 events with ids of 4,300 digits",
        events(TEXT_EVENT.replace(b"1", b"9" * 4_300) % b"", 240),
        has_several=True,
    ),
    Case(
        "a campaign's id of 65 bits",
        text_event(b'"campaignId":18446744073709551615'),
        "accepted",
        has_problems("not an integer @ resource.campaignId"),
    ),
    *(
        Case(
            f"the time {number.decode()[:16]} in an event",
            text_event(b'"created":%s' % number),
            "accepted",
            has_problems("not a time @ resource.created"),
        )
        for number in (
            b"1e300",
            b"-1e300",
            b"1.5",
            b"253402300800000",
            b"-62135596800001",
            b"9" * 4_000,
            b"true",
            b'"x"',
        )
    ),
    *(
        Case(f"the time {number.decode()} in range", text_event(b'"created":%s' % number), "accepted", has_problems())
        for number in (b"0", b"-62135596800000", b"253402300799999", b"1.5e12", b'"1527695024123"', b'""', b"null")
    ),
    Case("the time NaN in an event", text_event(b'"created":NaN')),
    Case("the amount 1e999 in an event", text_event(b'"records":[{"billedAmount":1e999}]')),
    Case(
        "a NUL in the message of an event",
        text_event(b'"message":"a\\u0000b"'),
        "accepted",
        lambda event: (event.text.message, event.problems) == ("a\0b", ()),
    ),
    Case(
        "a lone surrogate in each text of an envelope",
        lambda: (
            b'{"webhookName":"\\ud800","events":[{"resourceType":"\\ud800","eventType":"\\udfff",'
            b'"resource":{"\\ud800":"\\udfff"}}]}'
        ),
        "accepted",
        lambda event: event.name == "\ud800.\udfff",
    ),
    Case(
        "duplicate keys in an event",
        text_event(b'"id":2,"batchId":3,"batchId":4'),
        "accepted",
        lambda event: (event.text.id, event.text.batch_id) == (2, 4),
    ),
    Case("two arrays of events", lambda: b'{"events":[%s],"events":[]}' % (TEXT_EVENT % b"")),
    Case("an object of events", lambda: b'{"webhookId":1,"events":{"0":%s}}' % (TEXT_EVENT % b"")),
    Case("a text of events", lambda: b'{"webhookId":1,"events":"Finished"}'),
    Case("no events", lambda: b'{"webhookId":1,"events":[]}'),
    Case("an envelope without the key", lambda: b'{"webhookId":1,"resourceType":"InboundText"}'),
    Case("a list of envelopes", lambda: b'[{"events":[%s]}]' % (TEXT_EVENT % b"")),
    Case(
        "an envelope in XML",
        xml("<events><resourceType>InboundText</resourceType><eventType>Finished</eventType></events>"),
        "accepted",
        lambda event: event.name == "events" and event.webhook_id is None,
    ),
    Case(
        "an envelope in a SOAP envelope",
        xml(
            '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><events/><events/></s:Body></s:Envelope>'
        ),
    ),
    Case(
        "a webhook's id that is a phone number",
        lambda: b'{"webhookId":"12135551212x","events":[%s]}' % (TEXT_EVENT % b""),
    ),
    Case(
        "a resource type of a megabyte",
        lambda: b'{"events":[{"resourceType":"%s","eventType":"a"}]}' % (b"x" * MEGABYTE),
        "bounded",
    ),
    Case("a resource type that is an object", lambda: b'{"events":[{"resourceType":{"a":1},"resource":{}}]}'),
    Case("an envelope in UTF-16", lambda: events(TEXT_EVENT % b"", 1)().decode().encode("utf-16"), "accepted"),
    Case("an envelope that is cut off", lambda: events(TEXT_EVENT % b"", 2)()[:-5]),
]

VALUES = [
    Case("the text false", call(Inbound="false"), "accepted", lambda event: event.call.inbound is False),
    Case("the text FALSE", call(Inbound="FALSE"), "accepted", lambda event: event.call.inbound is False),
    Case("an invalid boolean", call(Inbound="no"), "accepted", has_problems("not a boolean @ Call.Inbound")),
    Case("a boolean of a float", call(Inbound=0.0), "accepted", has_problems("not a boolean @ Call.Inbound")),
    Case("an id that is true", call(**{"@id": True})),
    Case("an integer that is true", call(ContactId=True), "accepted", has_problems("not an integer @ Call.ContactId")),
    Case("an integer of 1.9", call(ContactId=1.9), "accepted", has_problems("not an integer @ Call.ContactId")),
    Case("an id of 1.0", call(**{"@id": 1.0})),
    Case(
        "an integer with underscores",
        call(ContactId=" 1_000 "),
        "accepted",
        has_problems("not an integer @ Call.ContactId"),
    ),
    Case("an id in Arabic digits", call(**{"@id": "١٢٣"})),
    Case(
        "an integer in Arabic digits",
        call(ContactId="١٢٣"),
        "accepted",
        has_problems("not an integer @ Call.ContactId"),
    ),
    Case("an integer of 65 bits", call(ContactId=2**64), "accepted", has_problems("not an integer @ Call.ContactId")),
    Case(
        "an integer of 4,000 digits",
        call(ContactId="1" * 4_000),
        "accepted",
        has_problems("not an integer @ Call.ContactId"),
    ),
    Case(
        "a mapping for text",
        call(FromNumber={"a": {"b": "c"}}),
        "accepted",
        has_problems("not a string @ Call.FromNumber"),
    ),
    Case("a list for text", call(FromNumber=["1", "2"]), "accepted", has_problems("not a string @ Call.FromNumber")),
    Case("a mapping for an id", call(**{"@id": {"a": 1}})),
    Case("text for a record", call(Label={"a": []}, ToNumber=None), "bounded"),
    Case(
        "a number that is a phone number",
        call(Created="12135551212"),
        "accepted",
        has_problems("not a time @ Call.Created"),
    ),
    Case("a time of digits", call(Created=20121026), "accepted", has_problems("not a time @ Call.Created")),
    Case("a time of a week", call(Created="2012-W43-5T00:00"), "accepted", has_problems("not a time @ Call.Created")),
    Case(
        "a time out of range",
        call(Created="2012-13-41T25:61:61Z"),
        "accepted",
        has_problems("not a time @ Call.Created"),
    ),
    Case(
        "a time at the end of all times",
        call(Created="9999-12-31T23:59:59-14:00", Modified="0001-01-01T00:00:00+14:00"),
        "accepted",
    ),
    *(
        Case(
            f"the decimal {number}",
            call(BilledAmount=number),
            "accepted",
            has_problems("not a decimal @ Call.CallRecord[0].BilledAmount"),
        )
        for number in ("NaN", "Infinity", "1_0", "1e9999999", "0x10", "1,5", "\u0661")
    ),
    *(
        Case(
            f"the duration {number}",
            call(Duration=number),
            "accepted",
            has_problems("not a duration @ Call.CallRecord[0].Duration"),
        )
        for number in ("1e99", "NaN", "PT5S", "-")
    ),
    Case("an error about a phone number", call(**{"@id": "12135551212x"})),
]

#: Attacks over HTTP, and the tests that cover them, for each adapter behind a real server.
HTTP = {
    "chunked without end, 64 MB": ["test_an_endless_body_is_rejected_and_its_sender_disconnected"],
    "the client keeps sending after its 413 or 408": [
        "test_a_sender_that_continues_after_a_413_is_disconnected_within_a_second",
        "test_a_sender_that_continues_after_a_408_is_disconnected_within_a_second",
        "test_a_sender_that_continues_after_a_wrong_token_is_disconnected",
    ],
    "Content-Encoding: gzip, bomb or broken": [
        "test_a_gzip_bomb_is_refused_and_takes_no_memory",
        "test_a_broken_gzip_is_refused",
        "test_an_encoded_body_is_not_supported",
    ],
    "body that drips": ["test_a_slow_body_times_out", "test_an_abandoned_request_times_out"],
    "token in the query": [
        "test_a_token_in_the_query_is_ignored",
        "test_the_access_log_shows_no_token",
    ],
    "X-Forwarded-For": ["test_x_forwarded_for_has_no_effect"],
    "/callfire/TOKEN/": ["test_a_trailing_slash_is_accepted"],
    "token compared as text": [
        "test_a_wrong_or_missing_token_is_not_found",
        "test_a_token_that_is_not_ascii_is_invalid",
    ],
    "client gone while we store": ["test_a_delivery_is_stored_although_its_client_disconnects"],
}

#: Attacks on the client, and the tests that cover them.
CLIENT = {
    "tasks cancelled while they wait for a connection": ["test_the_pool_is_healthy_after_many_cancellations"],
    "redirects": ["test_redirects_are_never_followed", "test_no_redirect_is_followed"],
    "logging": ["test_no_log_record_contains_a_query"],
    "answer of 195 KB gzip -> 200 MB": ["test_a_decompression_bomb_is_capped"],
    "HTTPS_PROXY, .netrc": [
        "test_the_environment_is_ignored_by_default",
        "test_netrc_is_ignored",
        "test_proxies_of_the_environment_need_trust_env",
    ],
    "repr(BasicAuth), vars(), URLs with user:password": [
        "test_no_credentials_are_printed",
        "test_a_setting_out_of_range_is_an_error",
    ],
    "used from a second event loop; after close": [
        "test_a_connection_belongs_to_the_first_loop_that_uses_it",
        "test_a_call_after_closing_is_an_error",
    ],
    "reset before or in the middle of an answer; short body; HTML 502; empty 503": [
        "test_a_cut_request_is_executed_once",
        "test_an_idempotent_operation_is_retried",
    ],
}

CASES = {case.name: case for case in [*XML, *JSON, *ENVELOPES, *VALUES]}
