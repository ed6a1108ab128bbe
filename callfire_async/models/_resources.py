"""Resources of the REST API and the containers that they are returned in."""

from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

from attrs import field, frozen

from callfire_async.models._checks import checked_boolean, checked_integer, checked_text
from callfire_async.models._enumerations import NotificationFormat, TriggerEvent
from callfire_async.models._masking import masked_endpoint, phone_number_field

T = TypeVar("T")


@frozen
class SubscriptionFilter:
    """
    A filter for a subscription's events: an event matches if it equals every field that is not None.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A number is empty, which would match every event.
    """

    broadcast_id: int | None = None
    batch_id: int | None = None
    from_number: str | None = phone_number_field()
    #: A phone number, or ``SHORTCODE:KEYWORD`` as in ``67076:KEYWORD``.
    to_number: str | None = phone_number_field()
    #: Deprecated by CallFire in favour of the trigger event.
    inbound: bool | None = None

    def __attrs_post_init__(self) -> None:
        """Check the types. IDs below 1 are refused when a filter is sent, since CallFire's own may have them."""
        for name, check in _FILTER_CHECKS.items():
            if (value := getattr(self, name)) is not None:
                check(name, value)


_FILTER_CHECKS: dict[str, Callable[[str, object], object]] = {
    "broadcast_id": checked_integer,
    "batch_id": checked_integer,
    "from_number": checked_text,
    "to_number": checked_text,
    "inbound": checked_boolean,
}


@frozen
class Subscription:
    """A subscription: CallFire sends a postback to its endpoint for each matching event."""

    id: int
    enabled: bool | None = None
    #: A URI or an e-mail address.
    endpoint: str | None = field(default=None, repr=masked_endpoint)
    #: Whether CallFire skips the TLS certificate check when it sends a postback.
    non_strict_ssl: bool | None = None
    notification_format: NotificationFormat | None = None
    trigger_event: TriggerEvent | None = None
    filter: SubscriptionFilter | None = None
    #: When the subscription ends. CallFire documents the parameter only, not its unit; milliseconds are assumed.
    expires_at: datetime | None = None


@frozen
class ResourceReference:
    """A reference to a resource that was created."""

    #: The ID of the new resource.
    id: int
    #: Its URL, or None if CallFire sent none or the resource was found by a lookup after an unknown outcome.
    location: str | None = None


@frozen
class Page(Generic[T]):
    """One page of a list."""

    #: The items on this page.
    items: tuple[T, ...]
    #: The number of items in the whole list, or None if CallFire did not send it.
    total_results: int | None
    #: The requested index of the first item in the whole list, starting at 0.
    first_result: int
