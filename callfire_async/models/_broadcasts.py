"""Broadcasts, which the API also calls campaigns, and their configurations."""

from datetime import datetime, time

from attrs import frozen

from callfire_async.models._enumerations import BroadcastStatus, BroadcastType, Result
from callfire_async.models._masking import phone_number_field, private_text_field


@frozen
class LocalTimeZoneRestriction:
    """The daily period in which a number may be contacted, in the number's own time zone."""

    begin_time: time | None = None
    end_time: time | None = None


@frozen
class RetryConfig:
    """The retry settings of a broadcast."""

    max_attempts: int | None = None
    minutes_between_attempts: int | None = None
    retry_results: tuple[Result, ...] = ()
    retry_phone_types: tuple[str, ...] = ()


@frozen
class BroadcastConfig:
    """The fields that all broadcast configurations share."""

    id: int | None = None
    created: datetime | None = None
    from_number: str | None = phone_number_field()
    local_time_zone_restriction: LocalTimeZoneRestriction | None = None
    retry_config: RetryConfig | None = None


@frozen
class TextBroadcastConfig(BroadcastConfig):
    """The configuration of a text broadcast."""

    message: str | None = private_text_field()
    #: ``SEND_MULTIPLE``, ``DO_NOT_SEND`` or ``TRIM``.
    big_message_strategy: str | None = None


@frozen
class VoiceBroadcastConfig(BroadcastConfig):
    """The configuration of a voice broadcast: sounds, and the digits for a transfer or an opt-out."""

    answering_machine_config: str | None = None
    live_sound_text: str | None = private_text_field()
    live_sound_id: int | None = None
    #: The voice that speaks the text, for example ``FEMALE1``.
    live_sound_text_voice: str | None = None
    machine_sound_text: str | None = private_text_field()
    machine_sound_id: int | None = None
    machine_sound_text_voice: str | None = None
    transfer_sound_text: str | None = private_text_field()
    transfer_sound_id: int | None = None
    transfer_sound_text_voice: str | None = None
    transfer_digit: str | None = None
    transfer_number: str | None = phone_number_field()
    dnc_sound_text: str | None = private_text_field()
    dnc_sound_id: int | None = None
    dnc_sound_text_voice: str | None = None
    dnc_digit: str | None = None
    max_active_transfers: int | None = None


@frozen
class IvrBroadcastConfig(BroadcastConfig):
    """The configuration of an interactive voice response (IVR) broadcast."""

    dialplan_xml: str | None = private_text_field()


@frozen
class CccBroadcastConfig(BroadcastConfig):
    """The configuration of a cloud call center (CCC) broadcast, in which agents talk to the people who are called."""

    agent_group_id: int | None = None
    #: The sound that an agent can leave on an answering machine.
    smart_drop_sound_id: int | None = None
    script_id: int | None = None
    transfer_number_id_list: tuple[int, ...] = ()
    allow_any_transfer: bool | None = None
    transfer_caller_id: str | None = phone_number_field()
    recorded: bool | None = None


@frozen
class Broadcast:
    """A broadcast (campaign) of texts or calls."""

    id: int
    name: str | None = None
    status: BroadcastStatus | None = None
    last_modified: datetime | None = None
    type: BroadcastType | None = None
    labels: tuple[str, ...] = ()
    config: TextBroadcastConfig | VoiceBroadcastConfig | IvrBroadcastConfig | CccBroadcastConfig | None = None
    #: Whether the broadcast continues on the next day if the permitted hours end.
    resume_next_day: bool | None = None
