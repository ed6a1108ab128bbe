"""The first leases of a `JetStreamInbox`, which are in the servers' memory."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import nats
import pytest
from engines.nats import NatsServer, running_nats
from nats.js.api import StorageType, StreamConfig
from notifications.inbox.jetstream.operations import admin, next_lease
from notifications.inbox.suite import DEADLINE, LEASE, all_entries, lease_of
from notifications.inbox.waiting import until

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox import Delivery, InboxStats
from callfire_async.notifications.inbox.jetstream import JetStreamInbox, _first_leases
from callfire_async.notifications.inbox.jetstream._consumer import PullConsumer
from callfire_async.notifications.inbox.jetstream._records import DeliveryRecord, Message
from callfire_async.notifications.inbox.jetstream._stream import PendingMessage, PublishAck, Stream

SHORT = 0.05
LATER = datetime.now(UTC) + timedelta(days=1)

# If a server dies during a handshake, nats-py drops the connection without closing it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


async def records_and_leases(inbox: JetStreamInbox) -> tuple[int, int]:
    """Return the number of records on disk, and of leases in memory."""
    store = inbox._store
    records, _ = await store.opened.records.count(store.record_subject("*"))
    leases, _ = await store.opened.first_leases._stream.count(f"{store.streams.leases}.*")
    return records, leases


async def lose_memory(server: NatsServer, name: str) -> None:
    async with admin(server) as jetstream:
        await jetstream.purge_stream(f"{name}-leases")


async def test_a_first_lease_is_in_memory_only(nats_server, name, inbox, other):
    """Every process sees it; the record is written with its end."""
    await inbox.append_many([Delivery(b"1"), Delivery(b"2")])
    leases = await inbox.claim(2, lease=LEASE)
    while_leased = await records_and_leases(inbox)
    stats, states = await other.stats(), [entry.state for entry in await all_entries(other)]
    assert [await inbox.ack(lease) for lease in leases] == [True, True]

    async with admin(nats_server) as jetstream:
        assert (await jetstream.stream_info(f"{name}-leases")).config.storage == StorageType.MEMORY
    assert (while_leased, stats, states) == ((0, 2), InboxStats(leased=2), ["leased", "leased"])
    assert (await other.stats(), (await records_and_leases(inbox))[0]) == (InboxStats(done=2), 2)


async def test_the_lease_of_a_redelivery_is_a_record(inbox, other):
    """The first lease has expired, which counts as a crash, and its holder cannot settle the delivery."""
    await inbox.append(Delivery(b"body"))
    late = await lease_of(inbox, lease=SHORT)

    lease = await next_lease(other)

    assert (lease.crashes, (await records_and_leases(inbox))[0]) == (1, 1)
    assert not await inbox.ack(late)
    assert await other.ack(lease)


async def test_an_extended_lease_is_a_record(inbox):
    """So that it survives the servers."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)

    assert await inbox.extend(lease, LEASE)

    assert (await records_and_leases(inbox))[0] == 1
    assert await inbox.ack(lease)


async def test_a_lease_that_was_lost_from_memory_can_be_settled(nats_server, name, inbox):
    """Its delivery appears as ready, but no other process gets it."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    await lose_memory(nats_server, name)

    assert (await inbox.stats(), await inbox.claim(1, lease=LEASE)) == (
        InboxStats(ready=1, oldest_ready_age=pytest.approx(0, abs=DEADLINE)),
        [],
    )
    assert await inbox.ack(lease)
    assert await inbox.stats() == InboxStats(done=1)


async def test_an_ack_that_failed_can_be_repeated_after_the_memory_was_lost(nats_server, name, inbox, monkeypatch):
    """The restart of a server can cause both."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)

    async def fail(record: DeliveryRecord) -> DeliveryRecord | None:
        raise InboxUnavailableError("no response")

    with monkeypatch.context() as patch:
        patch.setattr(inbox._store, "write", fail)
        with pytest.raises(InboxUnavailableError):
            await inbox.ack(lease)
    await lose_memory(nats_server, name)

    assert await inbox.ack(lease)
    assert not await inbox.ack(lease)


async def test_an_ack_during_an_extend_holds_a_lease_that_was_lost_from_memory(nats_server, name, inbox, monkeypatch):
    """The settlement that is in flight has not ended the lease."""
    appended = await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    await lose_memory(nats_server, name)
    extending, proceed = await start_and_pause(inbox, monkeypatch, inbox.extend(lease, LEASE))

    assert await inbox.ack(lease)
    proceed.set()
    assert not await extending
    assert (await inbox.get(appended.id)).state == "done"
    assert inbox._leases._held == {}


async def start_and_pause(
    inbox: JetStreamInbox, monkeypatch: pytest.MonkeyPatch, call: Awaitable[bool]
) -> tuple[asyncio.Future[bool], asyncio.Event]:
    """Start a settlement, and stop before its record is written until the event is set."""
    store, reached, proceed = inbox._store, asyncio.Event(), asyncio.Event()
    write = store.write

    async def stopping(record: DeliveryRecord) -> DeliveryRecord | None:
        monkeypatch.setattr(store, "write", write)
        reached.set()
        await proceed.wait()
        return await write(record)

    monkeypatch.setattr(store, "write", stopping)
    started = asyncio.ensure_future(call)
    await reached.wait()
    return started, proceed


async def test_closing_does_not_release_a_lease_that_is_being_settled(inbox, monkeypatch):
    """The delivery would be handled again although its ack follows."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    acking, proceed = await start_and_pause(inbox, monkeypatch, inbox.ack(lease))

    await inbox._leases.release_all(DEADLINE)

    proceed.set()
    assert await acking


async def test_an_ack_whose_lease_could_not_be_read_can_be_repeated(nats_server, name, inbox, monkeypatch):
    """The lease has expired, and is held by this process only."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox, lease=0.0)
    await lose_memory(nats_server, name)
    with monkeypatch.context() as patch:
        patch.setattr(inbox._store.opened.records, "get_last", _unavailable)
        with pytest.raises(InboxUnavailableError):
            await inbox.ack(lease)

    assert await inbox.ack(lease)
    assert not await inbox.ack(lease)


async def _unavailable(*_: object) -> None:
    raise InboxUnavailableError("no response")


async def test_an_ack_without_a_response_can_be_repeated_until_its_event_is_marked(inbox, monkeypatch):
    """The ack was executed, and the first repeat fails while it marks the event."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    records = inbox._store.opened.records
    publish = records.publish

    async def executed(*messages: PendingMessage) -> None:
        await publish(*messages)
        await _unavailable()

    for attribute, failing in (("opened.records.publish", executed), ("write_event", _unavailable)):
        with monkeypatch.context() as patch:
            target = records if attribute.endswith("publish") else inbox._store
            patch.setattr(target, attribute.rpartition(".")[2], failing)
            with pytest.raises(InboxUnavailableError):
                await inbox.ack(lease, event_key="event")

    assert await inbox.ack(lease, event_key="event")
    assert await inbox.handled(["event"]) == {"event"}
    assert inbox._leases._unanswered == {}


async def test_a_claim_that_fails_counts_no_crash(inbox, other, monkeypatch):
    """For example while the disk is full; the crash before it counts once."""
    appended = await inbox.append(Delivery(b"body"))
    await lease_of(inbox, lease=0.0)
    (pulled,) = await _pull(other)
    with monkeypatch.context() as patch:
        patch.setattr(other._store.opened.records, "publish", _unavailable)
        for _ in range(3):
            with pytest.raises(InboxUnavailableError):
                await other._leases._claim([pulled], 0.0)
    state = (await inbox.get(appended.id)).state

    (lease,) = await other._leases._claim([pulled], LEASE)
    assert (state, lease.crashes, lease.attempt) == ("ready", 1, 1)
    assert await other.ack(lease)


async def test_a_lease_whose_write_was_repeated_is_not_another_one(inbox, monkeypatch):
    """The first write was executed without a response."""
    await inbox.append(Delivery(b"body"))
    stream = inbox._store.opened.first_leases._stream
    publish = stream.publish

    async def repeated(message: PendingMessage) -> list[PublishAck]:
        await publish(message)
        return await publish(message)

    monkeypatch.setattr(stream, "publish", repeated)
    (lease,) = await inbox.claim(1, lease=LEASE)

    assert (await records_and_leases(inbox), lease.crashes) == ((0, 1), 0)
    assert await inbox.ack(lease)


async def test_a_lease_that_cannot_be_read_is_named(nats_server, name, inbox):
    """Like a record that cannot be read; a later version may have written it."""
    appended = await inbox.append(Delivery(b"body"))
    async with admin(nats_server) as jetstream:
        await jetstream.publish(f"{name}-leases.{appended.id}", b"later")

    with pytest.raises(InboxError, match=f"cannot read the record of delivery {appended.id}; a later version"):
        await inbox.get(appended.id)


async def test_a_delivery_that_is_redelivered_after_the_memory_was_lost_has_no_crash(nats_server, name, inbox, other):
    """Its first lease is unknown, but cannot be settled any more."""
    await inbox.append(Delivery(b"body"))
    late = await lease_of(inbox, lease=SHORT)
    await lose_memory(nats_server, name)

    lease = await next_lease(other)

    assert (lease.attempt, lease.crashes) == (1, 0)
    assert not await inbox.ack(late)
    assert await other.ack(lease)


async def test_a_handled_delivery_is_not_leased_again(nats_server, name, inbox, other, monkeypatch):
    """Although the consumer and the servers' memory have lost its lease, and a replica does not have its record."""

    async def fail(*_: object, **__: object) -> None:
        raise InboxUnavailableError("the message stays in the queue")

    async def no_records(*_: object) -> list[object]:
        return []

    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    await lose_memory(nats_server, name)
    with monkeypatch.context() as patched:
        patched.setattr(PullConsumer, "ack", fail)
        assert await inbox.ack(lease)
    async with admin(nats_server) as jetstream:
        await jetstream.delete_consumer(name, "workers")
    monkeypatch.setattr(Stream, "last_of", no_records)

    assert await other.claim(1, lease=LEASE) == []
    assert (await other._store.opened.queue.count(other._streams.queue_subjects))[0] == 0


async def test_a_late_worker_cannot_settle_a_purged_delivery(inbox, other):
    """It would leave a record without a body."""
    await inbox.append(Delivery(b"body"))
    late = await lease_of(inbox, lease=SHORT)
    await other.ack(await next_lease(other))
    await other.purge(done_before=LATER)

    assert [await inbox.nack(late, delay=0), await inbox.ack(late), await all_entries(inbox)] == [False, False, []]


async def test_a_restarted_server_has_the_stream_again(name, caplog):
    """It has lost it; the claims after the restart use it without an error."""
    caplog.set_level(logging.INFO)
    with running_nats() as server:
        async with JetStreamInbox(server.url(), name=name) as inbox:
            await inbox.append(Delivery(b"1"))
            first = await lease_of(inbox)
            server.kill()
            server.start()
            server.wait()
            await inbox.append(Delivery(b"2"))
            second = await next_lease(inbox)

            assert await records_and_leases(inbox) == (0, 1)
            assert [await inbox.ack(lease) for lease in (first, second)] == [True, True]
    assert "cannot keep leases" not in caplog.text


async def test_without_memory_leases_are_on_disk(nats_server, name, caplog):
    """For example if another stream has the subjects; that is logged once."""
    caplog.set_level(logging.INFO)
    async with admin(nats_server) as jetstream:
        await jetstream.add_stream(StreamConfig(name=f"{name}-taken", subjects=[f"{name}-leases.*"]))

    async with JetStreamInbox(nats_server.url(), name=name) as inbox, asyncio.timeout(DEADLINE):
        await inbox.append_many([Delivery(b"1"), Delivery(b"2")])
        leases = await inbox.claim(2, lease=LEASE)

        assert (await inbox.stats()).leased == 2
        assert [await inbox.ack(lease) for lease in leases] == [True, True]
    (message,) = [message for message in caplog.messages if "cannot keep leases" in message]
    assert message.startswith(
        f"cannot keep leases in memory in stream {name}-leases, writing them to disk for 300 s: NATS"
    )


async def test_a_deleted_stream_is_created_again(nats_server, name, inbox, monkeypatch, caplog):
    """Until then, leases are on disk. The log does not call the deliveries lost, which are in another stream."""
    caplog.set_level(logging.INFO)
    async with admin(nats_server) as jetstream:
        await jetstream.delete_stream(f"{name}-leases")
    await inbox.append_many([Delivery(b"1"), Delivery(b"2"), Delivery(b"3")])
    on_disk = await inbox.claim(1, lease=LEASE)
    monkeypatch.setattr(_first_leases.time, "monotonic", _ten_minutes_later())
    in_memory = await inbox.claim(2, lease=LEASE)

    assert await records_and_leases(inbox) == (1, 2)
    assert [await inbox.ack(lease) for lease in (*on_disk, *in_memory)] == [True] * 3
    (message,) = [message for message in caplog.messages if "cannot keep leases" in message]
    assert message.endswith(f"stream {name}-leases on NATS at 127.0.0.1:{nats_server.port} is missing")


def _ten_minutes_later():
    monotonic = _first_leases.time.monotonic
    return lambda: monotonic() + 600


async def test_a_server_without_a_response_does_not_stop_claims(inbox, monkeypatch, caplog):
    """The lease is written to disk after a moment."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(_first_leases, "_MAX_WAIT_SECONDS", SHORT)
    monkeypatch.setattr(inbox._store.opened.first_leases, "_stream", _Silent())
    await inbox.append(Delivery(b"body"))

    assert await inbox.ack(await lease_of(inbox))
    assert "to disk for 300 s: no response" in caplog.text


class _Silent:
    """A stream that does not respond."""

    async def publish(self, message: object) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Close nothing."""


async def test_an_existing_stream_may_have_other_settings(nats_server, name):
    """The operator's."""
    async with admin(nats_server) as jetstream:
        await jetstream.add_stream(
            StreamConfig(name=f"{name}-leases", subjects=[f"{name}-leases.*"], allow_direct=True)
        )

    async with JetStreamInbox(nats_server.url(), name=name) as inbox:
        await inbox.append(Delivery(b"body"))
        lease = await lease_of(inbox)
        assert await records_and_leases(inbox) == (0, 1)
        assert await inbox.ack(lease)


async def test_the_queue_of_another_inbox_gets_no_leases(nats_server, name, caplog):
    """It would handle them as deliveries."""
    caplog.set_level(logging.INFO)
    async with (
        JetStreamInbox(nats_server.url(), name=f"{name}-leases") as leases,
        JetStreamInbox(nats_server.url(), name=name) as inbox,
    ):
        await inbox.append(Delivery(b"body"))
        lease = await lease_of(inbox)

        assert (await inbox.stats(), await leases.stats()) == (InboxStats(leased=1), InboxStats())
        assert await inbox.ack(lease)
    assert f"to disk for 300 s: it is the queue of inbox {name}-leases" in caplog.text


@pytest.mark.parametrize("operation", ["write", "get", "create"])
async def test_a_server_is_not_left_for_the_leases_in_memory(nats_server, name, monkeypatch, operation):
    """The inbox can do without them, and a reconnect would end their pause."""
    servers = [nats_server.url(), nats_server.url().replace("127.0.0.1", "localhost")]
    async with JetStreamInbox(servers, name=name) as inbox:
        opened = inbox._store.opened
        operations: dict[str, Callable[[], Awaitable[object]]] = {
            "write": lambda: opened.first_leases._stream.publish(PendingMessage(f"{name}-leases.1", b"", {})),
            "get": lambda: opened.first_leases._stream.get(1),
            "create": opened.first_leases._create,
        }
        opened.first_leases._reset()
        with monkeypatch.context() as patch:
            left = _watch_leaving(inbox, patch)
            with pytest.raises(InboxUnavailableError):
                await operations[operation]()
            await opened.first_leases.close()
            assert left == []

            with pytest.raises(InboxUnavailableError):
                await opened.records.get(1)
            assert left == [True]


def _watch_leaving(inbox: JetStreamInbox, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Let requests get no response, long after the client has connected; return where it records that it leaves."""
    left = []
    connection = inbox._store.opened.connection

    async def silent(*_: object, **options: object) -> None:
        raise nats.errors.TimeoutError

    def leave_server() -> Awaitable[None]:
        left.append(True)
        return asyncio.sleep(0)

    for method in ("publish", "get_msg", "add_stream"):
        monkeypatch.setattr(connection.jetstream, method, silent)
    monkeypatch.setattr(connection, "_connected_at", -math.inf)
    monkeypatch.setattr(connection, "timeout", SHORT)
    monkeypatch.setattr(connection.client, "leave_server", leave_server)
    return left


async def test_all_streams_are_closed_at_once(nats_server, name, monkeypatch):
    """One after the other, they would need more time than a stop leaves if the servers do not respond."""
    steps = []

    async def close() -> None:
        steps.append("begin")
        await asyncio.sleep(0)
        steps.append("end")

    async with JetStreamInbox(nats_server.url(), name=name) as inbox:
        opened = inbox._store.opened
        for stream in (opened.queue, opened.records, opened.dead, opened.first_leases._stream):
            monkeypatch.setattr(stream, "close", close)

    assert steps == ["begin"] * 4 + ["end"] * 4


async def test_leases_of_other_deliveries_with_these_ids_are_replaced(nats_server, name):
    """The streams on disk were deleted and created again, so that their sequences start again."""
    async with JetStreamInbox(nats_server.url(), name=name) as inbox:
        await inbox.append_many([Delivery(b"1"), Delivery(b"2")])
        await inbox.claim(2, lease=LEASE)
        async with admin(nats_server) as jetstream:
            for stream in (name, f"{name}-records", f"{name}-dead"):
                await jetstream.delete_stream(stream)

    async with JetStreamInbox(nats_server.url(), name=name) as inbox:
        await inbox.append_many([Delivery(b"3"), Delivery(b"4")])
        ready = await inbox.stats()
        leases = [await next_lease(inbox), await next_lease(inbox)]

        assert (ready.ready, [(lease.delivery.body, lease.crashes) for lease in leases]) == (2, [(b"3", 0), (b"4", 0)])
        assert [await inbox.ack(lease) for lease in leases] == [True, True]


async def test_processes_of_the_former_version_can_run_meanwhile(inbox, other):
    """They read records only: a delivery that this version did not settle is redelivered, and its crash not counted."""
    await inbox.append(Delivery(b"body"))
    late = await lease_of(inbox, lease=SHORT)
    former = other._leases
    (pulled,) = await _pull(other)
    record = await other._store.get_record(pulled.message.id)
    leased = DeliveryRecord.new(pulled.message)

    assert record is None
    assert await other._store.write(leased) is not None
    assert not await inbox.ack(late)
    assert former._held == {}


async def _pull(inbox: JetStreamInbox):
    pulled = []

    async def has_pulled() -> bool:
        pulled.extend(await inbox._store.opened.consumer.pull(1))
        return bool(pulled)

    await until(has_pulled, deadline=DEADLINE)
    return pulled


async def test_a_first_lease_is_read_only_while_its_message_is_queued(inbox):
    """Another delivery with the same ID may have left it."""
    appended = await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    found = await inbox._store.get_open_record(appended.id)
    queued = await inbox._store.opened.queue.get(appended.id)
    await inbox._store.opened.queue.delete(queued.sequence)

    assert (found.token, found.revision, found.delivery.key) == (lease.token, 0, Message.decode(queued).delivery.key)
    assert await inbox._store.get_open_record(appended.id) is None
