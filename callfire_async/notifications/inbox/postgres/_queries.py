# ruff: noqa: S608  # statements are built from parts of this file and a schema name that was validated
"""
SQL statements of `PostgresInbox`. Each is a transaction of its own, except acks, which share one.

The caller formats ``{schema}``. States are stored as numbers: 0 ready or delayed, 1 leased, 2 done, 3 dead.
"""

from __future__ import annotations

from callfire_async.notifications.inbox.base import SUSPECT_CRASHES

DONE, DEAD = 2, 3
PAGE_ROWS = 200
PURGED_ROWS = 1000

# $1 to $4: an array for each column of the deliveries.
_GIVEN = """
    WITH given AS MATERIALIZED (
        SELECT nextval('{schema}.delivery_ids') AS id, sha256(convert_to(key, 'UTF8')) AS digest, appended.*
        FROM unnest($1::text[], $2::bytea[], $3::text[], $4::timestamptz[])
            WITH ORDINALITY AS appended (key, body, content_type, received_at, number)
    )"""
_INSERT = """
    INSERT INTO {schema}.deliveries (id, key, body, content_type, received_at, due_at, updated_at)
    SELECT given.id, key, body, content_type, received_at, statement_timestamp(), statement_timestamp() FROM given"""
APPEND_ALL = f"{_GIVEN}, added AS ({_INSERT}) SELECT id, false AS duplicate FROM given ORDER BY number"
# A known key is updated without a change, so that a concurrent append of the same key waits for the first and sees its
# delivery. Keys are written in one order, so that two appends cannot deadlock.
APPEND = f"""{_GIVEN}, claimed_keys AS (
        INSERT INTO {{schema}}.delivery_keys AS known (digest, delivery_id, appended_at)
        SELECT DISTINCT ON (digest) digest, id, statement_timestamp() FROM given ORDER BY digest, number
        ON CONFLICT (digest) DO UPDATE SET
            delivery_id = CASE WHEN known.appended_at > excluded.appended_at - make_interval(secs => $5)
                THEN known.delivery_id ELSE excluded.delivery_id END,
            appended_at = CASE WHEN known.appended_at > excluded.appended_at - make_interval(secs => $5)
                THEN known.appended_at ELSE excluded.appended_at END
        RETURNING digest, delivery_id
    ), added AS (
        {_INSERT} JOIN claimed_keys ON claimed_keys.delivery_id = given.id
    ), results AS MATERIALIZED (
        SELECT number, delivery_id, delivery_id <> id AS duplicate FROM given JOIN claimed_keys USING (digest)
    ), revived AS (
        UPDATE {{schema}}.deliveries
        SET state = 0, attempt = 1, due_at = statement_timestamp(), updated_at = statement_timestamp()
        FROM (SELECT DISTINCT delivery_id FROM results WHERE duplicate AND ($6::boolean[])[number]) AS repeated
        WHERE id = repeated.delivery_id AND state = 3
    )
    SELECT delivery_id AS id, duplicate FROM results ORDER BY number"""

# Deletes up to {limit} deliveries that became done or dead before a time.
_DELETE_OLD = """
    WITH old AS MATERIALIZED (
        SELECT id FROM {{schema}}.deliveries WHERE state = {state} AND state > 1 AND updated_at < {before}
        ORDER BY updated_at LIMIT {limit} FOR UPDATE SKIP LOCKED
    ), deleted AS (
        DELETE FROM {{schema}}.deliveries AS delivery USING old WHERE delivery.id = old.id
        RETURNING delivery.id, delivery.key
    ), deleted_keys AS (
        DELETE FROM {{schema}}.delivery_keys AS known USING deleted
        WHERE known.digest = sha256(convert_to(deleted.key, 'UTF8')) AND known.delivery_id = deleted.id
    )"""
PURGE = (
    _DELETE_OLD.format(state="$1::smallint", before="$2::timestamptz", limit=PURGED_ROWS)
    + """
    SELECT count(*) FROM deleted"""
)
_RETENTION_START = "statement_timestamp() - make_interval(secs => $4)"
# Deletes twice the number of deliveries that it can add. A suspect of crashes is leased alone: the list ends before it,
# or after it if it is the first.
CLAIM = (
    _DELETE_OLD.format(state=DONE, before=_RETENTION_START, limit="2 * $1::bigint")
    + f""", due AS MATERIALIZED (
        SELECT id, due_at, crashes + state AS crashes, token <> '' AS was_leased FROM {{schema}}.deliveries
        WHERE state < 2 AND due_at <= statement_timestamp()
        ORDER BY due_at, id LIMIT $1::bigint FOR UPDATE SKIP LOCKED
    ), listed AS MATERIALIZED (
        SELECT id, crashes, was_leased, row_number() OVER (ORDER BY due_at, id) AS number,
            count(*) FILTER (WHERE crashes >= {SUSPECT_CRASHES}) OVER (ORDER BY due_at, id) AS suspects
        FROM due
    ), leased AS (
        UPDATE {{schema}}.deliveries AS delivery
        SET state = 1, crashes = listed.crashes, token = $2, updated_at = statement_timestamp(),
            due_at = statement_timestamp() + make_interval(secs => $3)
        FROM listed WHERE delivery.id = listed.id AND (suspects = 0 OR number = 1)
        RETURNING number, was_leased, delivery.*
    )
    SELECT * FROM leased ORDER BY number"""
)
# $1: tokens of claims whose leases have no worker.
RETURN = """
    UPDATE {schema}.deliveries SET state = 0, due_at = statement_timestamp(), updated_at = statement_timestamp()
    WHERE state = 1 AND state < 2 AND token = ANY($1::text[])"""
# Executed after a claim has committed: a transaction that `COMPLETE` was part of may have committed after the claim's
# snapshot, but before the claim locked the delivery. Only a delivery with an earlier lease can have completions.
COMPLETIONS = """
    SELECT delivery_id, handler FROM {schema}.completions WHERE delivery_id = ANY($1::bigint[])"""

# Executed in the caller's transaction. FOR KEY SHARE conflicts with the FOR UPDATE of a claim, which skips the delivery
# until the transaction ends, but not with an UPDATE, so a lease is extended meanwhile. The id of the
# transaction distinguishes a repeated call from an earlier transaction that has committed.
COMPLETE = """
    WITH held AS MATERIALIZED (
        SELECT id FROM {schema}.deliveries WHERE id = {id}::bigint AND state = 1 AND token = {token}::text FOR KEY SHARE
    ), completed AS (
        INSERT INTO {schema}.completions (delivery_id, handler) SELECT id, {handler}::text FROM held
        ON CONFLICT (delivery_id, handler) DO NOTHING
        RETURNING handler
    )
    SELECT CASE
        WHEN NOT EXISTS (SELECT FROM {schema}.inbox_version WHERE inbox_id = {inbox_id}::text) THEN 'other database'
        WHEN NOT EXISTS (SELECT FROM held) THEN 'lost'
        WHEN EXISTS (SELECT FROM completed) THEN 'completed'
        WHEN EXISTS (
            SELECT FROM {schema}.completions
            WHERE delivery_id = {id}::bigint AND handler = {handler}::text
                AND transaction_id = pg_catalog.txid_current()
        ) THEN 'completed'
        ELSE 'completed before'
    END"""

# $1: the id, $2: the lease's token.
_SETTLE = """
    UPDATE {{schema}}.deliveries SET {change}, updated_at = statement_timestamp()
    WHERE id = $1 AND state = 1 AND token = $2
    RETURNING id, token"""
EXTEND = _SETTLE.format(change="due_at = statement_timestamp() + make_interval(secs => $3)")
ACK = _SETTLE.format(change="state = 2, reason = '', event_key = $3, body = CASE WHEN $4 THEN body ELSE '' END")
NACK = _SETTLE.format(
    change="state = 0, attempt = attempt + 1, due_at = statement_timestamp() + make_interval(secs => $3),"
    " completed = $4, reason = $5"
)
RELEASE = _SETTLE.format(change="state = 0, due_at = statement_timestamp(), completed = $3")
DEAD_LETTER = _SETTLE.format(change="state = 3, completed = $3, reason = $4")
# Whether a lease with this token led to the state $3. The lock is a write, so that the commit waits for a synchronous
# standby: the primary alone may have the settlement, and a failover would lose it.
SETTLED = """
    SELECT id FROM {schema}.deliveries WHERE id = $1 AND token = $2 AND state = $3::smallint FOR NO KEY UPDATE"""
STATE_AFTER = {EXTEND: 1, ACK: DONE, NACK: 0, RELEASE: 0, DEAD_LETTER: DEAD}

HANDLED = """
    SELECT event_key FROM unnest($1::text[]) AS wanted (event_key)
    WHERE event_key <> '' AND EXISTS (
        SELECT FROM {schema}.deliveries AS delivery
        WHERE delivery.event_key = wanted.event_key AND delivery.event_key <> '' AND delivery.state = 2
    )"""
_ENTRIES = """
    SELECT * FROM (
        SELECT *, CASE
            WHEN state = 3 THEN 'dead'
            WHEN state = 2 THEN 'done'
            WHEN due_at <= statement_timestamp() THEN 'ready'
            WHEN state = 1 THEN 'leased'
            ELSE 'delayed'
        END AS state_name FROM {schema}.deliveries
    ) AS entries """
GET = f"{_ENTRIES} WHERE id = $1"
PAGE = f"{_ENTRIES} WHERE id > $1 AND ($2::text IS NULL OR state_name = $2) ORDER BY id LIMIT {PAGE_ROWS}"
# Keeps the handlers that have succeeded.
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
