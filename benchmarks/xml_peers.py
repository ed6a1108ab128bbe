"""The schema of the parsed notification, for other libraries that produce typed values from XML."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from pydantic_xml import BaseXmlModel, attr, element
from xsdata.formats.dataclass.parsers import XmlParser
from xsdata.models.datatype import XmlDateTime

DATA = "http://api.callfire.com/data"
NOTIFICATION = "http://api.callfire.com/notification/xsd"


# --- pydantic-xml -----------------------------------------------------------------------------------------


class _Element(BaseXmlModel, nsmap={"": DATA, "n": NOTIFICATION}, search_mode="unordered"):
    """An element whose children have any order, as in CallFire's notifications."""


class _Record(_Element, tag="TextRecord", ns=""):
    id: int | None = attr(default=None)
    result: str | None = element(tag="Result", ns="", default=None)
    finish_time: datetime | None = element(tag="FinishTime", ns="", default=None)
    billed_amount: Decimal | None = element(tag="BilledAmount", ns="", default=None)
    switch_id: str | None = element(tag="SwitchId", ns="", default=None)
    caller_name: str | None = element(tag="CallerName", ns="", default=None)
    message: str | None = element(tag="Message", ns="", default=None)


class _Text(_Element, tag="Text", ns=""):
    id: int = attr()
    from_number: str | None = element(tag="FromNumber", ns="", default=None)
    to_number: str | None = element(tag="ToNumber", ns="", default=None)
    state: str | None = element(tag="State", ns="", default=None)
    batch_id: int | None = element(tag="BatchId", ns="", default=None)
    broadcast_id: int | None = element(tag="BroadcastId", ns="", default=None)
    contact_id: int | None = element(tag="ContactId", ns="", default=None)
    inbound: bool | None = element(tag="Inbound", ns="", default=None)
    created: datetime | None = element(tag="Created", ns="", default=None)
    modified: datetime | None = element(tag="Modified", ns="", default=None)
    final_result: str | None = element(tag="FinalResult", ns="", default=None)
    labels: list[str] = element(tag="Label", ns="", default=[])
    message: str | None = element(tag="Message", ns="", default=None)
    records: list[_Record] = element(tag="TextRecord", ns="", default=[])


class _TextReceived(_Element, tag="TextReceived", ns="n"):
    subscription_id: int | None = element(tag="SubscriptionId", ns="n", default=None)
    text: _Text = element(tag="Text", ns="")


def parse_with_pydantic_xml(body: bytes) -> object:
    """Parse a notification as in pydantic-xml's documentation."""
    return _TextReceived.from_xml(body)


# --- xsdata -----------------------------------------------------------------------------------------------


def _data(name: str) -> dict[str, str]:
    return {"name": name, "type": "Element", "namespace": DATA}


_ID = {"name": "id", "type": "Attribute"}


@dataclass
class Record:
    """A record, as xsdata generates it."""

    id: int | None = field(default=None, metadata=_ID)
    result: str | None = field(default=None, metadata=_data("Result"))
    finish_time: XmlDateTime | None = field(default=None, metadata=_data("FinishTime"))
    billed_amount: Decimal | None = field(default=None, metadata=_data("BilledAmount"))
    switch_id: str | None = field(default=None, metadata=_data("SwitchId"))
    caller_name: str | None = field(default=None, metadata=_data("CallerName"))
    message: str | None = field(default=None, metadata=_data("Message"))


@dataclass
class Text:
    """A text, as xsdata generates it."""

    id: int | None = field(default=None, metadata=_ID)
    from_number: str | None = field(default=None, metadata=_data("FromNumber"))
    to_number: str | None = field(default=None, metadata=_data("ToNumber"))
    state: str | None = field(default=None, metadata=_data("State"))
    batch_id: int | None = field(default=None, metadata=_data("BatchId"))
    broadcast_id: int | None = field(default=None, metadata=_data("BroadcastId"))
    contact_id: int | None = field(default=None, metadata=_data("ContactId"))
    inbound: bool | None = field(default=None, metadata=_data("Inbound"))
    created: XmlDateTime | None = field(default=None, metadata=_data("Created"))
    modified: XmlDateTime | None = field(default=None, metadata=_data("Modified"))
    final_result: str | None = field(default=None, metadata=_data("FinalResult"))
    labels: list[str] = field(default_factory=list, metadata=_data("Label"))
    message: str | None = field(default=None, metadata=_data("Message"))
    records: list[Record] = field(default_factory=list, metadata=_data("TextRecord"))


@dataclass
class TextReceived:
    """A notification, as xsdata generates it."""

    class Meta:
        """Its namespace."""

        namespace = NOTIFICATION

    subscription_id: int | None = field(
        default=None, metadata={"name": "SubscriptionId", "type": "Element", "namespace": NOTIFICATION}
    )
    text: Text | None = field(default=None, metadata=_data("Text"))


_PARSER = XmlParser()


def parse_with_xsdata(body: bytes) -> object:
    """Parse a notification as in xsdata's documentation, with a cached parser."""
    return _PARSER.from_bytes(body, TextReceived)
