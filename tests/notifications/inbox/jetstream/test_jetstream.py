"""What only an inbox on JetStream has: servers that come and go, several processes, several streams."""

import asyncio
import contextlib
import gc
import json
import logging
import runpy
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import nats
import pytest
import trustme
from attrs import evolve
from engines.nats import PASSWORD, NatsServer, free_port, running_nats
from engines.unprivileged import folder_of_nobody
from nats.js.api import DiscardPolicy, StorageType
from nats.js.errors import ServiceUnavailableError
from notifications.inbox.suite import DEADLINE, LEASE, all_entries, bodies_of, dead_letter, lease_of
from notifications.inbox.waiting import until

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox import Delivery, Inbox, InboxStats, Lease
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.jetstream import _connection as _jetstream_link
from callfire_async.notifications.inbox.jetstream import _consumer as _jetstream_queue
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection
from callfire_async.notifications.inbox.jetstream._records import DEAD, DONE, DeliveryRecord, Message
from callfire_async.notifications.inbox.jetstream._stream import PendingMessage

SHORT = 0.05
LOG = "callfire_async.inbox"

# Where a server dies in the middle of a handshake, nats-py lets go of the connection without closing it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect such connections while the test runs that left them."""
    yield
    gc.collect()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"own_{abs(hash(request.node.nodeid))}"


@pytest.fixture
def make(nats_server: NatsServer, name: str):
    """Return what makes an inbox of this test's own."""
    return lambda **options: JetStreamInbox(nats_server.url(), **({"name": name} | options))


@pytest.fixture
async def inbox(make) -> AsyncIterator[JetStreamInbox]:
    async with make() as inbox:
        yield inbox


@pytest.fixture
async def other(make) -> AsyncIterator[JetStreamInbox]:
    """The same inbox in another process, as far as JetStream can tell."""
    async with make() as other:
        yield other


@asynccontextmanager
async def administrator(server: NatsServer) -> AsyncIterator[nats.js.JetStreamContext]:
    client = await nats.connect(server.url())
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def next_lease(inbox: Inbox, *, lease: float = LEASE) -> Lease:
    """Wait for a lease."""
    async with asyncio.timeout(DEADLINE):
        while not (leases := await inbox.claim(1, lease=lease)):
            await inbox.wait(LEASE)
    return leases[0]


async def messages_in(server: NatsServer, stream: str) -> int:
    async with administrator(server) as jetstream:
        return (await jetstream.stream_info(stream)).state.messages


async def hand_out_again(inbox: JetStreamInbox, lease: Lease) -> None:
    """Let the consumer do what it does when nobody has said a word for long enough."""
    await inbox._ledger.opened.queue.hand_out_after(lease.token.partition(" ")[2], 0)


def again(inbox: JetStreamInbox, lease: Lease, record: DeliveryRecord, id: str = "again") -> PendingMessage:
    return PendingMessage(inbox._settings.again, Message.written(lease.delivery, record, 0), {"Nats-Msg-Id": id})


# --- opening ----------------------------------------------------------------------------------------------


def test_without_the_client_it_says_which_extra_brings_it():
    """Whoever imports it learns what to install."""
    script = "import sys; sys.modules['nats'] = None; import callfire_async.notifications.inbox.jetstream"
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)

    assert done.stderr.splitlines()[-1] == "ImportError: JetStreamInbox needs nats-py: install callfire-async[nats]"


def test_the_room_that_needs_the_client_says_so_itself(monkeypatch):
    """Whatever imports it first."""
    monkeypatch.setitem(sys.modules, "nats.errors", None)

    with pytest.raises(ImportError, match=r"callfire-async\[nats\]"):
        runpy.run_path(_jetstream_link.__file__)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", "ä"])
def test_a_name_is_what_a_stream_may_be_called(name):
    """Before anything is sent."""
    with pytest.raises(ValueError, match="letters, digits"):
        JetStreamInbox("nats://localhost", name=name)


def test_it_says_how_long_it_remembers():
    """What reconciles events asks."""
    assert JetStreamInbox("localhost", retention=5.0).retention == 5.0


async def test_one_that_is_not_open_says_so(make):
    """Before and after."""
    inbox = make()
    with pytest.raises(InboxError, match="not open"):
        await inbox.append(Delivery(b"body"))
    async with inbox:
        pass
    with pytest.raises(InboxError, match="not open"):
        await inbox.claim(1, lease=LEASE)


async def test_what_is_not_guaranteed_is_said_once(make, caplog):
    """One replica, and a disk of which nothing is known."""
    async with make():
        pass

    (said,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert "replicas: 1" in said
    assert "cannot be seen from here; unless the servers have sync_interval: always" in said
    assert PASSWORD not in said


async def test_where_the_servers_may_be_asked_they_are(nats_server, name, caplog):
    """An account that the system account lets ask."""
    async with JetStreamInbox(nats_server.url("open"), name=name):
        pass

    (said,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert "synced after the answer" in said


async def test_a_server_that_syncs_gets_no_word_about_it(name, caplog):
    """But one about bodies that it would refuse."""
    with running_nats(sync_interval="always", max_payload="1MB") as server:
        async with JetStreamInbox(server.url("open"), name=name) as inbox:
            with pytest.raises(InboxError, match="too large; NATS here takes"):
                await inbox.append(Delivery(b"x" * 1_000_000))

    (said,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert "sync" not in said
    assert "bodies of more than 917504 bytes are refused" in said


async def test_what_an_operator_has_made_is_used_and_judged(nats_server, make, name, caplog):
    """A stream in memory, one that forgets, one that makes room; one that takes no groups cannot be."""
    async with make():
        pass
    async with administrator(nats_server) as jetstream:
        for stream, changes in {
            name: {"storage": StorageType.MEMORY, "discard": DiscardPolicy.OLD, "max_msgs": 1000},
            f"{name}-records": {"max_age": 3600.0},
            f"{name}-dead": {"allow_atomic": False},
        }.items():
            config = (await jetstream.stream_info(stream)).config
            await jetstream.delete_stream(stream)
            await jetstream.add_stream(config, **changes)
    caplog.clear()

    with pytest.raises(InboxError, match="not this inbox's: its allow_atomic is another"):
        async with make():
            pass
    async with administrator(nats_server) as jetstream:
        await jetstream.delete_stream(f"{name}-dead")
    async with make():
        pass

    (said,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert "storage: memory" in said
    assert "max_age" in said
    assert "drops the oldest when it is full (discard: old)" in said


async def test_records_that_cannot_be_forgotten_are_refused(nats_server, make, name):
    """At once, and not when the first delivery is done: that note is to be kept for so long as retention says."""
    async with make():
        pass
    async with administrator(nats_server) as jetstream:
        config = (await jetstream.stream_info(f"{name}-records")).config
        await jetstream.delete_stream(f"{name}-records")
        await jetstream.add_stream(config, allow_msg_ttl=False)

    with pytest.raises(InboxError, match="not this inbox's: its allow_msg_ttl is another"):
        async with make():
            pass


async def test_a_stream_in_memory_has_no_disk_to_sync(nats_server, make, name, caplog):
    """So nothing is said of that."""
    async with make():
        pass
    async with administrator(nats_server) as jetstream:
        for stream in (name, f"{name}-records", f"{name}-dead"):
            config = (await jetstream.stream_info(stream)).config
            await jetstream.delete_stream(stream)
            await jetstream.add_stream(config, storage=StorageType.MEMORY)
    caplog.clear()

    async with make():
        pass

    (said,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert ("storage: memory" in said, "sync" in said) == (True, False)


async def test_another_ones_stream_is_left_alone(make, name):
    """An inbox may not be called what another's stream is."""
    async with make():
        with pytest.raises(InboxError, match=f"the stream {name}-records is not this inbox's"):
            async with make(name=f"{name}-records"):
                pass


async def test_two_inboxes_on_one_server_are_two(inbox, make, name):
    """By their names."""
    async with make(name=f"{name}-b") as second:
        await inbox.append(Delivery(b"1"))
        await second.append(Delivery(b"2"))

        assert (await bodies_of(inbox), await bodies_of(second)) == ([b"1"], [b"2"])


async def test_the_window_may_be_changed_later(make):
    """By whoever opens it next."""
    async with make() as inbox:
        await inbox.append(Delivery(b"same"))
    async with make(dedupe_window=7200.0) as inbox:
        assert (await inbox.append(Delivery(b"same"))).duplicate


async def test_after_a_short_window_identical_bytes_are_new(make):
    """Shorter than what the servers would keep in mind by themselves."""
    async with make(dedupe_window=0.5) as inbox:
        await inbox.append(Delivery(b"same"))

        async def is_new() -> bool:
            return not (await inbox.append(Delivery(b"same"))).duplicate

        await until(is_new, deadline=DEADLINE)
        assert await bodies_of(inbox) == [b"same", b"same"]


async def test_several_may_open_what_nobody_has_made(make):
    """At once."""
    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(opened_and_closed(make(dedupe_window=3600.0 + number)))


async def opened_and_closed(inbox: Inbox) -> None:
    async with inbox:
        pass


async def test_servers_that_want_tls_get_it(name):
    """As the caller's context says."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    with folder_of_nobody("certificate-") as folder:
        file = folder / "server.pem"
        file.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
        with running_nats(more=f'tls {{ cert_file: "{file}", key_file: "{file}" }}') as server:
            context = ssl.create_default_context()
            authority.configure_trust(context)
            async with JetStreamInbox(server.url(), name=name, tls=context) as inbox:
                await inbox.append(Delivery(b"body"))
                assert await bodies_of(inbox) == [b"body"]


async def test_a_lease_is_extended_for_as_long_as_the_servers_wait(inbox):
    """With their own word for it: that it is in progress."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox, lease=5.0)

    assert await inbox.extend(lease, _jetstream_queue.ACK_WAIT_SECONDS)
    assert await inbox.ack(lease)


async def test_what_is_settled_while_it_is_extended_is_let_go(inbox):
    """By an inbox that is open for years."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)

    assert await asyncio.gather(inbox.extend(lease, LEASE), inbox.ack(lease)) == [True, True]
    assert inbox._claims._held == {}


async def test_of_a_lease_that_was_lost_no_doubt_remains(inbox, other, monkeypatch):
    """An ack got no answer, and another has the delivery when it is said again."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox, lease=SHORT)

    async def no_answer(record: DeliveryRecord) -> DeliveryRecord | None:
        raise InboxUnavailableError("no answer")

    with monkeypatch.context() as without_answers:
        without_answers.setattr(inbox._ledger, "write", no_answer)
        with pytest.raises(InboxUnavailableError):
            await inbox.ack(lease)
    assert (await next_lease(other)).delivery.body == b"body"

    assert not await inbox.ack(lease)
    assert inbox._claims._doubtful == {}


# --- servers that come and go -----------------------------------------------------------------------------


async def test_a_server_that_is_not_there_is_said_to_be_unavailable():
    """In time, and without what would open it."""
    port = free_port()
    inbox = JetStreamInbox(f"nats://me:{PASSWORD}@127.0.0.1:{port}", timeout=0.5)

    with pytest.raises(InboxUnavailableError, match=f"127.0.0.1:{port}") as raised:
        async with inbox:
            pass

    assert PASSWORD not in f"{raised.value!r} {inbox!r}"


async def test_a_wrong_password_is_said_to_be_one(nats_server):
    """As far as the server says."""
    url = nats_server.url().replace(PASSWORD, "a-wrong-secret")

    with pytest.raises(InboxUnavailableError) as raised:
        async with JetStreamInbox(url, timeout=0.5):
            pass

    assert "wrong-secret" not in str(raised.value)


async def test_a_server_that_says_nothing_is_given_up():
    """Nobody waits for ever for what takes a connection and no more."""

    async def silent(reader, writer):
        with contextlib.closing(writer):
            await reader.read()

    async with await asyncio.start_server(silent, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(InboxUnavailableError, match=r"did not answer in 0\.5 s|cannot be used"):
                async with JetStreamInbox([f"127.0.0.1:{port}"], timeout=0.5):
                    pass


async def test_an_old_server_is_refused():
    """What it lacks would be missed when it is too late."""

    async def old(reader, writer):
        with contextlib.closing(writer):
            writer.write(b'INFO {"server_id":"a","version":"2.10.4","max_payload":1048576,"headers":true}\r\n')
            while await reader.readline():
                writer.write(b"PONG\r\n")

    async with await asyncio.start_server(old, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(InboxError, match=r"is version 2\.10; 2\.12 is needed"):
            async with JetStreamInbox(f"nats://127.0.0.1:{port}"):
                pass


async def test_a_server_that_stands_still_is_an_error_in_time_and_no_end(name):
    """Whatever is asked meanwhile; afterwards all goes on, and what was refused may have happened."""
    with running_nats() as server:
        async with JetStreamInbox(server.url(), name=name, timeout=0.5) as inbox:
            await inbox.append(Delivery(b"leased"))
            lease = await lease_of(inbox)
            server.freeze()
            async with asyncio.timeout(DEADLINE):
                for ask in (
                    inbox.append(Delivery(b"new")),
                    inbox.append_many([Delivery(b"a"), Delivery(b"b")]),
                    inbox.claim(1, lease=LEASE),
                    inbox.stats(),
                    inbox.get(1),
                    inbox.handled(["event"]),
                    inbox._ledger.opened.records.delete(1),
                    inbox.ack(lease, event_key="event"),
                ):
                    with pytest.raises(InboxUnavailableError, match=r"did not answer in 0\.5 s"):
                        await ask
            server.thaw()

            assert await inbox.ack(lease, event_key="event")
            assert await inbox.handled(["event"]) == {"event"}
            assert not await inbox.ack(lease)
            await inbox.append_many([Delivery(b"new"), Delivery(b"a"), Delivery(b"b")])
            async with asyncio.timeout(DEADLINE):
                assert {(await next_lease(inbox)).delivery.body for _ in range(3)} == {b"new", b"a", b"b"}


async def test_what_nobody_answered_for_may_come_between(inbox, monkeypatch):
    """An ack that got no answer reaches the server while it is said again: it is this lease's own."""
    await inbox.append(Delivery(b"leased"))
    lease = await lease_of(inbox)
    ledger, late = inbox._ledger, []
    write = ledger.write

    async def no_answer(record: DeliveryRecord) -> DeliveryRecord | None:
        monkeypatch.setattr(ledger, "write", after_the_late_one)
        late.append(record)
        raise InboxUnavailableError("no answer")

    async def after_the_late_one(record: DeliveryRecord) -> DeliveryRecord | None:
        monkeypatch.setattr(ledger, "write", write)
        await write(*late)
        return await write(record)

    monkeypatch.setattr(ledger, "write", no_answer)
    with pytest.raises(InboxUnavailableError):
        await inbox.ack(lease, event_key="event")

    assert await inbox.ack(lease, event_key="event")
    assert await inbox.handled(["event"]) == {"event"}
    assert not await inbox.ack(lease)


async def test_a_server_that_was_killed_is_found_again(name, caplog):
    """What was acknowledged is there; whoever waits is told to look."""
    with running_nats() as server:
        async with JetStreamInbox(server.url(), name=name) as inbox:
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
    said = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert any("was lost" in record.getMessage() for record in said)
    assert any("reached again" in record.getMessage() for record in said)


async def test_whatever_ends_a_group_ends_no_writing(inbox, monkeypatch):
    """An answer that is none of the server's, say: each is asked for by itself, and the next ones are written too."""
    jetstream = inbox._ledger.opened.messages._jetstream
    publish = jetstream.publish

    async def garbled(*args: object, **options: object) -> object:
        monkeypatch.setattr(jetstream, "publish", publish)
        return json.loads("+OK")

    monkeypatch.setattr(jetstream, "publish", garbled)
    for pair in ([Delivery(b"1"), Delivery(b"2")], [Delivery(b"3"), Delivery(b"4")]):
        async with asyncio.timeout(DEADLINE / 2):
            await inbox.append_many(pair)

    assert await bodies_of(inbox) == [b"1", b"2", b"3", b"4"]


async def test_a_queue_that_is_gone_is_an_error(nats_server, inbox, name):
    """Somebody has deleted it; nothing is handed out, and that is said."""
    waiting = asyncio.create_task(inbox.wait(LEASE))
    await inbox.stats()
    async with administrator(nats_server) as jetstream:
        await jetstream.delete_consumer(name, "workers")

    with pytest.raises(InboxUnavailableError, match="hands out nothing"):
        await waiting
    with pytest.raises(InboxUnavailableError, match="hands out nothing"):
        await inbox.claim(1, lease=LEASE)


async def test_records_that_are_gone_are_an_error(nats_server, make, name):
    """Somebody has deleted the stream; in time, whatever is asked."""
    async with make(timeout=0.5) as inbox:
        await inbox.append(Delivery(b"body"))
        async with administrator(nats_server) as jetstream:
            await jetstream.delete_stream(f"{name}-records")

        with pytest.raises(InboxUnavailableError, match="did not answer"):
            await inbox.handled(["event"])
        with pytest.raises(InboxUnavailableError, match="did not answer"):
            await inbox.claim(1, lease=LEASE)


async def test_a_connection_that_somebody_has_closed_is_an_error(make):
    """It says which."""
    async with make() as inbox:
        await inbox._ledger.opened.link.client.close()

        with pytest.raises(InboxUnavailableError, match="cannot be used: ConnectionClosedError"):
            await inbox.append(Delivery(b"body"))


async def test_what_will_pass_is_asked_again():
    """No leader yet, no answer yet; anything else is said at once."""
    answers = [ServiceUnavailableError(code=503), nats.errors.NoRespondersError()]

    async def ask(seconds: float) -> str:
        if answers:
            raise answers.pop()
        return "answer"

    assert await NatsConnection(["nats://127.0.0.1"], 5.0, None).request_with_retry(ask) == "answer"


@pytest.mark.parametrize("replicas", [3, 9])
async def test_more_replicas_than_there_are_servers_are_refused(make, replicas):
    """By the server, in its words."""
    with pytest.raises(InboxError, match="replicas"):
        async with make(replicas=replicas):
            pass


async def test_whoever_waits_for_less_long_is_told_too(inbox):
    """The server was asked already."""
    waiting = [asyncio.create_task(inbox.wait(LEASE / number)) for number in (1, 2)]
    await inbox.stats()
    await inbox.append(Delivery(b"body"))

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*waiting)


async def test_a_wait_that_is_over_leaves_nothing_behind(inbox):
    """The server says that it is over too, and that is no failure."""
    await inbox.wait(0.001)
    await inbox.claim(1, lease=LEASE)

    async with asyncio.timeout(DEADLINE):
        await inbox.wait(0.001)


async def test_a_claim_that_was_given_up_takes_nothing(inbox):
    """What comes for it later is there for the next."""
    claiming = asyncio.create_task(inbox.claim(1, lease=LEASE))
    await inbox.get(1)
    claiming.cancel()
    await asyncio.wait([claiming])

    assert await inbox.claim(1, lease=LEASE) == []
    await inbox.append(Delivery(b"body"))
    assert (await next_lease(inbox)).crashes == 0


# --- several processes ------------------------------------------------------------------------------------


async def test_two_processes_share_what_there_is(inbox, other):
    """Nothing is handed out twice."""
    await inbox.append_many([Delivery(b"%d" % number) for number in range(40)])

    lists = await asyncio.gather(*(one.claim(7, lease=LEASE) for one in (inbox, other) * 4))

    ids = [lease.id for leases in lists for lease in leases]
    assert (len(ids), len(set(ids))) == (40, 40)


async def test_what_one_appends_another_is_told_of(inbox, other):
    """The server tells; nobody polls."""
    waiting = asyncio.create_task(other.wait(LEASE))
    await other.stats()
    await inbox.append(Delivery(b"body"))

    async with asyncio.timeout(DEADLINE):
        await waiting
        assert (await next_lease(other)).delivery.body == b"body"


async def test_what_was_found_while_waiting_is_given_back(inbox, other):
    """Whoever waited and stops has taken nothing."""
    waiting = asyncio.create_task(inbox.wait(LEASE))
    await inbox.stats()
    await other.append(Delivery(b"body"))
    await waiting
    await inbox.__aexit__(None, None, None)

    assert (await next_lease(other)).crashes == 0
    await inbox.__aenter__()


async def test_a_late_worker_is_fenced_off(inbox, other):
    """Its lease has ended, another has the delivery, and the crash is counted."""
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


async def test_a_late_worker_may_settle_what_nobody_was_given(inbox):
    """The work is done, and done once."""
    await inbox.append(Delivery(b"body"))
    late = await lease_of(inbox, lease=SHORT)
    await until_ready(inbox)

    assert await inbox.ack(late)
    assert await inbox.claim(1, lease=LEASE) == []


async def until_ready(inbox: Inbox) -> None:
    async def is_ready() -> bool:
        return (await inbox.stats()).ready == 1

    await until(is_ready, deadline=DEADLINE)


async def test_what_was_lost_is_not_given_up_when_it_closes(make, other):
    """Another has it."""
    async with make() as closed:
        await closed.append(Delivery(b"body"))
        await lease_of(closed, lease=SHORT)
        lease = await next_lease(other)

    assert await other.ack(lease)


async def test_of_two_who_were_handed_one_message_one_has_it(inbox, other):
    """The slower of them hands out nothing."""
    await inbox.append(Delivery(b"body"))
    (pulled,) = await inbox._ledger.opened.queue.take(1)
    await inbox._ledger.opened.queue.hand_out_after(pulled.reply, 0)
    lease = await next_lease(other)

    assert await inbox._claims._claim([pulled], LEASE) == []
    assert await other.ack(lease)


async def test_another_process_may_settle_a_lease(inbox, other):
    """Whoever has the lease has all that it takes."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)

    assert await other.extend(lease, LEASE)
    assert await inbox.nack(lease, delay=0)
    assert (await next_lease(other)).attempt == 2


@pytest.mark.parametrize("lease", [SHORT, LEASE, 2 * LEASE])
async def test_a_lease_is_as_long_as_was_asked_for(inbox, lease):
    """Shorter than the consumer waits, just so long, or longer."""
    await inbox.append(Delivery(b"body"))
    leased = await lease_of(inbox, lease=LEASE)
    await inbox.extend(leased, lease)

    # What the consumer hands out too early goes back.
    await hand_out_again(inbox, leased)
    early = await inbox.claim(1, lease=LEASE)

    if lease == SHORT:
        assert (early or [await next_lease(inbox)])[0].crashes == 1
    else:
        assert (early, (await inbox.stats()).leased) == ([], 1)


async def test_what_has_crashed_twice_is_handed_out_alone(inbox):
    """Whatever else would be in flight is innocent."""
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


async def test_what_was_put_back_comes_when_it_is_due(inbox):
    """Not before, and then first."""
    await inbox.append(Delivery(b"body"))
    await inbox.nack(await lease_of(inbox), delay=0.2, reason="it failed")
    before = await inbox.stats()

    lease = await next_lease(inbox)
    assert (before.delayed, lease.attempt) == (1, 2)


async def test_leases_end_with_an_inbox_that_is_closed(make, other):
    """Others have them at once, and they are crashes."""
    async with make() as closed:
        await closed.append(Delivery(b"body"))
        lost = await lease_of(closed)

    lease = await next_lease(other)
    assert (lease.id, lease.crashes) == (lost.id, 1)
    assert not await other.ack(lost)


async def test_a_late_worker_costs_nobody_the_lease_that_follows(make, other):
    """Closed after that, the inbox gives up what it holds all the same."""
    async with make() as closed:
        await closed.append(Delivery(b"body"))
        late = await lease_of(closed)
        await closed.release(late)
        await lease_of(closed)
        await closed.nack(late, delay=0)

    assert (await next_lease(other)).crashes == 1


# --- what is left when a process dies between two writes ---------------------------------------------------


async def test_what_was_pulled_and_not_recorded_is_no_crash(inbox, other):
    """It is handed out again."""
    await inbox.append(Delivery(b"body"))
    (pulled,) = await inbox._ledger.opened.queue.take(1)
    await inbox._ledger.opened.queue.hand_out_after(pulled.reply, 0)

    stats = await other.stats()
    lease = await next_lease(other)
    assert (stats.ready, lease.attempt, lease.crashes) == (1, 1, 0)


async def test_a_burial_is_completed_by_the_next(nats_server, name, inbox, other):
    """The record says dead, and the body is still in the queue: it is stored before it is deleted there."""
    await inbox.append(Delivery(b"body", "text/xml"))
    lease = await lease_of(inbox)
    await inbox._claims.settle(lease, lambda record: evolve(record, state=DEAD, reason="because"))
    letter = (await other.get(lease.id)).delivery
    await hand_out_again(inbox, lease)

    assert await other.claim(1, lease=LEASE) == []

    assert [await messages_in(nats_server, stream) for stream in (name, f"{name}-dead")] == [0, 1]
    assert letter == (await other.get(lease.id)).delivery == lease.delivery
    assert await other.stats() == InboxStats(dead=1)


async def test_a_burial_that_lacks_only_the_end_is_ended(nats_server, name, inbox, other):
    """The dead letter lies where it should, and in the queue still."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    record = await inbox._claims.settle(lease, lambda record: evolve(record, state=DEAD, reason="because"))
    letter = Message.written(lease.delivery)
    await inbox._ledger.opened.dead.publish(PendingMessage(inbox._ledger.dead_subject(record.id), letter, {}))
    await hand_out_again(inbox, lease)

    assert await other.claim(1, lease=LEASE) == []
    assert [await messages_in(nats_server, stream) for stream in (name, f"{name}-dead")] == [0, 1]


async def test_an_ack_is_completed_by_the_next(nats_server, name, inbox, other):
    """The record says done: the event's key is noted, and the message deleted."""
    await inbox.append(Delivery(b"body"))
    lease = await lease_of(inbox)
    await inbox._claims.settle(lease, lambda record: evolve(record, state=DONE, event_key="event"))
    await hand_out_again(inbox, lease)
    before = await other.handled(["event"])

    assert await other.claim(1, lease=LEASE) == []

    assert (before, await other.handled(["event"])) == (frozenset(), {"event"})
    assert await messages_in(nats_server, name) == 0


async def test_a_replay_is_completed_by_the_next(nats_server, name, inbox, other):
    """The message is queued, and the record says dead still."""
    buried = await dead_letter(inbox)
    record = await inbox._ledger.record(buried.id)
    queued = again(inbox, buried, record)
    await inbox._ledger.opened.messages.publish(queued)

    lease = await next_lease(other)

    assert (lease.id, lease.attempt, lease.delivery.body) == (buried.id, 1, b"dead")
    assert await messages_in(nats_server, f"{name}-dead") == 0
    assert await inbox.replay() == 0
    assert await other.ack(lease)


async def test_what_is_leased_is_handed_over_though_its_letter_cannot_be_deleted(inbox, other, monkeypatch):
    """Nobody would handle it before the lease ends, and that would be counted as a crash."""
    buried = await dead_letter(inbox)
    record = await inbox._ledger.record(buried.id)
    await inbox._ledger.opened.messages.publish(again(inbox, buried, record))

    async def no_answer(sequence: int) -> bool:
        raise InboxUnavailableError("no answer")

    monkeypatch.setattr(other._ledger.opened.dead, "delete", no_answer)
    lease = await next_lease(other)

    assert (lease.id, lease.delivery.body) == (buried.id, b"dead")
    assert await other.ack(lease)


async def test_a_letter_that_a_replay_has_left_is_deleted_by_the_next(inbox, other, monkeypatch):
    """The record says ready already: nobody would look for it, nor purge it."""
    await dead_letter(inbox)

    async def no_answer(sequence: int) -> bool:
        raise InboxUnavailableError("no answer")

    monkeypatch.setattr(inbox._ledger.opened.dead, "delete", no_answer)
    with pytest.raises(InboxUnavailableError):
        await inbox.replay()

    assert await other.ack(await next_lease(other))
    assert await other.stats() == InboxStats(done=1)


async def test_of_two_who_replay_one_does(inbox, other):
    """And it is handed out once."""
    await dead_letter(inbox)

    replayed = await asyncio.gather(inbox.replay(), other.replay())

    assert max(replayed) == 1
    lease = await next_lease(inbox)
    assert await inbox.ack(lease)
    assert await inbox.claim(1, lease=LEASE) == []


async def test_what_was_replayed_again_since_is_stale(inbox):
    """A message whose place a later one has taken is deleted."""
    buried = await dead_letter(inbox)
    record = await inbox._ledger.record(buried.id)
    for id in ("one", "two"):
        await inbox._ledger.opened.messages.publish(again(inbox, buried, record, id))

    first = await next_lease(inbox)
    assert await inbox.claim(10, lease=LEASE) == []
    assert await inbox.ack(first)
    assert await inbox.stats() == InboxStats(done=1)


async def test_what_was_buried_again_is_kept_by_a_slow_replay(inbox, other):
    """It deletes the letter that it has read, and no later one."""
    buried = await dead_letter(inbox)
    letter = await inbox._ledger.letter(buried.id)
    await other.replay()
    await other.dead_letter(await next_lease(other), "again")

    await inbox._ledger.discard(letter)

    assert (await inbox.get(buried.id)).delivery.body == b"dead"


async def test_what_a_lagging_server_says_drops_nothing(inbox):
    """A message that names a revision later than the record read is left for another time."""
    buried = await dead_letter(inbox)
    record = await inbox._ledger.record(buried.id)
    await inbox._ledger.opened.messages.publish(again(inbox, buried, evolve(record, revision=record.revision + 10)))

    assert await inbox.claim(1, lease=LEASE) == []
    assert (await inbox._ledger.opened.messages.count(inbox._settings.queued))[0] == 1


async def test_a_replay_outlasts_a_purge(inbox, other):
    """Whoever asks for both at once keeps the delivery."""
    buried = await dead_letter(inbox)
    record = await inbox._ledger.record(buried.id)
    await inbox._ledger.opened.messages.publish(again(inbox, buried, record))
    await other.purge(dead_before=datetime.now(UTC) + timedelta(days=1))

    assert (await next_lease(inbox)).delivery.body == b"dead"


# --- what the streams hold --------------------------------------------------------------------------------


async def test_numbers_that_begin_again_mix_nothing_up(nats_server, make, name):
    """The queue was lost and made anew; its first delivery is not what the records say of another."""
    async with make() as inbox:
        await inbox.append(Delivery(b"before"))
        await inbox.ack(await lease_of(inbox))
    async with administrator(nats_server) as jetstream:
        await jetstream.delete_stream(name)

    async with make() as inbox:
        await inbox.append(Delivery(b"after"))
        (pulled,) = await inbox._ledger.opened.queue.take(1)
        await inbox._ledger.opened.queue.hand_out_after(pulled.reply, 0)
        lease = await next_lease(inbox)
        assert (lease.delivery.body, lease.attempt) == (b"after", 1)
        assert await inbox.ack(lease)


async def test_what_somebody_else_has_queued_is_a_body(nats_server, inbox, name):
    """Nothing is thrown away for being unreadable; whoever parses it will say."""
    async with administrator(nats_server) as jetstream:
        await jetstream.publish(f"{name}.new", b"key=x&what is this")
        await jetstream.publish(f"{name}.new", b"\xff")

    leases = await inbox.claim(10, lease=LEASE)
    assert [lease.delivery.body for lease in leases] == [b"key=x&what is this", b"\xff"]


async def test_a_record_that_cannot_be_read_is_an_error_of_ours(nats_server, inbox, name):
    """And what is beside it goes on."""
    appended = await inbox.append(Delivery(b"body"))
    async with administrator(nats_server) as jetstream:
        await jetstream.publish(f"{name}-records.record.{appended.id}", b"from the future\n")

    with pytest.raises(InboxError, match=f"the record of delivery {appended.id} cannot be read"):
        await inbox.get(appended.id)


async def test_what_is_done_is_forgotten_in_the_end(make):
    """By the servers, when its retention is over."""
    async with make(retention=1.0, dedupe_window=3600.0) as inbox:
        appended = await inbox.append(Delivery(b"body"))
        await inbox.ack(await lease_of(inbox), event_key="event")

        async def is_forgotten() -> bool:
            return (await inbox.get(appended.id), await inbox.handled(["event"])) == (None, frozenset())

        await until(is_forgotten, deadline=DEADLINE)
        assert not (await inbox.append(Delivery(b"body"))).duplicate


async def test_a_purge_takes_what_belongs_to_it(nats_server, inbox, name):
    """The keys of events, the bodies of dead letters; and leaves what is not old."""
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


async def test_of_two_who_purge_each_thing_is_one_ones(inbox, other):
    """What is gone is nobody's."""
    for number in range(5):
        await dead_letter(inbox, b"%d" % number)
    soon = datetime.now(UTC) + timedelta(days=1)

    purged = await asyncio.gather(inbox.purge(dead_before=soon), other.purge(dead_before=soon))

    assert sum(purged) == 5


async def test_a_repeat_of_what_is_in_the_queue_changes_nothing(inbox):
    """Nor does one beside it in the same call."""
    first = await inbox.append(Delivery(b"same"))

    assert await inbox.append_many([Delivery(b"same"), Delivery(b"other"), Delivery(b"same")]) == [
        evolve(first, duplicate=True),
        evolve(first, id=first.id + 1),
        evolve(first, duplicate=True),
    ]


async def test_many_at_once_are_all_kept(inbox):
    """More than fit into one group, each by itself or all in one call."""
    singly = await asyncio.gather(*(inbox.append(Delivery(b"%d" % number)) for number in range(300)))
    together = await inbox.append_many([Delivery(b"%d" % number) for number in range(300, 1500)])

    ids = [one.id for one in (*singly, *together)]
    assert (len(set(ids)), ids[300:]) == (1500, sorted(ids[300:]))
    assert (await inbox.stats()).ready == 1500


async def test_whoever_gives_up_waiting_for_an_append_leaves_no_trace(inbox):
    """Cancelled at once, it takes nothing of the others' with it."""
    appending = [asyncio.create_task(inbox.append(Delivery(b"%d" % number))) for number in range(30)]
    await asyncio.sleep(0)
    for task in appending[::2]:
        task.cancel()
    results = await asyncio.gather(*appending, return_exceptions=True)

    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * 15
    assert (await inbox.append(Delivery(b"1"))).duplicate
