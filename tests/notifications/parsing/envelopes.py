"""Envelopes of API v2 for the tests of the parser: the published example, a real text, and any event."""

import json
from typing import Any

#: The example of the documentation, which has made-up values in the published shape.
EXAMPLE = b"""
{"timestamp": 1527695025000, "webhookId": 7420003, "webhookName": "finished texts", "resourceType": "InboundText",
 "events": [{"timestamp": 1527695025000, "webhookId": 7420003, "resourceType": "InboundText", "eventType": "Finished",
   "resource": {"id": 1205500003, "fromNumber": "12135550100", "toNumber": "67076", "attributes": null,
     "state": "FINISHED", "campaignId": 10001, "batchId": null,
     "contact": {"id": 2001, "firstName": null, "deleted": false}, "inbound": true,
     "created": 1527695024000, "modified": 1527695024000, "labels": [], "message": "hello", "finalTextResult": null,
     "records": [{"id": 3001, "toNumber": "67076", "billedAmount": 1, "finishTime": 1527695024000, "switchId": null,
       "callerName": null, "labels": null, "message": "hello", "textResult": "RECEIVED"}], "media": null}}]}
"""

#: A text as production sent it in 2018, with its keys in their order and other values: absent values are null.
REAL_TEXT: dict[str, Any] = {
    "id": 1205500004,
    "fromNumber": "12135550100",
    "toNumber": "67076",
    "attributes": None,
    "state": "FINISHED",
    "campaignId": 10001,
    "batchId": None,
    "contact": {
        "id": 2001,
        **dict.fromkeys(
            """firstName lastName zipcode homePhone workPhone mobilePhone extraPhone1 extraPhone2 extraPhone3 externalId
            externalSystem""".split()
        ),
        "properties": {},
        "deleted": False,
    },
    "inbound": True,
    "created": 1527695024123,
    "modified": 1527695024123,
    "labels": [],
    "message": "KEYWORD yes",
    "finalTextResult": None,
    "records": [
        {
            "id": 3001,
            "toNumber": "67076",
            "billedAmount": 1,
            "finishTime": 1527695024123,
            "switchId": None,
            "callerName": None,
            "labels": None,
            "message": "KEYWORD yes",
            "textResult": "RECEIVED",
        }
    ],
    "media": None,
}

#: A resource of each known type with the fewest fields.
MINIMAL = {"id": 1}


def element(resource_type: str, event_type: str, resource: object, **fields: object) -> dict[str, Any]:
    """Return an event of an envelope."""
    return {"resourceType": resource_type, "eventType": event_type, "resource": resource, **fields}


def envelope(*elements: object, **fields: object) -> bytes:
    """Return a body with these events."""
    return json.dumps({**fields, "events": elements}).encode()


def body_of(resource_type: str, event_type: str, resource: object = MINIMAL, **fields: object) -> bytes:
    """Return a body with one event, and fields of the envelope."""
    return envelope(element(resource_type, event_type, resource), **fields)
