"""Print plans and the results of applying them, for subscriptions and webhooks."""

from collections.abc import Callable, Mapping
from typing import Any

from callfire_async.cli._exit import FAILED
from callfire_async.cli._output import echo, echo_json
from callfire_async.client.plan import ApplyResult, Plan
from callfire_async.client.webhook_plan import WebhookApplyResult, WebhookPlan
from callfire_async.inspector.views import to_jsonable

__all__ = ["echo_plan", "echo_result"]


def echo_plan(plan: Plan | WebhookPlan, *, as_json: bool) -> None:
    """Print the changes of a plan."""
    if as_json:
        echo_json(_plan_json(plan))
    else:
        echo(str(plan))


def echo_result(
    plan: Plan | WebhookPlan,
    result: ApplyResult | WebhookApplyResult,
    describe: Callable[[Mapping[str, Any]], str],
    *,
    as_json: bool,
) -> int:
    """
    Print the result of applying a plan; return the exit status.

    Args:
        plan: The plan.
        result: Its result.
        describe: Describes the subject of a failed change, given a spec or a resource as a JSON object.
        as_json: Whether to print one JSON document.
    """
    errors = [(to_jsonable(failed), str(error)) for failed, error in result.errors.items()]
    if as_json:
        failures = [{"failed": subject, "error": error} for subject, error in errors]
        echo_json({"plan": _plan_json(plan), "ids": sorted(result.ids.values()), "errors": failures})
    else:
        for subject, error in errors:
            id = f"{subject['id']} " if "id" in subject else ""
            echo(f"failed: {id}{describe(subject)}: {error}")
        success = "nothing to change" if plan.is_empty else "done"
        echo(f"{len(errors)} failed; apply the file again" if errors else success)
    return FAILED if errors else 0


def _plan_json(plan: Plan | WebhookPlan) -> dict[str, Any]:
    return {"is_empty": plan.is_empty, **to_jsonable(plan)}
