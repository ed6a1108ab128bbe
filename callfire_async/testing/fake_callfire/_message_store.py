"""The fake account's texts and calls, and queries of them."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import count

from attrs import evolve, fields, frozen

from callfire_async._codec import converters
from callfire_async.models import Call, Text
from callfire_async.notifications.events import TextSent, result_of
from callfire_async.testing.factories import make_text_notification, make_text_sent
from callfire_async.testing.fake_callfire._api_error import ApiErrorResponse

__all__ = ["MessageStore"]


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


_FILTER_NAMES = frozenset(converters.wire_name(_QueryFilter, field.name) for field in fields(_QueryFilter))


class MessageStore:
    """The texts and calls of one account."""

    def __init__(self) -> None:
        self._actions: dict[type[Text | Call], dict[int, Text | Call]] = {Text: {}, Call: {}}
        # CallFire's real IDs have this form.
        self._broadcast_ids = count(12_345_003, 1000)
        self._text_ids = count(896_807_881_003, 1000)
        self._unfinished: list[Text] = []

    def add(self, action: Text | Call) -> None:
        """Add a text or call; it replaces one with the same ID."""
        self._actions[type(action)][action.id] = action

    def get(self, kind: type[Text | Call], id: int) -> Text | Call:
        """Return a text or call."""
        if id not in self._actions[kind]:
            raise ApiErrorResponse(404, f"{kind.__name__} {id} not found")
        return self._actions[kind][id]

    def query(self, kind: type[Text | Call], parameters: Mapping[str, str]) -> list[Text | Call]:
        """Return the texts or calls that match a query, in the order in which they were added."""
        known = {name: value for name, value in parameters.items() if name in _FILTER_NAMES}
        query_filter, problems = converters.structure(_QueryFilter, known, "query")
        if problems:
            raise ApiErrorResponse(400, ", ".join(problems))
        return [action for action in self._actions[kind].values() if query_filter.accepts(action)]

    def send(self, form: Mapping[str, str]) -> int:
        """Create an unfinished text for each recipient; return the ID of the broadcast."""
        for name in ("To", "Message"):
            if not form.get(name, "").strip():
                raise ApiErrorResponse(400, f"{name} is required")
        broadcast_id = next(self._broadcast_ids)
        for number in dict.fromkeys(form["To"].replace(",", " ").split()):
            text = self._text(broadcast_id, number, form)
            self.add(text)
            self._unfinished.append(text)
        return broadcast_id

    def _text(self, broadcast_id: int, number: str, form: Mapping[str, str]) -> Text:
        event = make_text_notification(
            id=next(self._text_ids),
            broadcast_id=broadcast_id,
            from_number=form.get("From", "67076"),
            to_number=number,
        )
        return evolve(event.text, message=form["Message"])

    def finish(self) -> Iterator[TextSent]:
        """Finish the sent texts, and yield an event for each."""
        unfinished, self._unfinished = self._unfinished, []
        for text in unfinished:
            event = make_text_sent(
                id=text.id,
                broadcast_id=text.broadcast_id,
                from_number=text.from_number,
                to_number=text.to_number,
                contact_id=text.contact_id,
                created=text.created,
                message=text.message or "",
            )
            self.add(event.text)
            yield event


def _is_one_of(allowed: str | None, value: str | None) -> bool:
    return allowed is None or value in allowed.split()


def _is_not_after(first: datetime | None, second: datetime | None) -> bool:
    return first is None or second is None or _aware(first) <= _aware(second)


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
