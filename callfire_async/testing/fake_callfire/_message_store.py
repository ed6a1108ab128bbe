"""The fake account's texts and calls, and queries of them."""

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import TypeVar

from attrs import evolve, fields, frozen

from callfire_async._codec import converters
from callfire_async.models import Broadcast, BroadcastStatus, Call, Text
from callfire_async.notifications.events import CallFinished, TextSent, result_of
from callfire_async.testing.fake_callfire._api_error import ApiErrorResponse
from callfire_async.testing.fake_callfire._outbound_messages import (
    create_broadcast,
    create_message,
    finish_message,
    read_recipients,
)
from callfire_async.testing.fake_callfire._parameters import Parameters, listed_values, query_number
from callfire_async.testing.fake_callfire._request_ids import RequestIds

__all__ = ["MessageStore"]

T = TypeVar("T")


@frozen
class _QueryFilter:
    """The filters of a query; a list is one value with spaces."""

    broadcast_id: int | None = None
    batch_id: int | None = None
    state: str | None = None
    result: str | None = None
    inbound: bool | None = None
    interval_begin: datetime | None = None
    interval_end: datetime | None = None
    from_number: str | None = None
    to_number: str | None = None
    label_name: str | None = None

    def accepts(self, action: Text | Call) -> bool:
        """Return whether a text or call passes all filters; the interval is that of its creation."""
        return (
            self.broadcast_id in (None, action.broadcast_id)
            and self.batch_id in (None, action.batch_id)
            and _is_one_of(self.state, action.state)
            and _is_one_of(self.result, result_of(action))
            and self.inbound in (None, bool(action.inbound))
            and _is_not_after(self.interval_begin, action.created)
            and _is_not_after(action.created, self.interval_end)
            and self.from_number in (None, action.from_number)
            and _is_one_of(self.to_number, action.to_number)
            and (self.label_name is None or self.label_name in action.labels)
        )


# Each has several values: in one parameter, separated by spaces, or in several parameters.
_LISTS = ("State", "Result", "ToNumber")
_FILTER_NAMES = frozenset(converters.wire_name(_QueryFilter, field.name) for field in fields(_QueryFilter))


class MessageStore:
    """The texts and calls of one account."""

    def __init__(self, request_ids: RequestIds) -> None:
        self._request_ids = request_ids
        self._actions: dict[type[Text | Call], dict[int, Text | Call]] = {Text: {}, Call: {}}
        self._broadcasts: dict[int, Broadcast] = {}
        # CallFire's real IDs have these forms.
        self._broadcast_ids = count(11_868_842_003, 1000)
        self._action_ids = count(902_118_640_003, 1000)
        # Each with the ID of its broadcast.
        self._unfinished: dict[type[Text | Call], deque[tuple[int, Text | Call]]] = {Text: deque(), Call: deque()}

    def add(self, action: Text | Call) -> None:
        """Add a text or call; it replaces one with the same ID."""
        self._actions[type(action)][action.id] = action

    def get(self, kind: type[Text | Call], id: int) -> Text | Call:
        """Return a text or call."""
        return _get(self._actions[kind], id)

    def get_broadcast(self, id: int) -> Broadcast:
        """Return the broadcast of a send."""
        return _get(self._broadcasts, id)

    def query(self, kind: type[Text | Call], parameters: Parameters) -> list[Text | Call]:
        """Return the texts or calls that match a query, those that were added last first."""
        lists = {name: listed_values(parameters, name) for name in _LISTS if name in parameters}
        known = {name: value for name, value in {**parameters, **lists}.items() if name in _FILTER_NAMES}
        query_filter, problems = converters.structure(_QueryFilter, known, "query")
        if problems:
            raise ApiErrorResponse(400, ", ".join(problems))
        return [action for action in reversed(self._actions[kind].values()) if query_filter.accepts(action)]

    def send(self, kind: type[Text | Call], form: Parameters) -> int:
        """Create an unfinished text or call for each recipient, unless it is repeated; return the broadcast's ID."""
        operation = f"send {kind.__name__}"
        if (earlier_id := self._request_ids.find(operation, form)) is not None:
            return earlier_id
        recipients = read_recipients(form)
        broadcast_id = self._broadcast_id(form)
        broadcast = create_broadcast(kind, broadcast_id, form, datetime.now(UTC).replace(microsecond=0))
        self._broadcasts.setdefault(broadcast_id, broadcast)
        for recipient in recipients:
            action = create_message(kind, self._unused_id(), recipient, broadcast, form)
            self.add(action)
            if recipient.is_valid:
                self._unfinished[kind].append((broadcast_id, action))
        return self._request_ids.remember(operation, form, broadcast_id)

    def _broadcast_id(self, form: Parameters) -> int:
        """Return the ID of the broadcast to which a send belongs: one that the form has, or a new one."""
        return query_number(form, "BroadcastId", 0) or next(self._broadcast_ids)

    def _unused_id(self) -> int:
        """Return a new ID; the account may have texts and calls whose IDs the caller has chosen."""
        return next(id for id in self._action_ids if not any(id in actions for actions in self._actions.values()))

    def finish(self, kind: type[Text | Call] = Text) -> Iterator[TextSent | CallFinished]:
        """Finish the texts or calls that were sent, and yield an event for each."""
        unfinished = self._unfinished[kind]
        while unfinished:
            broadcast_id, message = unfinished.popleft()
            event = finish_message(message)
            self.add(event.subject)
            self._broadcasts[broadcast_id] = evolve(self._broadcasts[broadcast_id], status=BroadcastStatus.FINISHED)
            yield event


def _get(items: Mapping[int, T], id: int) -> T:
    if id not in items:
        raise ApiErrorResponse(404, "Not Found")
    return items[id]


def _is_one_of(allowed: str | None, value: str | None) -> bool:
    return allowed is None or value in allowed.split()


def _is_not_after(first: datetime | None, second: datetime | None) -> bool:
    return first is None or second is None or _aware(first) <= _aware(second)


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
