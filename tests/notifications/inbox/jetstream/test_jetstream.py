"""`JetStreamInbox` beyond the shared suite: server failures, several processes, several streams."""

import asyncio
import contextlib
import json
import logging
import re
import runpy
import ssl
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from unittest.mock import ANY

import nats
import pytest
import trustme
from attrs import evolve
from engines.nats import PASSWORD, NatsServer, running_nats
from engines.ports import reserve_port
from engines.unprivileged import unprivileged_folder
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, RawStreamMsg, StorageType
from nats.js.errors import NotFoundError, ServiceUnavailableError
from notifications.inbox.jetstream.operations import admin, next_lease
from notifications.inbox.suite import DEADLINE, LEASE, all_entries, bodies_of, dead_letter, lease_of
from notifications.inbox.waiting import until

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox import Delivery, Inbox, InboxStats, Lease
from callfire_async.notifications.inbox.jetstream import JetStreamInbox, _config, _connection, _consumer, _stream
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection
from callfire_async.notifications.inbox.jetstream._records import DEAD, DONE, DeliveryRecord, Message
from callfire_async.notifications.inbox.jetstream._stream import PendingMessage, Stream

SHORT = 0.05
LOG = "callfire_async.inbox"

# If a server dies during a handshake, nats-py drops the connection without closing it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


async def messages_in(server: NatsServer, stream: str) -> int:
    async with admin(server) as jetstream:
        return (await jetstream.stream_info(stream)).state.messages


async def redeliver(inbox: JetStreamInbox, lease: Lease) -> None:
    """Have the consumer redeliver a message, as it does after ``ack_wait``."""
    await inbox._store.opened.consumer.nak(lease.token.partition(" ")[2], 0)


def replay_message(inbox: JetStreamInbox, lease: Lease, record: DeliveryRecord, id: str = "replay") -> PendingMessage:
    data = Message.encode(lease.delivery, record, 0)
    return PendingMessage(inbox._streams.replay_subject, data, {"Nats-Msg-Id": id})


# --- opening --------------------------------------------------------------------------------------------


MISSING_EXTRA = "JetStreamInbox needs nats-py: pip install 'callfire-async[nats]'"


def test_without_nats_py_the_import_error_names_the_extra():
    """The message is the command that installs it."""
    script = "import sys; sys.modules['nats'] = None; import callfire_async.notifications.inbox.jetstream"
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)

    assert done.stderr.splitlines()[-1] == f"ImportError: {MISSING_EXTRA}"


def test_the_module_that_is_imported_first_names_the_extra(monkeypatch):
    """Other modules of the package would name only the missing module."""
    monkeypatch.setitem(sys.modules, "nats.errors", None)

    with pytest.raises(ImportError, match=re.escape(MISSING_EXTRA)):
        runpy.run_path(_connection.__file__)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", "ä"])
def test_a_name_that_streams_cannot_have_is_rejected(name):
    """Before anything is sent."""
    with pytest.raises(ValueError, match="letters, digits"):
        JetStreamInbox("nats://localhost", name=name)


def test_retention_is_readable():
    """Backfilling reads how far back `handled` is complete."""
    assert JetStreamInbox("localhost", retention=5.0).retention == 5.0


async def test_an_inbox_that_is_not_open_raises(new_inbox):
    """Before it is opened, and after it is closed."""
    inbox = new_inbox()
    with pytest.raises(InboxError, match="not open"):
        await inbox.append(Delivery(b"body"))
    async with inbox:
        pass
    with pytest.raises(InboxError, match="not open"):
        await inbox.claim(1, lease=LEASE)


async def test_slow_acks_do_not_make_the_clock_slow(monkeypatch):
    """The fastest of a few counts: else a dead letter made ready would be due before deliveries that it follows."""
    latencies, stored_at, passed = iter([50.0, 0.0, 20.0, 30.0]), 0.0, 0.0

    async def publish(*args: object, **options: object) -> None:
        nonlocal stored_at, passed
        stored_at = passed
        passed += next(latencies)

    async def get_msg(*args: object, **options: object) -> RawStreamMsg:
        return RawStreamMsg(time=datetime.fromtimestamp(stored_at, UTC))

    monkeypatch.setattr(_config, "time", SimpleNamespace(monotonic=lambda: passed))
    jetstream = SimpleNamespace(publish=publish, get_msg=get_msg)
    connection = SimpleNamespace(jetstream=jetstream, timeout=1.0, translate_errors=contextlib.nullcontext)
    clock = await _config.server_clock(connection, _config.InboxStreams("name", 1, 0.0))

    assert (passed, clock.seconds()) == (100.0, pytest.approx(100.0, abs=10.0))


async def test_missing_guarantees_are_logged_once(new_inbox, caplog):
    """One replica, and a sync_interval that cannot be read."""
    async with new_inbox():
        pass

    (warning,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert "replicas: 1" in warning
    assert "cannot read sync_interval" in warning
    assert PASSWORD not in warning


async def test_sync_interval_is_read_if_the_account_can(nats_server, name, caplog):
    """The system account exports that service to this account."""
    async with JetStreamInbox(nats_server.url("open"), name=name):
        pass

    (warning,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert "synced after the ack" in warning


async def test_there_is_no_sync_warning_if_sync_interval_is_always(name, caplog):
    """Only one about bodies that the server refuses."""
    with running_nats(sync_interval="always", max_payload="1MB") as server:
        async with JetStreamInbox(server.url("open"), name=name) as inbox:
            with pytest.raises(InboxError, match="too large: NATS accepts"):
                await inbox.append(Delivery(b"x" * 1_000_000))

    (warning,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert "sync" not in warning
    assert "bodies of more than 917504 bytes are refused" in warning


async def test_existing_streams_are_used_and_checked(nats_server, new_inbox, name, caplog):
    """Warnings name missing guarantees; a stream without batches is refused."""
    async with new_inbox():
        pass
    async with admin(nats_server) as jetstream:
        for stream, changes in {
            name: {"storage": StorageType.MEMORY, "discard": DiscardPolicy.OLD, "max_msgs": 1000},
            f"{name}-records": {"max_age": 3600.0},
            f"{name}-dead": {"allow_atomic": False},
        }.items():
            config = (await jetstream.stream_info(stream)).config
            await jetstream.delete_stream(stream)
            await jetstream.add_stream(config, **changes)
    caplog.clear()

    with pytest.raises(InboxError, match="exists with a different allow_atomic; choose another name="):
        async with new_inbox():
            pass
    async with admin(nats_server) as jetstream:
        await jetstream.delete_stream(f"{name}-dead")
    async with new_inbox():
        pass

    (warning,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert "storage: memory" in warning
    assert "max_age" in warning
    assert "a full stream deletes its oldest messages (discard: old)" in warning


async def test_a_record_stream_without_ttl_is_refused(nats_server, new_inbox, name):
    """When the inbox is opened, not when the first delivery is done."""
    async with new_inbox():
        pass
    async with admin(nats_server) as jetstream:
        config = (await jetstream.stream_info(f"{name}-records")).config
        await jetstream.delete_stream(f"{name}-records")
        await jetstream.add_stream(config, allow_msg_ttl=False)

    with pytest.raises(InboxError, match="exists with a different allow_msg_ttl"):
        async with new_inbox():
            pass


async def test_streams_in_memory_have_no_sync_warning(nats_server, new_inbox, name, caplog):
    """They have no disk."""
    async with new_inbox():
        pass
    async with admin(nats_server) as jetstream:
        for stream in (name, f"{name}-records", f"{name}-dead"):
            config = (await jetstream.stream_info(stream)).config
            await jetstream.delete_stream(stream)
            await jetstream.add_stream(config, storage=StorageType.MEMORY)
    caplog.clear()

    async with new_inbox():
        pass

    (warning,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert ("storage: memory" in warning, "sync" in warning) == (True, False)


async def test_the_stream_of_another_inbox_is_refused(new_inbox, name):
    """If one inbox has the name of a stream of another."""
    async with new_inbox():
        with pytest.raises(InboxError, match=f"stream {name}-records exists with a different"):
            async with new_inbox(name=f"{name}-records"):
                pass


async def test_two_inboxes_on_one_server_are_independent(inbox, new_inbox, name):
    """Their names differ."""
    async with new_inbox(name=f"{name}-b") as second:
        await inbox.append(Delivery(b"1"))
        await second.append(Delivery(b"2"))

        assert (await bodies_of(inbox), await bodies_of(second)) == ([b"1"], [b"2"])


async def test_the_dedupe_window_can_be_changed(new_inbox):
    """When the inbox is opened again."""
    async with new_inbox() as inbox:
        await inbox.append(Delivery(b"same"))
    async with new_inbox(dedupe_window=7200.0) as inbox:
        assert (await inbox.append(Delivery(b"same"))).duplicate


async def test_after_a_short_window_identical_bytes_are_a_new_delivery(new_inbox):
    """Even if the window is shorter than the server's default."""
    async with new_inbox(dedupe_window=0.5) as inbox:
        await inbox.append(Delivery(b"same"))

        async def is_new() -> bool:
            return not (await inbox.append(Delivery(b"same"))).duplicate

        await until(is_new, deadline=DEADLINE)
        assert await bodies_of(inbox) == [b"same", b"same"]


async def test_a_tool_changes_no_settings(nats_server, new_inbox, name):
    """It does not know those of the service, such as its `dedupe_window`."""
    async with new_inbox(dedupe_window=7200.0) as service:
        await service.append(Delivery(b"body"))
        async with new_inbox(create=False) as tool:
            assert await bodies_of(tool) == [b"body"]

    async with admin(nats_server) as jetstream:
        assert (await jetstream.stream_info(name)).config.duplicate_window == 7200.0


async def test_a_tool_creates_no_streams(nats_server, new_inbox, name):
    """It fails if there is no inbox, for example because its name is wrong."""
    with pytest.raises(InboxError, match=f"has no inbox with this name: stream {name} is missing"):
        async with new_inbox(create=False):
            pass

    async with admin(nats_server) as jetstream:
        assert not {stream.config.name for stream in await jetstream.streams_info() if name in stream.config.name}


async def test_a_tool_works_without_first_leases(nats_server, new_inbox, name):
    """It does not create their stream, which would not have the service's number of replicas."""
    async with new_inbox() as service:
        await service.append_many([Delivery(b"1"), Delivery(b"2")])
        async with admin(nats_server) as jetstream:
            await jetstream.delete_stream(f"{name}-leases")
            async with new_inbox(create=False) as tool:
                assert await tool.ack(await next_lease(tool))
                assert await tool.stats() == InboxStats(ready=1, done=1, oldest_ready_age=ANY)
            with pytest.raises(NotFoundError):
                await jetstream.stream_info(f"{name}-leases")


async def test_several_processes_can_create_the_streams_at_once(new_inbox):
    """With different settings."""
    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(opened_and_closed(new_inbox(dedupe_window=3600.0 + number)))


async def opened_and_closed(inbox: Inbox) -> None:
    async with inbox:
        pass


async def test_servers_that_require_tls_are_supported(name):
    """With the caller's SSL context."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    with unprivileged_folder("certificate-") as folder:
        file = folder / "server.pem"
        file.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
        with running_nats(more=f'tls {{ cert_file: "{file}", key_file: "{file}" }}') as server:
            context = ssl.create_default_context()
            authority.configure_trust(context)
            async with JetStreamInbox(server.url(), name=name, tls=context) as inbox:
                await inbox.append(Delivery(b"body"))
                assert await bodies_of(inbox) == [b"body"]


async def test_a_lease_can_be_extended_by_ack_wait(inbox):
    """With the protocol's in-progress ack."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox, lease=5.0)

    assert await inbox.extend(lease, _consumer.ACK_WAIT_SECONDS)
    assert await inbox.ack(lease)


async def test_a_lease_that_is_settled_during_an_extend_is_removed(inbox):
    """So that an inbox does not grow while it is open."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)

    assert await asyncio.gather(inbox.extend(lease, LEASE), inbox.ack(lease)) == [True, True]
    assert inbox._leases._held == {}


async def test_a_lost_lease_leaves_no_write_without_a_response(inbox, other, monkeypatch):
    """An ack gets no response, and another process has the delivery when it is repeated."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox, lease=SHORT)

    async def no_response(record: DeliveryRecord) -> DeliveryRecord | None:
        raise InboxUnavailableError("no response")

    with monkeypatch.context() as patch:
        patch.setattr(inbox._store, "write", no_response)
        with pytest.raises(InboxUnavailableError):
            await inbox.ack(lease)
    assert (await next_lease(other)).delivery.body == b"body"

    assert not await inbox.ack(lease)
    assert inbox._leases._unanswered == {}


# --- server failures ------------------------------------------------------------------------------------


async def test_an_unreachable_server_raises_in_time():
    """The message has no credentials."""
    port = reserve_port()
    inbox = JetStreamInbox(f"nats://me:{PASSWORD}@127.0.0.1:{port}", timeout=0.5)

    with pytest.raises(InboxUnavailableError, match=f"127.0.0.1:{port}") as raised:
        async with inbox:
            pass

    assert PASSWORD not in f"{raised.value!r} {inbox!r}"


async def test_a_wrong_password_raises_without_the_password(nats_server):
    """It is reported like an unavailable server."""
    url = nats_server.url().replace(PASSWORD, "a-wrong-secret")

    with pytest.raises(InboxUnavailableError) as raised:
        async with JetStreamInbox(url, timeout=0.5):
            pass

    assert "wrong-secret" not in str(raised.value)


async def test_opening_times_out_on_a_server_that_never_responds():
    """It accepts the connection and sends nothing."""

    async def silent(reader, writer):
        with contextlib.closing(writer):
            await reader.read()

    async with await asyncio.start_server(silent, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(InboxUnavailableError, match=r"did not respond within 0\.5 s|is unavailable"):
                async with JetStreamInbox([f"127.0.0.1:{port}"], timeout=0.5):
                    pass


async def test_a_server_that_is_too_old_is_refused():
    """When the inbox is opened, not when a feature is missing."""

    async def old(reader, writer):
        with contextlib.closing(writer):
            writer.write(b'INFO {"server_id":"a","version":"2.10.4","max_payload":1048576,"headers":true}\r\n')
            while await reader.readline():
                writer.write(b"PONG\r\n")

    async with await asyncio.start_server(old, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(InboxError, match=r"has version 2\.10; version 2\.12 or later is required"):
            async with JetStreamInbox(f"nats://127.0.0.1:{port}"):
                pass


async def test_operations_time_out_on_an_unresponsive_server(name, monkeypatch):
    """They succeed again once the server responds; the ones that failed may have been executed."""
    with running_nats() as server:
        async with JetStreamInbox(server.url(), name=name) as inbox:
            await inbox.append(Delivery(b"leased"))
            lease = await lease_of(inbox)
            patient = inbox._store.opened.connection.timeout
            monkeypatch.setattr(inbox._store.opened.connection, "timeout", 0.5)
            server.freeze()
            async with asyncio.timeout(DEADLINE):
                for ask in (
                    inbox.append(Delivery(b"new")),
                    inbox.append_many([Delivery(b"a"), Delivery(b"b")]),
                    inbox.claim(1, lease=LEASE),
                    inbox.stats(),
                    inbox.get(1),
                    inbox.handled(["event"]),
                    inbox._store.opened.records.delete(1),
                    inbox.ack(lease, event_key="event"),
                ):
                    with pytest.raises(InboxUnavailableError, match=r"did not respond within 0\.5 s"):
                        await ask
            server.thaw()
            monkeypatch.setattr(inbox._store.opened.connection, "timeout", patient)

            assert await inbox.ack(lease, event_key="event")
            assert await inbox.handled(["event"]) == {"event"}
            assert not await inbox.ack(lease)
            await inbox.append_many([Delivery(b"new"), Delivery(b"a"), Delivery(b"b")])
            async with asyncio.timeout(DEADLINE):
                assert {(await next_lease(inbox)).delivery.body for _ in range(3)} == {b"new", b"a", b"b"}


async def test_a_late_write_of_a_repeated_ack_counts_as_this_leases_own(inbox, monkeypatch):
    """An ack without a response reaches the server while it is repeated."""
    await inbox.append(Delivery(b"leased"))
    lease = await lease_of(inbox)
    store, late = inbox._store, []
    write = store.write

    async def no_response(record: DeliveryRecord) -> DeliveryRecord | None:
        monkeypatch.setattr(store, "write", after_the_late_one)
        late.append(record)
        raise InboxUnavailableError("no response")

    async def after_the_late_one(record: DeliveryRecord) -> DeliveryRecord | None:
        monkeypatch.setattr(store, "write", write)
        await write(*late)
        return await write(record)

    monkeypatch.setattr(store, "write", no_response)
    with pytest.raises(InboxUnavailableError):
        await inbox.ack(lease, event_key="event")

    assert await inbox.ack(lease, event_key="event")
    assert await inbox.handled(["event"]) == {"event"}
    assert not await inbox.ack(lease)


async def test_a_killed_server_is_reconnected(name, caplog):
    """Acknowledged deliveries are there, and waiting callers look for work."""
    with running_nats() as server:
        async with JetStreamInbox(server.url(), name=name, timeout=30.0) as inbox:
            await inbox.append(Delivery(b"kept"))
            lease = await lease_of(inbox)
            waiting = asyncio.create_task(inbox.wait(LEASE))
            await inbox.stats()
            server.kill()
            appending = asyncio.create_task(inbox.append(Delivery(b"meanwhile")))
            server.start()
            server.wait()

            async with asyncio.timeout(DEADLINE):
                await waiting
                await appending
            assert await inbox.ack(lease)
            assert (await next_lease(inbox)).delivery.body == b"meanwhile"
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("lost the connection" in warning for warning in warnings)
    assert any("reconnected to NATS" in warning for warning in warnings)


@pytest.mark.parametrize("when", ["before the write", "after the write"])
async def test_a_cancelled_claim_counts_no_crash(inbox, monkeypatch, when):
    """Its lease may be written already; the delivery is ready again at once."""
    await inbox.append(Delivery(b"body"))
    store, reached = inbox._store, asyncio.Event()
    write = store.write_lease

    async def stopping(record: DeliveryRecord, pulled: _consumer.PulledMessage) -> DeliveryRecord | None:
        monkeypatch.setattr(store, "write_lease", write)
        if when == "before the write":
            reached.set()
            await asyncio.sleep(0)
        written = await write(record, pulled)
        reached.set()
        await asyncio.sleep(0)
        return written

    monkeypatch.setattr(store, "write_lease", stopping)
    claiming = asyncio.create_task(inbox.claim(1, lease=LEASE))
    await reached.wait()
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming

    lease = await next_lease(inbox)
    assert (lease.delivery.body, lease.crashes, lease.attempt) == (b"body", 0, 1)
    assert await inbox.ack(lease)


async def test_a_claim_whose_only_lease_cannot_be_written_raises(inbox, monkeypatch):
    """Of several, those that were written are returned, because they would count as crashes."""
    await inbox.append_many([Delivery(b"%d" % number) for number in range(3)])
    store = inbox._store
    write = store.write_lease

    async def fail_but_for_two(record: DeliveryRecord, pulled: _consumer.PulledMessage) -> DeliveryRecord | None:
        if pulled.message.delivery.body != b"2":
            raise InboxUnavailableError("no response")
        return await write(record, pulled)

    monkeypatch.setattr(store, "write_lease", fail_but_for_two)
    with pytest.raises(InboxUnavailableError, match="no response"):
        await inbox.claim(1, lease=LEASE)
    assert [lease.delivery.body for lease in await inbox.claim(2, lease=LEASE)] == [b"2"]


async def test_closing_waits_for_the_leases_of_a_cancelled_claim(new_inbox, monkeypatch):
    """Another process gets the delivery without a crash."""
    async with new_inbox() as inbox:
        await inbox.append(Delivery(b"body"))
        store, reached = inbox._store, asyncio.Event()
        write = store.write_lease

        async def stopping(record: DeliveryRecord, pulled: _consumer.PulledMessage) -> DeliveryRecord | None:
            monkeypatch.setattr(store, "write_lease", write)
            reached.set()
            return await write(record, pulled)

        monkeypatch.setattr(store, "write_lease", stopping)
        claiming = asyncio.create_task(inbox.claim(1, lease=LEASE))
        await reached.wait()
        claiming.cancel()
        await asyncio.wait([claiming])

    async with new_inbox() as inbox:
        assert (await next_lease(inbox)).crashes == 0


GARBLED = [b"+OK", b"", b"[]", b"null", b'{"error": {}}', b'{"error": {"code": 404, "new_field": 1}}', b"\xff"]


@pytest.mark.parametrize("response", GARBLED, ids=repr)
async def test_a_garbled_response_raises_an_inbox_error(inbox, monkeypatch, response):
    """For example of a proxy or a later version; the message does not quote it."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    client = inbox._store.opened.connection.client

    async def request(*args: object, **options: object) -> Msg:
        return Msg(client, data=response)

    monkeypatch.setattr(client, "request", request)
    for operation in (
        inbox.append(Delivery(b"other")),
        inbox.append_many([Delivery(b"1"), Delivery(b"2")]),
        inbox.ack(lease),
        inbox.get(1),
        inbox.stats(),
        inbox.replay([1]),
    ):
        with pytest.raises(
            InboxUnavailableError, match=r"^NATS at .* sent a response that cannot be read \(\w+\)$"
        ) as raised:
            await operation
        assert raised.value.__cause__ is None


async def test_any_error_of_a_batch_is_followed_by_single_publishes(inbox, monkeypatch):
    """For example after a malformed response; later batches are written too."""
    jetstream = inbox._store.opened.queue._jetstream
    publish = jetstream.publish

    async def garbled(*args: object, **options: object) -> object:
        monkeypatch.setattr(jetstream, "publish", publish)
        return json.loads("+OK")

    monkeypatch.setattr(jetstream, "publish", garbled)
    for pair in ([Delivery(b"1"), Delivery(b"2")], [Delivery(b"3"), Delivery(b"4")]):
        async with asyncio.timeout(DEADLINE / 2):
            await inbox.append_many(pair)

    assert await bodies_of(inbox) == [b"1", b"2", b"3", b"4"]


async def test_a_deleted_consumer_is_created_again(nats_server, inbox, name, caplog):
    """A wait ends with an error; the next claim creates the consumer, logs one error and returns deliveries."""
    waiting = asyncio.create_task(inbox.wait(LEASE))
    await inbox.stats()
    async with admin(nats_server) as jetstream:
        await jetstream.delete_consumer(name, "workers")
    await inbox.append(Delivery(b"body"))

    with pytest.raises(
        InboxUnavailableError, match=r"the consumer on NATS at .* failed with status 409 Consumer Deleted"
    ):
        await waiting
    assert (await lease_of(inbox)).delivery.body == b"body"
    (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert error.startswith(
        f"consumer workers of stream {name} on NATS at {inbox._store.opened.connection.address} was"
    )


async def test_deliveries_survive_their_consumer(nats_server, inbox, name):
    """Running ones are settled, delayed ones keep their attempts, and none is leased to two workers."""
    await inbox.append_many([Delivery(body) for body in (b"running", b"delayed", b"done", b"new")])
    leases = {lease.delivery.body: lease for lease in await inbox.claim(3, lease=LEASE)}
    # Longer than the next steps take, so that it is still delayed when the other one is claimed.
    await inbox.nack(leases[b"delayed"], delay=3.0)
    async with admin(nats_server) as jetstream:
        await jetstream.delete_consumer(name, "workers")
    await inbox.ack(leases[b"done"])

    claimed = [await next_lease(inbox), await next_lease(inbox)]

    assert [(lease.delivery.body, lease.attempt) for lease in claimed] == [(b"new", 1), (b"delayed", 2)]
    for lease in (leases[b"running"], *claimed):
        assert await inbox.ack(lease)
    await inbox.claim(1, lease=LEASE)
    assert await inbox.stats() == InboxStats(ready=0, delayed=0, leased=0, done=4, dead=0)


async def test_a_redelivered_message_whose_record_has_changed_is_not_leased(inbox):
    """Another process has written the record first, and has the lease."""
    appended = await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    message = Message.decode(await inbox._store.opened.queue.get(appended.id))
    pulled = _consumer.PulledMessage(message, lease.token.partition(" ")[2], is_first=False)

    assert await inbox._leases._lease(DeliveryRecord.new(message), pulled, LEASE) is None
    assert await inbox.ack(lease)


async def test_a_consumer_that_cannot_be_restored_raises(inbox):
    """For example because the cause is not its deletion."""
    consumer = inbox._store.opened.consumer
    pulling = asyncio.create_task(inbox.claim(1, lease=LEASE))
    while consumer._request is None:  # noqa: ASYNC110  # there is no event for it
        await asyncio.sleep(0)
    await consumer._receive_pulled(
        Msg(
            inbox._store.opened.connection.client,
            subject=consumer._request.inbox,
            headers={"Status": "409", "Description": "Exceeded MaxRequestBatch of 1"},
        )
    )

    with pytest.raises(InboxUnavailableError, match="failed with status 409 Exceeded MaxRequestBatch of 1"):
        await pulling


CHANGES = {
    "ack_wait": 5.0,
    "max_deliver": 3,
    "max_ack_pending": 1,
    "filter_subject": "of no new delivery",
    "headers_only": True,
    "inactive_threshold": 60.0,
}


@pytest.mark.parametrize("setting", CHANGES)
async def test_a_changed_consumer_is_restored(nats_server, inbox, name, caplog, setting):
    """Such a setting prevents deliveries without an error, so it is checked at intervals."""
    value = f"{name}.again" if setting == "filter_subject" else CHANGES[setting]
    async with admin(nats_server) as jetstream:
        config = (await jetstream.consumer_info(name, "workers")).config
        await jetstream.add_consumer(name, config, **{setting: value})
    await inbox.append(Delivery(b"body"))
    inbox._store.opened.consumer._guard._check_at = 0.0

    assert (await next_lease(inbox)).delivery.body == b"body"
    (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert error.endswith(f"has changed settings, restoring them: {setting}")


async def test_a_paused_consumer_is_logged_and_stays_paused(nats_server, inbox, name, caplog):
    """An operator may stop the handlers on purpose."""
    until_then = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    async with admin(nats_server) as jetstream:
        await jetstream.pause_consumer(name, "workers", until_then)
    await inbox.append(Delivery(b"body"))
    caplog.clear()
    for _ in range(2):
        inbox._store.opened.consumer._guard._check_at = 0.0
        assert await inbox.claim(1, lease=LEASE) == []

    (warning,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert re.search(r"is paused until .*; no delivery is handled until then", warning)


async def test_a_purged_queue_does_not_stop_the_inbox(nats_server, inbox, name):
    """The operator has deleted the pending deliveries; a running one can still be settled."""
    await inbox.append_many([Delivery(b"running"), Delivery(b"pending")])
    lease = await next_lease(inbox)
    async with admin(nats_server) as jetstream:
        await jetstream.purge_stream(name)

    assert await inbox.ack(lease)
    await inbox.append(Delivery(b"new"))
    assert (await next_lease(inbox)).delivery.body == b"new"
    assert await inbox.claim(1, lease=LEASE) == []


async def test_a_deleted_queue_is_not_replaced_by_an_empty_one(nats_server, inbox, name):
    """Its loss must be noticed; the inbox recovers if the stream is restored."""
    await inbox.append(Delivery(b"lost"))
    missing = (
        rf"^stream {name} on NATS at .* is missing: it was deleted, with its deliveries; restore it .*, or restart"
    )
    async with admin(nats_server) as jetstream:
        config = (await jetstream.stream_info(name)).config
        await jetstream.delete_stream(name)

        async with asyncio.timeout(DEADLINE / 2):
            for operation in (inbox.append(Delivery(b"2")), inbox.claim(1, lease=LEASE), inbox.stats(), inbox.get(1)):
                with pytest.raises(InboxUnavailableError, match=missing):
                    await operation
        with pytest.raises(nats.js.errors.NotFoundError):
            await jetstream.stream_info(name)
        await jetstream.add_stream(config)

    await inbox.append(Delivery(b"new"))
    assert (await next_lease(inbox)).delivery.body == b"new"


async def test_a_deleted_record_stream_is_not_taken_for_an_empty_one(nats_server, inbox, name):
    """In each operation that needs the records, at once."""
    await inbox.append_many([Delivery(b"leased"), Delivery(b"pending")])
    lease = await next_lease(inbox)
    async with admin(nats_server) as jetstream:
        await jetstream.delete_stream(f"{name}-records")

    async with asyncio.timeout(DEADLINE / 2):
        for operation in (
            inbox.handled(["event"]),
            inbox.claim(1, lease=LEASE),
            inbox.ack(lease),
            inbox.get(1),
            inbox.stats(),
            all_entries(inbox),
        ):
            with pytest.raises(InboxUnavailableError, match=f"stream {name}-records on NATS at .* is missing"):
                await operation


async def test_no_body_is_lost_if_the_stream_of_dead_letters_is_deleted(nats_server, inbox, name):
    """A replay without the body would handle an empty delivery."""
    id = (await dead_letter(inbox)).id
    async with admin(nats_server) as jetstream:
        await jetstream.delete_stream(f"{name}-dead")

    with pytest.raises(InboxUnavailableError, match=f"stream {name}-dead on NATS at .* is missing"):
        await inbox.replay([id])


async def test_a_closed_connection_raises(new_inbox):
    """The message names the error of nats-py."""
    async with new_inbox() as inbox:
        await inbox._store.opened.connection.client.close()

        with pytest.raises(InboxUnavailableError, match="is unavailable: ConnectionClosedError"):
            await inbox.append(Delivery(b"body"))


async def test_temporary_errors_are_retried():
    """No leader yet, no response yet."""
    errors = [ServiceUnavailableError(code=503), nats.errors.NoRespondersError()]

    async def request(seconds: float) -> str:
        if errors:
            raise errors.pop()
        return "response"

    assert await NatsConnection(["nats://127.0.0.1"], 5.0, None).request_with_retry(request) == "response"


@pytest.mark.parametrize("replicas", [3, 9])
async def test_more_replicas_than_servers_are_refused(new_inbox, replicas):
    """With the server's message."""
    with pytest.raises(InboxError, match="replicas"):
        async with new_inbox(replicas=replicas):
            pass


async def test_concurrent_waits_all_end_with_an_append(inbox):
    """The shorter one sends no request of its own."""
    waiting = [asyncio.create_task(inbox.wait(LEASE / number)) for number in (1, 2)]
    await inbox.stats()
    await inbox.append(Delivery(b"body"))

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*waiting)


async def test_a_wait_that_ends_does_not_affect_the_next(inbox):
    """The server's status for its end is not an error."""
    await inbox.wait(0.001)
    await inbox.claim(1, lease=LEASE)

    async with asyncio.timeout(DEADLINE):
        await inbox.wait(0.001)


async def test_a_cancelled_claim_loses_no_message(inbox):
    """A message that arrives later is spare for the next claim."""
    claiming = asyncio.create_task(inbox.claim(1, lease=LEASE))
    await inbox.get(1)
    claiming.cancel()
    await asyncio.wait([claiming])

    assert await inbox.claim(1, lease=LEASE) == []
    await inbox.append(Delivery(b"body"))
    assert (await next_lease(inbox)).crashes == 0


# --- several processes ----------------------------------------------------------------------------------


async def test_processes_share_the_deliveries(inbox, other):
    """No delivery is leased twice."""
    await inbox.append_many([Delivery(b"%d" % number) for number in range(40)])

    lists = await asyncio.gather(*(process.claim(7, lease=LEASE) for process in (inbox, other) * 4))

    ids = [lease.id for leases in lists for lease in leases]
    assert (len(ids), len(set(ids))) == (40, 40)


async def test_a_process_is_notified_of_another_ones_append(inbox, other):
    """Without polling."""
    waiting = asyncio.create_task(other.wait(LEASE))
    await other.stats()
    await inbox.append(Delivery(b"body"))

    async with asyncio.timeout(DEADLINE):
        await waiting
        assert (await next_lease(other)).delivery.body == b"body"


async def test_a_message_that_ended_a_wait_is_returned_on_close(inbox, other):
    """Without a crash."""
    waiting = asyncio.create_task(inbox.wait(LEASE))
    await inbox.stats()
    await other.append(Delivery(b"body"))
    await waiting
    await inbox.__aexit__(None, None, None)

    assert (await next_lease(other)).crashes == 0
    await inbox.__aenter__()


async def test_a_late_worker_cannot_settle(inbox, other):
    """Its lease has expired, another process has the delivery, and the crash is counted."""
    await inbox.append(Delivery(b"body"))
    late = await lease_of(inbox, lease=SHORT)
    lease = await next_lease(other)

    assert [
        await inbox.extend(late, LEASE),
        await inbox.ack(late),
        await inbox.nack(late, delay=0),
        await inbox.release(late),
        await inbox.dead_letter(late, "why"),
    ] == [False] * 5
    assert (lease.id, lease.attempt, lease.crashes) == (late.id, 1, 1)
    assert await other.ack(lease)


async def test_an_expired_lease_can_be_settled_if_no_worker_has_claimed_since(inbox):
    """The handlers have run, so they do not run again."""
    await inbox.append(Delivery(b"body"))
    late = await lease_of(inbox, lease=SHORT)
    await until_ready(inbox)

    assert await inbox.ack(late)
    assert await inbox.claim(1, lease=LEASE) == []


async def until_ready(inbox: Inbox) -> None:
    async def is_ready() -> bool:
        return (await inbox.stats()).ready == 1

    await until(is_ready, deadline=DEADLINE)


async def test_closing_does_not_release_a_lost_lease(new_inbox, other):
    """Another process has the delivery."""
    async with new_inbox() as closed:
        await closed.append(Delivery(b"body"))
        await lease_of(closed, lease=SHORT)
        lease = await next_lease(other)

    assert await other.ack(lease)


async def test_of_two_processes_with_one_message_one_gets_the_lease(inbox, other):
    """The slower one returns no lease."""
    await inbox.append(Delivery(b"body"))
    (pulled,) = await inbox._store.opened.consumer.pull(1)
    await inbox._store.opened.consumer.nak(pulled.reply, 0)
    lease = await next_lease(other)

    assert await inbox._leases._claim([pulled], LEASE) == []
    assert await other.ack(lease)


async def test_another_process_can_settle_a_lease(inbox, other):
    """A lease holds all that is needed."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)

    assert await other.extend(lease, LEASE)
    assert await inbox.nack(lease, delay=0)
    assert (await next_lease(other)).attempt == 2


@pytest.mark.parametrize("lease", [SHORT, LEASE, 2 * LEASE])
async def test_a_lease_has_the_requested_length(inbox, lease):
    """Shorter than ``ack_wait``, equal or longer."""
    await inbox.append(Delivery(b"body"))
    leased = await lease_of(inbox, lease=LEASE)
    await inbox.extend(leased, lease)

    # A message that is redelivered too early is delayed again.
    await redeliver(inbox, leased)
    early = await inbox.claim(1, lease=LEASE)

    if lease == SHORT:
        assert (early or [await next_lease(inbox)])[0].crashes == 1
    else:
        assert (early, (await inbox.stats()).leased) == ([], 1)


async def test_a_delivery_that_crashed_twice_is_leased_alone(inbox):
    """So that another crash does not affect other deliveries."""
    await inbox.append(Delivery(b"suspect"))
    for _ in range(2):
        await next_lease(inbox, lease=SHORT)
    await until_ready(inbox)
    await inbox.append_many([Delivery(b"a"), Delivery(b"b")])

    lists = []
    async with asyncio.timeout(DEADLINE):
        while sum(map(len, lists)) < 3:
            lists.append(await bodies_of(inbox))

    assert [b"suspect"] in lists
    assert sorted(body for bodies in lists for body in bodies) == [b"a", b"b", b"suspect"]


async def test_a_nacked_delivery_is_claimed_when_it_is_due(inbox):
    """Not before: the one with the long delay waits."""
    await inbox.append_many([Delivery(b"long"), Delivery(b"short")])
    for lease, delay in zip(await inbox.claim(2, lease=LEASE), (2 * DEADLINE, 0.2), strict=True):
        await inbox.nack(lease, delay=delay, reason="it failed")

    lease = await next_lease(inbox)
    (delayed,) = await all_entries(inbox, "delayed")
    assert (lease.delivery.body, lease.attempt) == (b"short", 2)
    assert (delayed.delivery.body, delayed.attempt, (await inbox.stats()).delayed) == (b"long", 2, 1)
    assert await inbox.claim(1, lease=LEASE) == []


async def test_an_ack_clears_the_reason_of_an_earlier_failure(inbox):
    """A handled delivery shows none."""
    await inbox.append(Delivery(b"body"))
    await inbox.nack(await lease_of(inbox), delay=0, reason="it failed")
    lease = await next_lease(inbox)
    before = await inbox.get(lease.id)
    await inbox.ack(lease)

    assert (before.reason, (await inbox.get(lease.id)).reason) == ("it failed", "")


async def test_closing_releases_the_leases(new_inbox, other):
    """They are ready for others at once, and count as crashes."""
    async with new_inbox() as closed:
        await closed.append(Delivery(b"body"))
        lost = await lease_of(closed)

    lease = await next_lease(other)
    assert (lease.id, lease.crashes) == (lost.id, 1)
    assert not await other.ack(lost)


async def test_leases_that_are_released_on_close_are_claimed_in_order_of_arrival(new_inbox):
    """They become due at one moment, whatever the order in which they were leased."""
    async with new_inbox() as closed:
        await closed.append_many([Delivery(b"1"), Delivery(b"2")])
        for lease in reversed(await closed.claim(2, lease=LEASE)):
            await closed.release(lease)
        leased = await bodies_of(closed)

    async with new_inbox() as reopened:
        assert (leased, await bodies_of(reopened)) == ([b"2", b"1"], [b"1", b"2"])


async def test_a_late_nack_does_not_affect_the_next_lease(new_inbox, other):
    """Closing the inbox still releases that lease."""
    async with new_inbox() as closed:
        await closed.append(Delivery(b"body"))
        late = await lease_of(closed)
        await closed.release(late)
        await lease_of(closed)
        await closed.nack(late, delay=0)

    assert (await next_lease(other)).crashes == 1


# --- crashes between two writes -------------------------------------------------------------------------


async def test_a_message_that_was_pulled_but_not_leased_is_not_a_crash(inbox, other):
    """It is redelivered."""
    await inbox.append(Delivery(b"body"))
    (pulled,) = await inbox._store.opened.consumer.pull(1)
    await inbox._store.opened.consumer.nak(pulled.reply, 0)

    stats = await other.stats()
    lease = await next_lease(other)
    assert (stats.ready, lease.attempt, lease.crashes) == (1, 1, 0)


async def test_a_dead_letter_is_completed_by_the_next_process(nats_server, name, inbox, other):
    """The record is dead and the body in the queue: it is copied before it is deleted there."""
    await inbox.append(Delivery(b"body", "text/xml"))
    lease = await lease_of(inbox)
    await inbox._leases.settle(lease, lambda record: evolve(record, state=DEAD, reason="because"))
    stored = (await other.get(lease.id)).delivery
    await redeliver(inbox, lease)

    assert await other.claim(1, lease=LEASE) == []

    assert [await messages_in(nats_server, stream) for stream in (name, f"{name}-dead")] == [0, 1]
    assert stored == (await other.get(lease.id)).delivery == lease.delivery
    assert await other.stats() == InboxStats(dead=1)


async def test_a_stored_dead_letter_is_deleted_from_the_queue_by_the_next_process(nats_server, name, inbox, other):
    """The record is dead, and the dead letter is stored."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    record = await inbox._leases.settle(lease, lambda record: evolve(record, state=DEAD, reason="because"))
    stored = Message.encode(lease.delivery)
    await inbox._store.opened.dead.publish(PendingMessage(inbox._store.dead_subject(record.id), stored, {}))
    await redeliver(inbox, lease)

    assert await other.claim(1, lease=LEASE) == []
    assert [await messages_in(nats_server, stream) for stream in (name, f"{name}-dead")] == [0, 1]


async def test_an_ack_is_completed_by_the_next_process(nats_server, name, inbox, other):
    """The record is done: the event key is stored, if it was not with the record, and the message deleted."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    await inbox._leases.settle(lease, lambda record: evolve(record, state=DONE, event_key="event"))
    await inbox._store.opened.records.delete_all(inbox._store.event_subject("event", lease.id))
    await redeliver(inbox, lease)
    before = await other.handled(["event"])

    assert await other.claim(1, lease=LEASE) == []

    assert (before, await other.handled(["event"])) == (frozenset(), {"event"})
    assert await messages_in(nats_server, name) == 0


@pytest.mark.parametrize("are_stored_at_once", [True, False])
async def test_an_ack_whose_lease_was_lost_marks_no_event(monkeypatch, inbox, other, are_stored_at_once):
    """The event and the record are stored at once, or else the record first."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    await other.release(lease)
    monkeypatch.setattr(_stream, "_MIN_BATCH_MESSAGES", 1)
    if not are_stored_at_once:
        monkeypatch.setattr(Stream, "_publish_batch", _store_nothing)

    assert not await inbox.ack(lease, event_key="event")
    assert await inbox.handled(["event"]) == frozenset()
    assert await inbox.ack(await lease_of(inbox), event_key="event")
    assert await inbox.handled(["event"]) == {"event"}


async def test_only_concurrent_acks_are_stored_in_a_batch(inbox, monkeypatch):
    """A batch costs as much as several single messages."""
    batches = []
    publish_batch = Stream._publish_batch

    async def publish(self: Stream, messages: list[PendingMessage]) -> int | None:
        batches.append((self.name, len(messages)))
        return await publish_batch(self, messages)

    monkeypatch.setattr(Stream, "_publish_batch", publish)
    await inbox.append_many([Delivery(b"%d" % number) for number in range(9)])
    first, *others = await inbox.claim(9, lease=LEASE)
    batches.clear()

    assert await inbox.ack(first, event_key="0")
    assert all(await asyncio.gather(*(inbox.ack(lease, event_key=str(lease.id)) for lease in others)))
    assert batches == [(inbox._streams.records, 16)]
    assert len(await inbox.handled(["0", *(str(lease.id) for lease in others)])) == 9


async def _store_nothing(self: Stream, messages: object) -> None:
    """Refuse a batch, as a server may."""


async def test_a_replay_is_completed_by_the_next_process(nats_server, name, inbox, other):
    """The message is queued, and the record still dead."""
    dead = await dead_letter(inbox)
    record = await inbox._store.get_record(dead.id)
    queued = replay_message(inbox, dead, record)
    await inbox._store.opened.queue.publish(queued)

    lease = await next_lease(other)

    assert (lease.id, lease.attempt, lease.delivery.body) == (dead.id, 1, b"dead")
    assert await messages_in(nats_server, f"{name}-dead") == 0
    assert await inbox.replay() == 0
    assert await other.ack(lease)


async def test_a_lease_is_returned_even_if_the_dead_letter_cannot_be_deleted(inbox, other, monkeypatch):
    """Otherwise it would expire unattempted and count as a crash."""
    dead = await dead_letter(inbox)
    record = await inbox._store.get_record(dead.id)
    await inbox._store.opened.queue.publish(replay_message(inbox, dead, record))

    async def no_response(sequence: int) -> bool:
        raise InboxUnavailableError("no response")

    monkeypatch.setattr(other._store.opened.dead, "delete", no_response)
    lease = await next_lease(other)

    assert (lease.id, lease.delivery.body) == (dead.id, b"dead")
    assert await other.ack(lease)


async def test_a_dead_letter_that_a_replay_left_is_deleted_by_the_next_process(inbox, other, monkeypatch):
    """The record is ready already, so neither replay nor purge would find it."""
    await dead_letter(inbox)

    async def no_response(sequence: int) -> bool:
        raise InboxUnavailableError("no response")

    monkeypatch.setattr(inbox._store.opened.dead, "delete", no_response)
    with pytest.raises(InboxUnavailableError):
        await inbox.replay()

    assert await other.ack(await next_lease(other))
    assert await other.stats() == InboxStats(done=1)


async def test_of_two_concurrent_replays_one_counts(inbox, other):
    """The delivery is leased once."""
    await dead_letter(inbox)

    replayed = await asyncio.gather(inbox.replay(), other.replay())

    assert max(replayed) == 1
    lease = await next_lease(inbox)
    assert await inbox.ack(lease)
    assert await inbox.claim(1, lease=LEASE) == []


async def test_an_older_replay_message_is_deleted(inbox):
    """A later message has replaced it."""
    dead = await dead_letter(inbox)
    record = await inbox._store.get_record(dead.id)
    for id in ("one", "two"):
        await inbox._store.opened.queue.publish(replay_message(inbox, dead, record, id))

    first = await next_lease(inbox)
    assert await inbox.claim(10, lease=LEASE) == []
    assert await inbox.ack(first)
    assert await inbox.stats() == InboxStats(done=1)


async def test_a_slow_replay_does_not_delete_a_later_dead_letter(inbox, other):
    """It deletes the message that it has read."""
    dead = await dead_letter(inbox)
    stored = await inbox._store.get_dead_letter(dead.id)
    await other.replay()
    await other.dead_letter(await next_lease(other), "again")

    await inbox._store.delete_dead_letter(stored)

    assert (await inbox.get(dead.id)).delivery.body == b"dead"


async def test_a_record_from_a_replica_that_is_behind_drops_no_message(inbox):
    """A message that names a later revision than the record's is redelivered."""
    dead = await dead_letter(inbox)
    record = await inbox._store.get_record(dead.id)
    await inbox._store.opened.queue.publish(replay_message(inbox, dead, evolve(record, revision=record.revision + 10)))

    assert await inbox.claim(1, lease=LEASE) == []
    assert (await inbox._store.opened.queue.count(inbox._streams.queue_subjects))[0] == 1


async def test_a_delivery_survives_a_concurrent_replay_and_purge(inbox, other):
    """The message is queued when its record is deleted."""
    dead = await dead_letter(inbox)
    record = await inbox._store.get_record(dead.id)
    await inbox._store.opened.queue.publish(replay_message(inbox, dead, record))
    await other.purge(dead_before=datetime.now(UTC) + timedelta(days=1))

    assert (await next_lease(inbox)).delivery.body == b"dead"


# --- contents of the streams ----------------------------------------------------------------------------


async def test_sequences_that_start_again_do_not_match_old_records(nats_server, new_inbox, name):
    """The queue was deleted and recreated."""
    async with new_inbox() as inbox:
        await inbox.append(Delivery(b"before"))
        await inbox.ack(await lease_of(inbox))
    async with admin(nats_server) as jetstream:
        await jetstream.delete_stream(name)

    async with new_inbox() as inbox:
        await inbox.append(Delivery(b"after"))
        (pulled,) = await inbox._store.opened.consumer.pull(1)
        await inbox._store.opened.consumer.nak(pulled.reply, 0)
        lease = await next_lease(inbox)
        assert (lease.delivery.body, lease.attempt) == (b"after", 1)
        assert await inbox.ack(lease)


async def test_a_message_that_this_library_did_not_write_is_a_body(nats_server, inbox, name):
    """It becomes a dead letter if it cannot be parsed."""
    async with admin(nats_server) as jetstream:
        await jetstream.publish(f"{name}.new", b"key=x&what is this")
        await jetstream.publish(f"{name}.new", b"\xff")

    leases = await inbox.claim(10, lease=LEASE)
    assert [lease.delivery.body for lease in leases] == [b"key=x&what is this", b"\xff"]


async def test_an_unreadable_record_raises_an_inbox_error(nats_server, inbox, name):
    """The message names the delivery."""
    appended = await inbox.append(Delivery(b"body"))
    async with admin(nats_server) as jetstream:
        await jetstream.publish(f"{name}-records.record.{appended.id}", b"from the future\n")

    with pytest.raises(InboxError, match=f"cannot read the record of delivery {appended.id}; a later version"):
        await inbox.replay()
    with pytest.raises(InboxError, match=f"cannot read the record of delivery {appended.id}; a later version"):
        await inbox.get(appended.id)


async def test_a_done_delivery_is_deleted_after_retention(new_inbox):
    """By the servers."""
    async with new_inbox(retention=1.0, dedupe_window=3600.0) as inbox:
        appended = await inbox.append(Delivery(b"body"))
        await inbox.ack(await lease_of(inbox), event_key="event")

        async def is_forgotten() -> bool:
            return (await inbox.get(appended.id), await inbox.handled(["event"])) == (None, frozenset())

        await until(is_forgotten, deadline=DEADLINE)
        assert not (await inbox.append(Delivery(b"body"))).duplicate


async def test_a_purge_deletes_event_keys_and_dead_letters(nats_server, inbox, name):
    """And keeps deliveries that are not old enough."""
    await inbox.append(Delivery(b"done"))
    await inbox.ack(await lease_of(inbox), event_key="event")
    await inbox.append(Delivery(b"no event"))
    await inbox.ack(await lease_of(inbox))
    await dead_letter(inbox)
    soon = datetime.now(UTC) + timedelta(days=1)

    assert await inbox.purge(done_before=soon - timedelta(days=2), dead_before=soon - timedelta(days=2)) == 0
    assert await inbox.purge(done_before=soon, dead_before=soon) == 3

    assert (await all_entries(inbox), await inbox.handled(["event"])) == ([], frozenset())
    assert await messages_in(nats_server, f"{name}-dead") == 0


async def test_handled_deliveries_are_not_collected_in_memory(new_inbox):
    """There may be millions, with their bodies: only dead letters are replayed, only old ones purged."""
    size, count = 512 * 1024, 64
    async with new_inbox(keep_bodies=True) as inbox:
        for number in range(count):
            await inbox.append(Delivery(b"%02d" % number * (size // 2)))
            await inbox.ack(await next_lease(inbox))
        tracemalloc.start()
        try:
            assert await inbox.replay() == 0
            assert await inbox.purge(done_before=datetime.now(UTC) - timedelta(days=1)) == 0
            assert await inbox.purge(done_before=datetime.now(UTC) + timedelta(days=1)) == count
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    # A page is of 8 MB.
    assert peak < count * size


async def test_delayed_deliveries_are_counted_together(inbox):
    """With a few requests: after an outage of what the handlers need, thousands may wait for their next attempt."""
    await inbox.append_many([Delivery(b"%d" % number) for number in range(50)])
    for lease in await inbox.claim(50, lease=LEASE):
        await inbox.nack(lease, delay=LEASE)
    statistics = inbox._store.opened.connection.client.stats
    before = statistics["out_msgs"]

    assert await inbox.stats() == InboxStats(delayed=50)
    # Some of them are the subscription, the request and its end.
    assert statistics["out_msgs"] - before < 50


async def test_concurrent_purges_count_each_delivery_once(inbox, other):
    """The second one finds nothing to delete."""
    for number in range(5):
        await dead_letter(inbox, b"%d" % number)
    soon = datetime.now(UTC) + timedelta(days=1)

    purged = await asyncio.gather(inbox.purge(dead_before=soon), other.purge(dead_before=soon))

    assert sum(purged) == 5


async def test_a_duplicate_of_a_queued_delivery_has_no_effect(inbox):
    """Nor has one in the same call."""
    first = await inbox.append(Delivery(b"same"))

    assert await inbox.append_many([Delivery(b"same"), Delivery(b"other"), Delivery(b"same")]) == [
        evolve(first, duplicate=True),
        evolve(first, id=first.id + 1),
        evolve(first, duplicate=True),
    ]


async def test_more_appends_than_fit_in_a_batch_are_all_stored(inbox):
    """From concurrent calls and from one call."""
    singly = await asyncio.gather(*(inbox.append(Delivery(b"%d" % number)) for number in range(300)))
    together = await inbox.append_many([Delivery(b"%d" % number) for number in range(300, 1500)])

    ids = [result.id for result in (*singly, *together)]
    assert (len(set(ids)), ids[300:]) == (1500, sorted(ids[300:]))
    assert (await inbox.stats()).ready == 1500


async def test_a_cancelled_append_does_not_affect_the_others(inbox):
    """Whether it is in flight or waits for its batch."""
    appending = [asyncio.create_task(inbox.append(Delivery(b"%d" % number))) for number in range(30)]
    await asyncio.sleep(0)
    for task in appending[::2]:
        task.cancel()
    results = await asyncio.gather(*appending, return_exceptions=True)

    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * 15
    assert (await inbox.append(Delivery(b"1"))).duplicate
