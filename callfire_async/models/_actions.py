"""Actions, CallFire's word for texts and calls, and the records of their attempts."""

from datetime import datetime, timedelta
from decimal import Decimal

from attrs import field, frozen

from callfire_async.models._enumerations import ActionState, Result
from callfire_async.models._masking import masked_endpoint, masked_text, phone_number_field, private_text_field


@frozen
class QuestionResponse:
    """A question of an interactive voice response and the answer to it."""

    question: str | None = None
    response: str | None = private_text_field()


@frozen
class RecordingMeta:
    """A recording of a call. Its link needs no authentication."""

    id: int | None = None
    name: str | None = None
    created: datetime | None = None
    length: timedelta | None = None
    link: str | None = field(default=None, repr=masked_endpoint)


@frozen
class Note:
    """A note that an agent wrote about a call."""

    text: str | None = private_text_field()
    created: datetime | None = None


@frozen
class Record:
    """One attempt of a text or a call."""

    id: int | None = None
    result: Result | None = None
    #: Timezone-aware if CallFire sent an offset, as are all times in the models.
    finish_time: datetime | None = None
    #: In credits.
    billed_amount: Decimal | None = None
    question_responses: tuple[QuestionResponse, ...] = ()
    switch_id: str | None = None
    caller_name: str | None = private_text_field()


@frozen
class TextRecord(Record):
    """One attempt of a text."""

    message: str | None = private_text_field()


@frozen
class CallRecord(Record):
    """One attempt of a call."""

    originate_time: datetime | None = None
    answer_time: datetime | None = None
    duration: timedelta | None = None
    recordings: tuple[RecordingMeta, ...] = ()
    notes: tuple[Note, ...] = ()


@frozen
class Action:
    """The fields that texts and calls share."""

    id: int
    from_number: str | None = phone_number_field()
    to_number: str | None = phone_number_field()
    #: Attributes that the sender attached to the number, such as ``ClientData``: sorted pairs of name and value.
    to_number_attributes: tuple[tuple[str, str], ...] = field(default=(), repr=masked_text)
    state: ActionState | None = None
    batch_id: int | None = None
    broadcast_id: int | None = None
    contact_id: int | None = None
    inbound: bool | None = None
    #: Timezone-aware if CallFire sent an offset, as are all times in the models.
    created: datetime | None = None
    #: Can be one second before ``created``.
    modified: datetime | None = None
    #: None before the final result is known, or if only the last record contains it.
    final_result: Result | None = None
    #: The names of the labels.
    labels: tuple[str, ...] = ()


@frozen
class Media:
    """A picture, sound or video of a text. Its URL needs no authentication. API v2 only."""

    id: int | None = None
    account_id: int | None = None
    name: str | None = None
    created: datetime | None = None
    length_in_bytes: int | None = None
    #: For example ``JPEG``.
    media_type: str | None = None
    public_url: str | None = field(default=None, repr=masked_endpoint)


@frozen
class Text(Action):
    """A text message."""

    #: An outbound text may have its message in the records only; an inbound text also has one here.
    message: str | None = private_text_field()
    records: tuple[TextRecord, ...] = ()
    #: API v2 only.
    media: tuple[Media, ...] = ()


@frozen
class Call(Action):
    """A call."""

    records: tuple[CallRecord, ...] = ()
    agent_call: bool | None = None
    notes: tuple[Note, ...] = ()


@frozen
class DeliveryReport:
    """A carrier's report on the delivery of an outbound text. API v2 only."""

    id: int
    #: The id of the text.
    text_id: int | None = None
    broadcast_id: int | None = None
    account_id: int | None = None
    from_number: str | None = phone_number_field()
    to_number: str | None = phone_number_field()
    reported_at: datetime | None = None
    #: For example ``DELIVERED``, ``NOT_DELIVERED`` or ``CARRIER_REJECTED``.
    delivery_state: str | None = None
    #: ``DELIVERED``, ``BOUNCED``, ``OPTED_OUT``, ``NO_CREDITS`` or ``NO_DATA``.
    delivery_category: str | None = None
