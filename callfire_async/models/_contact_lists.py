"""Contact lists of API v2."""

from datetime import datetime

from attrs import frozen


@frozen
class ContactList:
    """A list of contacts, whose numbers CallFire validates after an upload."""

    id: int
    name: str | None = None
    #: Number of contacts.
    size: int | None = None
    created: datetime | None = None
    #: For example ``ACTIVE``, ``VALIDATING`` or ``ERRORS``.
    status: str | None = None
