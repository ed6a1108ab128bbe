"""
A compact table of CallFire's XML schema: the order of the elements of each type, and the required ones.

Its sources are the complex types of ``callfire-data.xsd`` and ``callfire-notification.xsd``, as published with
CallFire's clients of API 1.1. ``!`` marks a required element, ``|`` a choice. Elements after ``...`` are not in the
schema: production sends them, or a later client reads them. They come last, because a reader that was generated from
the schema stops at the first of them.
"""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

_ACTION = """
    FromNumber! ToNumber! State! BatchId BroadcastId ContactId! Inbound! Created! Modified! FinalResult Label
"""
_RECORD = "Result! FinishTime! BilledAmount! QuestionResponse"
_CONFIG = "Created FromNumber LocalTimeZoneRestriction RetryConfig"
_SOUNDS = """
    LiveSoundText|LiveSoundId LiveSoundTextVoice MachineSoundText|MachineSoundId MachineSoundTextVoice
    TransferSoundText|TransferSoundId TransferSoundTextVoice TransferDigit TransferNumber DncSoundText|DncSoundId
    DncSoundTextVoice DncDigit MaxActiveTransfers
"""
TYPES = {
    "TextNotification": "SubscriptionId Text!",
    "CallFinished": "SubscriptionId Call!",
    "BroadcastNotification": "SubscriptionId Broadcast!",
    "Text": f"{_ACTION} Message TextRecord",
    "Call": f"{_ACTION} CallRecord ... AgentCall Note",
    "TextRecord": f"{_RECORD} Message! ... SwitchId CallerName",
    "CallRecord": f"{_RECORD} OriginateTime AnswerTime Duration! RecordingMeta ... SwitchId CallerName Note",
    "QuestionResponse": "Question! Response!",
    "RecordingMeta": "Name! Created! LengthInSeconds Link",
    "Label": "Name!",
    "Note": "... Text Created",
    "Broadcast": """
        Name Status LastModified Type VoiceBroadcastConfig|TextBroadcastConfig|IvrBroadcastConfig|CccBroadcastConfig!
        ... Label ResumeNextDay
    """,
    "VoiceBroadcastConfig": f"{_CONFIG} AnsweringMachineConfig {_SOUNDS}",
    "TextBroadcastConfig": f"{_CONFIG} Message! BigMessageStrategy",
    "IvrBroadcastConfig": f"{_CONFIG} DialplanXml",
    "CccBroadcastConfig": f"""
        {_CONFIG} ... AgentGroupId SmartDropSoundId ScriptId TransferNumberIdList AllowAnyTransfer TransferCallerId
        Recorded
    """,
    "LocalTimeZoneRestriction": "BeginTime EndTime",
    "RetryConfig": "MaxAttempts MinutesBetweenAttempts RetryResults! RetryPhoneTypes",
    # A subscription ends with its filter.
    "Subscription": "Enabled Endpoint NotificationFormat TriggerEvent ... NonStrictSsl ExpiresAt SubscriptionFilter",
    "SubscriptionFilter": "BroadcastId BatchId FromNumber ToNumber Inbound",
}
#: The elements that may be repeated; a choice has one of its elements, and any other element occurs once at most.
REPEATED = {"Label", "TextRecord", "CallRecord", "QuestionResponse", "RecordingMeta", "Note"}
#: The types with a required attribute ``id``.
IDENTIFIED = {"Text", "Call", "TextRecord", "CallRecord", "RecordingMeta"}

_NOTIFICATIONS = {
    **dict.fromkeys(["TextSent", "TextReceived", "TextFinished"], "TextNotification"),
    **{
        f"{kind}{event}": "BroadcastNotification"
        for kind in ("Broadcast", "Campaign")
        for event in ("Started", "Stopped", "Finished")
    },
}


def violations(element: ET.Element) -> Iterator[str]:
    """Yield each violation of the table by an element of a known type and by the elements in it."""
    kind = local_name(element)
    slots = TYPES[_NOTIFICATIONS.get(kind, kind)].replace("...", "").split()
    names = [local_name(child) for child in element]
    positions = [_position(slots, name) for name in names]
    if positions != sorted(positions):
        yield f"{kind}: the order of {names}"
    yield from (f"{kind}: {name} is unknown" for name, position in zip(names, positions, strict=True) if position < 0)
    yield from (f"{kind}: {slot} is missing" for slot in slots if slot.endswith("!") and not _parts(slot) & {*names})
    once = [position for name, position in zip(names, positions, strict=True) if name not in REPEATED]
    yield from (f"{kind}: {slots[position]} is repeated" for position in {*once} if once.count(position) > 1)
    if kind in IDENTIFIED and "id" not in element.attrib:
        yield f"{kind}: id is missing"
    for child in element:
        if local_name(child) in TYPES and (len(child) or not child.text):
            yield from violations(child)


def _position(slots: list[str], name: str) -> int:
    return next((index for index, slot in enumerate(slots) if name in _parts(slot)), -1)


def _parts(slot: str) -> set[str]:
    return {*slot.rstrip("!").split("|")}


def local_name(element: ET.Element) -> str:
    """Return the name of an element without its namespace."""
    return element.tag.rpartition("}")[2]
