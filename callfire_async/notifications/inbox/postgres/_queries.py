# ruff: noqa: S608  # whatever is put into a statement is put there in this file, but for a name that was checked
"""
What an inbox tells PostgreSQL. Every statement is a transaction by itself; ``{schema}`` is put in by whoever sends it.

It imports the protocol.
"""

from __future__ import annotations

from callfire_async.notifications.inbox.base import SUSPECT_CRASHES

PAGE_ROWS = 200
PURGED_ROWS = 1000

# $1 to $4: what is appended, an array for each column.
_GIVEN = """
    WITH given AS MATERIALIZED (
        SELECT nextval('{schema}.delivery_ids') AS id, sha256(convert_to(key, 'UTF8')) AS digest, one.*
        FROM unnest($1::text[], $2::bytea[], $3::text[], $4::timestamptz[])
            WITH ORDINALITY AS one (key, body, content_type, received_at, number)
    )"""
_INSERT = """
    INSERT INTO {schema}.deliveries (id, key, body, content_type, received_at, due_at, updated_at)
    SELECT given.id, key, body, content_type, received_at, statement_timestamp(), statement_timestamp() FROM given"""
APPEND_ALL = f"{_GIVEN}, added AS ({_INSERT}) SELECT id, false AS duplicate FROM given ORDER BY number"
# A known key is written once more, as it was: so whoever brings it waits for whoever brought it just before, and sees
# which delivery that was. All write keys in one order, lest they wait for each other.
APPEND = f"""{_GIVEN}, kept AS (
        INSERT INTO {{schema}}.delivery_keys AS known (digest, delivery_id, appended_at)
        SELECT DISTINCT ON (digest) digest, id, statement_timestamp() FROM given ORDER BY digest, number
        ON CONFLICT (digest) DO UPDATE SET
            delivery_id = CASE WHEN known.appended_at > excluded.appended_at - make_interval(secs => $5)
                THEN known.delivery_id ELSE excluded.delivery_id END,
            appended_at = CASE WHEN known.appended_at > excluded.appended_at - make_interval(secs => $5)
                THEN known.appended_at ELSE excluded.appended_at END
        RETURNING digest, delivery_id
    ), added AS (
        {_INSERT} JOIN kept ON kept.delivery_id = given.id
    ), answers AS MATERIALIZED (
        SELECT number, delivery_id, delivery_id <> id AS duplicate FROM given JOIN kept USING (digest)
    ), revived AS (
        UPDATE {{schema}}.deliveries
        SET state = 0, attempt = 1, due_at = statement_timestamp(), updated_at = statement_timestamp()
        FROM (SELECT DISTINCT delivery_id FROM answers WHERE duplicate) AS repeated
        WHERE id = repeated.delivery_id AND state = 3
    )
    SELECT delivery_id AS id, duplicate FROM answers ORDER BY number"""

# What was settled before a time, a few at a time: {state}, {before} and {most} are told by whoever uses it.
_FORGET = """
    WITH old AS MATERIALIZED (
        SELECT id FROM {{schema}}.deliveries WHERE state = {state} AND state > 1 AND updated_at < {before}
        ORDER BY updated_at LIMIT {most} FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM {{schema}}.deliveries AS one USING old WHERE one.id = old.id RETURNING one.id, one.key
    ), forgotten AS (
        DELETE FROM {{schema}}.delivery_keys AS known USING gone
        WHERE known.digest = sha256(convert_to(gone.key, 'UTF8')) AND known.delivery_id = gone.id
    )"""
PURGE = (
    _FORGET.format(state="$1::smallint", before="$2::timestamptz", most=PURGED_ROWS)
    + """
    SELECT count(*) FROM gone"""
)
_RETAINED = "statement_timestamp() - make_interval(secs => $4)"
# More is forgotten than a claim can add. What is suspect ends the list before it; where it is the first, it goes alone.
CLAIM = (
    _FORGET.format(state=2, before=_RETAINED, most="2 * $1::bigint")
    + f""", due AS MATERIALIZED (
        SELECT id, due_at, crashes + state AS crashes FROM {{schema}}.deliveries
        WHERE state < 2 AND due_at <= statement_timestamp()
        ORDER BY due_at, id LIMIT $1::bigint FOR UPDATE SKIP LOCKED
    ), listed AS MATERIALIZED (
        SELECT id, crashes, row_number() OVER (ORDER BY due_at, id) AS number,
            count(*) FILTER (WHERE crashes >= {SUSPECT_CRASHES}) OVER (ORDER BY due_at, id) AS suspects
        FROM due
    ), leased AS (
        UPDATE {{schema}}.deliveries AS one
        SET state = 1, crashes = listed.crashes, token = $2, updated_at = statement_timestamp(),
            due_at = statement_timestamp() + make_interval(secs => $3)
        FROM listed WHERE one.id = listed.id AND (suspects = 0 OR number = 1)
        RETURNING number, one.*
    )
    SELECT * FROM leased ORDER BY number"""
)

# $1: which one, $2: under which token.
_SETTLE = """
    UPDATE {{schema}}.deliveries SET {change}, updated_at = statement_timestamp()
    WHERE id = $1 AND state = 1 AND token = $2
    RETURNING id"""
EXTEND = _SETTLE.format(change="due_at = statement_timestamp() + make_interval(secs => $3)")
ACK = _SETTLE.format(change="state = 2, event_key = $3, body = CASE WHEN $4 THEN body ELSE '' END")
NACK = _SETTLE.format(
    change="state = 0, attempt = attempt + 1, due_at = statement_timestamp() + make_interval(secs => $3),"
    " completed = $4, reason = $5"
)
RELEASE = _SETTLE.format(change="state = 0, due_at = statement_timestamp(), completed = $3")
BURY = _SETTLE.format(change="state = 3, reason = $3")
# Whether it was done under that token; $3: the state that it leaves.
SETTLED = """
    SELECT id FROM {schema}.deliveries WHERE id = $1 AND token = $2 AND state = $3::smallint"""
STATE_AFTER = {EXTEND: 1, ACK: 2, NACK: 0, RELEASE: 0, BURY: 3}

SEEN = """
    SELECT event_key FROM unnest($1::text[]) AS asked (event_key)
    WHERE event_key <> '' AND EXISTS (
        SELECT FROM {schema}.deliveries AS one
        WHERE one.event_key = asked.event_key AND one.event_key <> '' AND one.state = 2
    )"""
_ENTRIES = """
    SELECT * FROM (
        SELECT *, CASE WHEN state = 1 AND due_at <= statement_timestamp() THEN 0 ELSE state END AS shown
        FROM {schema}.deliveries
    ) AS one """
GET = f"{_ENTRIES} WHERE id = $1"
PAGE = f"{_ENTRIES} WHERE id > $1 AND ($2::smallint IS NULL OR shown = $2) ORDER BY id LIMIT {PAGE_ROWS}"
# As new, but for what has succeeded.
REPLAY = """
    WITH replayed AS (
        UPDATE {schema}.deliveries
        SET state = 0, attempt = 1, crashes = 0, due_at = statement_timestamp(), updated_at = statement_timestamp()
        WHERE state = 3 AND state > 1 AND ($1::bigint[] IS NULL OR id = ANY($1))
        RETURNING id
    )
    SELECT count(*) FROM replayed"""
STATS = """
    SELECT count(*) FILTER (WHERE due_at <= statement_timestamp()) AS ready,
        count(*) FILTER (WHERE due_at > statement_timestamp() AND state = 0) AS delayed,
        count(*) FILTER (WHERE due_at > statement_timestamp() AND state = 1) AS leased,
        (SELECT count(*) FROM {schema}.deliveries WHERE state = 2 AND state > 1) AS done,
        (SELECT count(*) FROM {schema}.deliveries WHERE state = 3 AND state > 1) AS dead,
        extract(epoch FROM statement_timestamp() - min(due_at))::float8 AS age
    FROM {schema}.deliveries WHERE state < 2"""
DUE_IN = """
    SELECT extract(epoch FROM min(due_at) - statement_timestamp())::float8 FROM {schema}.deliveries WHERE state < 2"""
