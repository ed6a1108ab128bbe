"""Apply a plan to an account."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from callfire_async.client._plans.comparison import (
    BaseApplyResult,
    BasePlan,
    M,
    R,
    ResourceKey,
    ResourceKind,
    S,
    TokenMatcher,
)
from callfire_async.errors import CallFireError, NotFoundError
from callfire_async.models import ResourceReference

C = TypeVar("C")  # a change
S_contra = TypeVar("S_contra", contravariant=True)
M_contra = TypeVar("M_contra", contravariant=True)

# Leaves most of the pool to other callers.
_MAX_CONCURRENT_CHANGES = 4


class Changes(Protocol[S_contra, M_contra]):
    """The changes that a plan can make to an account."""

    async def create(self, spec: S_contra) -> ResourceReference:
        """Create the resource of a spec."""
        ...

    async def update(self, match: M_contra) -> None:
        """Change an existing resource to match its spec."""
        ...

    async def delete(self, id: int, /) -> None:
        """Delete a resource."""
        ...


class PlanExecutor(Generic[S, M, R]):
    """
    Applies one plan and collects the IDs and errors.

    Args:
        kind: The kind of resources.
        changes: Changes the account.
        tokens: The tokens of the plan.
        existing_ids: The IDs of all resources that the account has now, by key, if the plan creates any.
    """

    def __init__(
        self,
        kind: ResourceKind[S, M, R, Any],
        changes: Changes[S, M],
        tokens: TokenMatcher | None,
        existing_ids: Mapping[ResourceKey, int],
    ) -> None:
        self._kind = kind
        self._changes = changes
        self._tokens = tokens
        self._existing_ids = existing_ids
        self._ids: dict[S, int] = {}
        self._errors: dict[S | R, CallFireError] = {}

    async def run(self, plan: BasePlan[S, M, R]) -> tuple[dict[S, int], dict[S | R, CallFireError]]:
        """Apply the plan; create before deleting, so that no event is missed in between."""
        self._ids |= {match.spec: self._kind.existing_of(match).id for match in (*plan.unchanged, *plan.update)}
        await self._apply_all(plan.create, self._create)
        await self._apply_all(plan.update, self._changes.update, _spec_of)
        await self._apply_all(plan.replace, self._replace, _spec_of)
        await self._apply_all(plan.delete, self._delete)
        return self._ids, self._errors

    async def _apply_all(
        self,
        items: Sequence[C],
        change: Callable[[C], Awaitable[None]],
        key_of_error: Callable[[C], Any] = lambda item: item,
    ) -> None:
        remaining = iter(items)

        async def work() -> None:
            for item in remaining:
                try:
                    await change(item)
                except CallFireError as error:
                    self._errors[key_of_error(item)] = error

        async with asyncio.TaskGroup() as tasks:
            for _ in items[:_MAX_CONCURRENT_CHANGES]:
                tasks.create_task(work())

    async def _create(self, spec: S) -> None:
        existing_id = self._existing_ids.get(self._kind.key_of(spec, self._tokens))
        self._ids[spec] = (await self._changes.create(spec)).id if existing_id is None else existing_id

    async def _replace(self, match: M) -> None:
        await self._create(match.spec)
        await self._delete(self._kind.existing_of(match))

    async def _delete(self, item: R) -> None:
        with suppress(NotFoundError):
            await self._changes.delete(item.id)


def _spec_of(match: Any) -> Any:
    return match.spec


def ids_of(
    result: BaseApplyResult[S, R], specs: Sequence[S], kind: ResourceKind[S, M, R, Any], tokens: TokenMatcher | None
) -> tuple[int, ...]:
    """Return the IDs in the order of *specs*, or raise the first error, with the number of errors in a note."""
    if result.errors:
        raise _first_error(result.errors.values(), f"{len(specs)} {kind.noun}s")
    ids = {kind.key_of(spec, tokens): id for spec, id in result.ids.items()}
    return tuple(ids[kind.key_of(spec, tokens)] for spec in specs)


def _first_error(errors: Collection[CallFireError], all_items: str) -> CallFireError:
    first = next(iter(errors))
    first.add_note(f"{len(errors)} of {all_items} failed; the others are up to date")
    return first
