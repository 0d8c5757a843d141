"""A client whose files are replaced: no call is lost, and nothing of before is kept."""

import asyncio
import datetime as dt
import gc
import shutil
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509

from meshkit.contract import Reason, Refusal
from meshkit.files import replace_together
from sealgate import (
    AsyncAuditReader,
    AsyncClient,
    AsyncModels,
    AsyncPayloads,
    Client,
    OutOfTimeError,
    SealgateError,
    _files,
    _shape,
)
from sealgate._files import Files
from sealgate.v1 import payloads_pb2
from sealgate.v1.payloads_pb2_grpc import (
    PayloadServiceServicer,
    add_PayloadServiceServicer_to_server,
)

TENANT = "spiffe://sealgate.test/tenant/acme/app"
LONG = "word " * 50


def serial_in(pem: bytes) -> int:
    return x509.load_pem_x509_certificate(pem).serial_number


class Kept:
    """A client's folder, and whoever replaces what is in it."""

    def __init__(self, folder, old, new) -> None:
        self.folder = folder
        self._old, self._new = old, new
        self.old, self.new = serial_in(old.chain), serial_in(new.chain)

    def files(self) -> Files:
        return Files(*(self.folder / name for name in ("ca.pem", "client.pem", "client.key")))

    def replace(self, ends=None, *, only=("ca.pem", "client.pem", "client.key")) -> None:
        ends = ends or self._new
        content = {"ca.pem": ends.ca, "client.pem": ends.chain, "client.key": ends.key}
        replace_together(self.folder, {name: (content[name], 0o600) for name in only})

    def put_back(self) -> None:
        self.replace(self._old)


def serials(gateway) -> list[int]:
    return [serial_in(context.certificate_pem) for _, context in gateway.seen]


def line_of(client):
    return getattr(client, "client", client)._line


def connections(port: int) -> int:
    """How many connections to the port there are, by the kernel's tables."""
    tables = Path("/proc/self/net").glob("tcp*")
    rows = [row.split() for table in tables for row in table.read_text().splitlines()[1:]]
    established = "01"
    ends_at = f":{port:04X}"
    return sum(row[2].endswith(ends_at) and row[3] == established for row in rows)


async def until(holds) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
def looks(monkeypatch) -> list[Files]:
    """Every look at files; each call looks."""
    monkeypatch.setattr(_files, "LOOK_S", 0.0)
    made: list[Files] = []
    marked = Files._marked
    monkeypatch.setattr(Files, "_marked", lambda self: made.append(self) or marked(self))
    return made


@pytest.fixture
def opened(monkeypatch) -> list[int]:
    """The serial of each channel that was opened."""
    made: list[int] = []
    credentials = _files.Shown.credentials

    def counted(self):
        made.append(serial_in(self.cert))
        return credentials(self)

    monkeypatch.setattr(_files.Shown, "credentials", counted)
    return made


@pytest.fixture
def kept(tls, tenant_ends, ca) -> Kept:
    return Kept(tls, tenant_ends, ca.issue(TENANT))


async def test_no_call_and_no_stream_is_lost(connect, gateway, kept, port, looks):
    client, failed = connect(), []
    gateway.held = True
    stream = client.stream(LONG, model="echo")
    assert await anext(stream) == "word"
    before = line_of(client)._current.channel  # held, so that only closing it can close it

    async def ask():
        while kept.new not in serials(gateway):
            try:
                await client.chat("x", model="echo")
            except SealgateError as error:
                failed.append(error)

    async with asyncio.timeout(20), asyncio.TaskGroup() as asking:
        for _ in range(4):
            asking.create_task(ask())
        await until(lambda: len(gateway.seen) > 20)
        kept.replace()
    assert not failed
    assert line_of(client).channels == 2

    gateway.held = False
    assert len([piece async for piece in stream]) == 49
    assert stream.result.text == LONG.replace(" ", "")
    assert set(serials(gateway)) == {kept.old, kept.new}
    await until(lambda: line_of(client).channels == 1)
    await until(lambda: connections(port) == 1)
    del before

    gateway.seen.clear()
    await client.models()
    await client.stream("x", model="echo").aclose()
    assert serials(gateway) == [kept.new]


async def test_calls_go_on_past_the_end_of_a_certificate(ca, port, kept, monkeypatch):
    """Both kinds at once, for it takes as long as a certificate lives."""
    monkeypatch.setattr(_files, "LOOK_S", 0.05)
    first = ca.issue(TENANT, life=dt.timedelta(seconds=3))
    over_s = x509.load_pem_x509_certificate(first.chain).not_valid_after_utc.timestamp()
    kept.replace(first)

    async def ask(chat):
        while time.time() < over_s + 0.2:
            await chat("x", model="echo")
            await asyncio.sleep(0.01)

    with Client(f"localhost:{port}", tls=kept.folder) as blocking:
        async with AsyncClient(f"localhost:{port}", tls=kept.folder) as client:
            chats = (client.chat, partial(asyncio.to_thread, blocking.chat))
            for chat in chats:
                await chat("x", model="echo")
            kept.replace()
            await asyncio.gather(*map(ask, chats))


async def test_files_that_do_not_fit_are_left_until_they_do(connect, gateway, kept, looks, opened):
    client = connect()
    unfit = [
        lambda: kept.replace(only=["client.key"]),
        lambda: (kept.folder / "client.key").write_bytes(b""),
        lambda: (kept.folder / "ca.pem").write_bytes(b"no certificate"),
        (kept.folder / "ca.pem").unlink,
        lambda: kept.replace(only=["ca.pem"]),
    ]
    await client.chat("x", model="echo")
    for spoil in unfit:
        spoil()
        before = len(looks)
        await client.chat("x", model="echo")
        assert len(looks) > before
    assert opened == [kept.old]
    kept.replace()
    await client.chat("x", model="echo")
    assert serials(gateway)[-1] == kept.new
    assert len(opened) == 2


async def test_the_same_files_again_are_no_reason_for_a_new_channel(connect, kept, looks, opened):
    client = connect()
    for _ in range(3):
        await client.models()
        kept.put_back()
    await client.models()
    assert len(opened) == 1
    assert len(looks) == 4


async def test_a_client_of_bytes_does_not_look(connect, gateway, kept, looks, opened):
    files = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
    client = connect(**{name: (kept.folder / file).read_bytes() for name, file in files.items()})
    await client.models()
    kept.replace()
    await client.models()
    assert set(serials(gateway)) == set(opened) == {kept.old}
    assert not looks


async def test_files_are_looked_at_once_a_second(kept, monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(_files, "time", SimpleNamespace(monotonic=lambda: now_s))
    files = kept.files()
    first = files.latest()
    kept.replace()
    now_s += _files.LOOK_S - 0.01
    assert files.latest() is first
    now_s += 0.02
    second = files.latest()
    assert serial_in(second.cert) == kept.new
    kept.put_back()
    assert files.latest() is second
    now_s += _files.LOOK_S
    assert files.latest() == first
    monkeypatch.setattr(Files, "_read", None)  # what has not changed is not read
    now_s += _files.LOOK_S
    assert files.latest() == first


def test_what_changes_while_it_is_read_is_seen_at_the_next_look(kept, ca, monkeypatch):
    """The second replacement comes between the look and the reading of the first."""
    monkeypatch.setattr(_files, "LOOK_S", 0.0)
    files = kept.files()
    files.latest()
    kept.replace()
    marked, third = Files._marked, ca.issue(TENANT)

    def overtaken(self):
        marks = marked(self)
        kept.replace(third, only=["client.pem"])
        return marks

    monkeypatch.setattr(Files, "_marked", overtaken)
    at_hand = files.latest()
    monkeypatch.setattr(Files, "_marked", marked)
    kept.replace(third, only=["client.key"])
    assert at_hand.cert != third.chain
    assert files.latest().cert == third.chain


def test_the_first_call_waits_for_a_pair_that_fits(kept, monkeypatch):
    kept.replace(only=["client.pem"])
    mended = SimpleNamespace(
        sleep=lambda _s: kept.replace(only=["client.key"]), monotonic=time.monotonic
    )
    monkeypatch.setattr(_files, "time", mended)
    assert kept.files().latest().fits()


async def test_a_first_pair_that_does_not_fit_fails_calls_until_it_does(connect, kept, looks):
    kept.replace(only=["client.pem"])
    client = connect()
    with pytest.raises(SealgateError):
        await client.models()
    kept.replace()
    assert len(await client.models()) == 1


async def test_no_file_at_all_is_told_and_the_next_call_tries_again(connect, kept):
    (kept.folder / "client.key").unlink()
    client = connect()
    with pytest.raises(FileNotFoundError):
        await client.models()
    kept.put_back()
    assert len(await client.models()) == 1


async def test_many_at_once_open_one_channel(connect, kept, looks, opened):
    client = connect()
    await asyncio.gather(*(client.models() for _ in range(24)))
    assert len(opened) == 1
    kept.replace()
    await asyncio.gather(*(client.models() for _ in range(24)))
    assert len(opened) == 2
    await until(lambda: line_of(client).channels == 1)


async def test_a_call_that_is_made_again_goes_over_the_newest(
    connect, gateway, kept, looks, monkeypatch
):
    after = _shape.Tries.after

    def late(self, failure, *, begun):
        kept.replace()
        return after(self, failure, begun=begun)

    monkeypatch.setattr(_shape.Tries, "after", late)
    client = connect(retries=2)
    for way in ("chat", "stream"):
        kept.put_back()
        gateway.refusals.append(Refusal(Reason.LIMITED, retry_after_ms=1))
        if way == "chat":
            await client.chat("x", model="echo")
        else:
            assert [piece async for piece in client.stream("x", model="echo")] == ["x"]
        assert serials(gateway)[-2:] == [kept.old, kept.new]
    await until(lambda: line_of(client).channels == 1)


@pytest.mark.parametrize("way", ["dropped", "closed", "out of time"])
async def test_an_abandoned_stream_keeps_no_channel(connect, gateway, kept, looks, way):
    client = connect(timeout_s=2.5) if way == "out of time" else connect()
    gateway.held = True
    stream = client.stream(LONG, model="echo")
    assert await anext(stream) == "word"
    kept.replace()
    await client.models()
    assert line_of(client).channels == 2
    if way == "dropped":
        del stream
        gc.collect()
    elif way == "closed":
        await stream.aclose()
    await until(lambda: line_of(client).channels == 1)
    assert await asyncio.to_thread(gateway.closed.wait, 10)


async def test_closing_a_client_closes_what_it_had_before_too(connect, gateway, kept, port, looks):
    client = connect()
    gateway.held = True
    stream = client.stream(LONG, model="echo")
    assert await anext(stream) == "word"
    kept.replace()
    await client.models()
    assert connections(port) == 2
    await client.aclose()
    assert line_of(client).channels == 0
    with pytest.raises((SealgateError, asyncio.CancelledError)):
        assert [piece async for piece in stream]
    await until(lambda: connections(port) == 0)
    assert await asyncio.to_thread(gateway.closed.wait, 10)
    assert len(await client.models()) == 1


async def test_a_call_that_fails_or_is_cancelled_is_under_way_no_more(port, kept, gateway):
    gateway.pause_s = 30
    async with AsyncClient(f"localhost:{port}", tls=kept.folder) as client:
        with pytest.raises(OutOfTimeError):
            await client.chat("x", model="echo", timeout_s=0.05)
        for turns in range(6):
            tasks = [
                asyncio.create_task(client.chat("x", model="echo")),
                asyncio.create_task(anext(client.stream("x", model="echo"))),
            ]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        wire = client._line._current
        await until(lambda: wire.calls == 0)


def test_a_stream_that_outlives_its_loop_is_collected_in_silence(port, gateway, kept, looks):
    gateway.held = True

    async def begun():
        client = AsyncClient(f"localhost:{port}", tls=kept.folder)
        stream = client.stream(LONG, model="echo")
        assert await anext(stream) == "word"
        kept.replace()
        await client.models()
        assert line_of(client).channels == 2
        return client, [stream]

    client, streams = asyncio.run(begun())
    streams.clear()
    gc.collect()  # what is raised meanwhile is an error of this test
    assert line_of(client).channels == 1


async def test_a_call_that_ends_in_another_thread_is_closed_by_its_loop(port, kept, looks):
    """As one does that is collected there, beside another loop."""
    async with AsyncClient(f"localhost:{port}", tls=kept.folder) as client:
        await client.models()
        line, old, closed = client._line, client._line._current, []
        old.calls += 1
        kept.replace()
        await client.models()
        close = old.channel.close
        old.channel.close = lambda grace: closed.append(asyncio.get_running_loop()) or close(grace)

        async def elsewhere():
            line._ended(old)

        await asyncio.to_thread(asyncio.run, elsewhere())
        await until(lambda: closed == [asyncio.get_running_loop()])
        assert line.channels == 1


def test_a_process_that_can_begin_no_thread_loses_no_call(port, gateway, kept, looks, monkeypatch):
    def none_left(_thread):
        raise RuntimeError

    with Client(f"localhost:{port}", tls=kept.folder) as client:
        client.chat("x", model="echo")
        kept.replace()
        with monkeypatch.context() as full:
            full.setattr("threading.Thread.start", none_left)
            client.chat("x", model="echo")
        assert serials(gateway) == [kept.old, kept.new]
        assert line_of(client).channels == 1


def test_files_of_a_relative_path_are_where_they_were(port, gateway, kept, looks, monkeypatch):
    monkeypatch.chdir(kept.folder)
    with Client(f"localhost:{port}", tls=".") as client:
        client.chat("x", model="echo")
        monkeypatch.chdir("/")
        kept.replace()
        client.chat("x", model="echo")
    assert serials(gateway) == [kept.old, kept.new]


def test_a_folder_of_links_that_are_switched_is_read_anew(port, gateway, kept, looks):
    """As Kubernetes mounts secrets: `..data` becomes a link to another folder, the old one goes."""
    ends = (kept._old, kept._new)
    names = ("ca.pem", "client.pem", "client.key")
    there = kept.folder.parent / "secret"
    there.mkdir()
    for name in names:
        (there / name).symlink_to(Path("..data", name))

    def switch(number):
        (there / f"..{number}").mkdir()
        parts = (ends[number].ca, ends[number].chain, ends[number].key)
        for name, content in zip(names, parts, strict=True):
            (there / f"..{number}" / name).write_bytes(content)
        (there / "..data_tmp").symlink_to(f"..{number}")
        (there / "..data_tmp").replace(there / "..data")

    with Client(f"localhost:{port}", tls=there) as client:
        for number in range(2):
            switch(number)
            client.chat("x", model="echo")
            shutil.rmtree(there / f"..{number}")
    assert serials(gateway) == [kept.old, kept.new]


OTHERS = {
    AsyncAuditReader: lambda client: client.checkpoint(),
    AsyncModels: lambda client: client.versions(),
    AsyncPayloads: lambda client: client.holds(),
}


@pytest.mark.parametrize("kind", OTHERS)
async def test_every_other_client_does_the_same(port, kept, looks, opened, kind):
    """Nobody serves them here, but a call that is refused is a call."""
    async with kind(f"localhost:{port}", tls=kept.folder) as client:
        for _ in range(2):
            with pytest.raises(SealgateError):
                await OTHERS[kind](client)
            kept.replace()
        with pytest.raises(SealgateError):
            await OTHERS[kind](client)
        assert opened[1:] == [kept.new]
        await until(lambda: client._line.channels == 1)


class Endless(PayloadServiceServicer):
    async def ExportSubject(self, _request, _context):
        while True:
            yield payloads_pb2.ExportSubjectResponse()
            await asyncio.sleep(0.01)


async def test_an_export_that_is_left_is_ended(serve, kept, running):
    entered = serve(partial(add_PayloadServiceServicer_to_server, Endless()))
    with running(entered) as port:
        async with AsyncPayloads(f"localhost:{port}", tls=kept.folder) as client:
            export = client.export("p-1")
            await anext(export)
            assert client._line._current.calls == 1
            await export.aclose()
            await until(lambda: client._line._current.calls == 0)
