"""The witness service: cosigns what extends what it cosigned, and nothing else, ever."""

import ast
import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from audit.witness.keys import KeysUnusableError, WitnessKeys
from audit.witness.memory import WitnessMemory
from audit.witness.settings import WitnessSettings
from audit.witness.witness import LogList, Witness
from meshkit.tlog import (
    NoteInvalid,
    Policy,
    checkpoint_text,
    format_add_checkpoint,
    format_note,
    judge_checkpoint,
    parse_size,
)
from tests.audit.witness_world import (
    ORIGIN,
    ROOT,
    MemoryLog,
    WitnessProcess,
    make_certificates,
    policy_lines,
    running,
    trusting,
    until,
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def served(tmp_path_factory, certificates):
    """One process for all that only asks; each test brings an origin of its own."""
    process = WitnessProcess(tmp_path_factory.mktemp("w"), "witness.example/one", certificates)
    with running(process.start(WITNESS_REQUEST_TIMEOUT_MS="1500")):
        yield process


@pytest.fixture
async def ask(served, certificates):
    async with httpx2.AsyncClient(verify=trusting(certificates[0]), base_url=served.url) as client:

        async def post(body):
            return await client.post("/add-checkpoint", content=body)

        post.client = client
        yield post


@pytest.fixture
def log(served, request):
    made = MemoryLog(f"log.example/{request.node.name}")
    served.trust(made.vkey)
    return made


def judged(note, lines, log, *witnesses):
    policy = Policy.parse(f"log {log.vkey}\n{policy_lines(*witnesses)}".encode())
    return judge_checkpoint(note + lines, policy)


async def test_a_growing_log_is_cosigned_with_both_keys(ask, served, log):
    for old, new in [(0, 1), (1, 1), (1, 7), (7, 256), (256, 257), (257, 600)]:
        answer = await ask(log.request(old, new))
        assert answer.status_code == 200, (old, new)
        found = judged(log.note(new), answer.text, log, served)
        assert found.quorum
        assert set(found.cosigned) == {"w0-ed", "w0-pq"}
        assert len(answer.text.splitlines()) == 2
    health = (await ask.client.get("/health")).json()
    assert health["cosigned"][log.vkey.name]["size"] == 600


async def test_a_log_may_begin_with_any_size_and_no_proof(ask, log):
    assert (await ask(log.request(0, 300))).status_code == 200


async def test_the_empty_tree_has_one_root(ask, log):
    other = log.sign(checkpoint_text(log.vkey.name, 0, bytes(32)))
    assert (await ask(format_add_checkpoint(0, (), other))).status_code == 422
    assert (await ask(log.request(0, 0))).status_code == 200
    assert (await ask(log.request(0, 5))).status_code == 200


async def test_what_the_protocol_refuses(ask, log):
    assert (await ask(log.request(0, 10))).status_code == 200
    stranger = MemoryLog("nobody.example/log")
    forger = MemoryLog(log.vkey.name)
    broken = log.note(20).replace(log.text(20), log.text(21))
    twice = log.note(20) + forger.sign(log.text(20)).split("\n\n")[1]
    cases = {
        "unknown origin": (stranger.request(0, 10), 404),
        "another key": (forger.request(10, 20), 403),
        "a signature that fails": (format_add_checkpoint(10, log.proof(10, 21), broken), 403),
        "no signature": (format_add_checkpoint(10, (), log.text(20)), 400),
        "old beyond new": (format_add_checkpoint(30, (), log.note(20)), 400),
        "old too small": (log.request(9, 20), 409),
        "old too large": (log.request(11, 20), 409),
        "a smaller tree": (format_add_checkpoint(5, (), log.note(5)), 409),
        "a proof that fails": (
            format_add_checkpoint(10, log.proof(10, 21), log.note(20)), 422,
        ),
        "no proof": (format_add_checkpoint(10, (), log.note(20)), 422),
        "a fork": (log.forked_at(9).request(10, 20), 422),
        "another root": (log.forked_at(9).request(10, 10), 422),
        "a proof too long": (format_add_checkpoint(10, [bytes(32)] * 64, log.note(20)), 400),
        "leading zero": (log.request(10, 20).replace(b"old 10", b"old 010"), 400),
        "nothing": (b"", 400),
        "no UTF-8": (b"\xff" * 100, 400),
        "too much": (b"x" * 100_000, 413),
    }  # fmt: skip
    for name, (body, status) in cases.items():
        answer = await ask(body)
        assert answer.status_code == status, name
        if status == 409:
            assert answer.headers["Content-Type"] == "text/x.tlog.size"
            assert parse_size(answer.content) == 10
    # A signature by a stranger's key beside the log's is passed over.
    assert (await ask(format_add_checkpoint(10, log.proof(10, 20), twice))).status_code == 200
    assert (await ask.client.get("/add-checkpoint")).status_code == 405


async def test_a_split_view_gets_one_of_its_halves_cosigned(ask, log):
    """Test 9 of the fault list: two clients are shown two trees of one size."""
    other = log.forked_at(40)
    assert (await ask(log.request(0, 30))).status_code == 200
    first, second = await asyncio.gather(ask(log.request(30, 50)), ask(other.request(30, 50)))
    assert sorted([first.status_code, second.status_code]) == [200, 409]
    lost = other if first.status_code == 200 else log
    assert (await ask(lost.request(50, 50))).status_code == 422
    assert (await ask(lost.request(50, 60))).status_code == 422


async def test_what_was_cosigned_can_be_shown(ask, log):
    from hashlib import sha256

    assert (await ask(log.request(0, 33))).status_code == 200
    shown = await ask.client.get(f"/checkpoint/{sha256(log.vkey.name.encode()).hexdigest()}")
    assert shown.text == log.note(33)
    assert (await ask.client.get(f"/checkpoint/{'0' * 64}")).status_code == 404


async def test_of_many_requests_at_once_one_is_cosigned(ask, log):
    """Else the race of the specification: the recorded size goes back."""
    forks = [log.forked_at(10, b"fork%d" % number) for number in range(12)]
    assert (await ask(log.request(0, 10))).status_code == 200
    answers = await asyncio.gather(
        *(ask(fork.request(10, 20 + number)) for number, fork in enumerate(forks))
    )
    assert [answer.status_code for answer in answers].count(200) == 1
    assert {answer.status_code for answer in answers} == {200, 409}
    won = next(n for n, answer in enumerate(answers) if answer.status_code == 200)
    assert (await ask(forks[won].request(20 + won, 40))).status_code == 200


async def closed(writer):
    """Close a connection and wait until it is: the other end may have broken it off."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def test_a_slow_sender_is_cut_off_and_others_are_served(ask, served, certificates, log):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", served.port, ssl=trusting(certificates[0])
    )
    head = f"POST /add-checkpoint HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
    writer.write(f"{head}Content-Length: 1000\r\n\r\nold 0\n".encode())
    assert (await ask(log.request(0, 4))).status_code == 200
    async with asyncio.timeout(30):
        assert b" 408 " in await reader.readline()
    await closed(writer)


async def test_who_says_nothing_does_not_stay(tmp_path, certificates):
    """Whatever stands open costs a file, and a witness that has none left cosigns nothing."""
    process = WitnessProcess(tmp_path / "w", "door.example", certificates)
    log = MemoryLog()
    process.trust(log.vkey)
    limits = {"WITNESS_CONNECTIONS_MAX": "2", "WITNESS_CONNECTION_LIFE_MS": "400"}
    with running(process.start(**limits)):
        context = trusting(certificates[0])
        for said in (b"", b"POST /add-checkpoint HTTP/1.1\r\nHost: w"):
            reader, writer = await asyncio.open_connection("127.0.0.1", process.port, ssl=context)
            writer.write(said)
            async with asyncio.timeout(30):
                with suppress(ConnectionError):
                    assert await reader.read() == b""
            await closed(writer)

        async def answered():
            try:
                async with httpx2.AsyncClient(verify=context) as client:
                    url = f"{process.url}/add-checkpoint"
                    return (await client.post(url, content=log.request(0, 4))).status_code
            except httpx2.HTTPError:
                return None  # we were too slow ourselves: its connection is over after 400 ms

        assert await until(answered) == 200


def test_tls_1_2_is_not_spoken(served, certificates):
    import socket
    import ssl

    context = ssl.create_default_context(cafile=str(certificates[0]))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", served.port)) as plain,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


# --- crashes, and the disk --------------------------------------------------------------------

DIES = """
import os
from audit.witness import keys, main
keys.WitnessKeys.cosign = lambda *a: os._exit(9)  # persisted, and not yet answered
main.run()
"""


def test_a_crash_between_persisting_and_answering_forgets_nothing(tmp_path, certificates):
    process = WitnessProcess(tmp_path / "w", "crash.example", certificates)
    log = MemoryLog()
    process.trust(log.vkey)
    with (
        running(process),
        httpx2.Client(verify=trusting(certificates[0])) as client,
    ):
        process.start()
        assert post(client, process, log.request(0, 8)).status_code == 200
        process.kill()
        process.start(code=DIES)
        with pytest.raises(httpx2.HTTPError):
            post(client, process, log.request(8, 20))
        process.process.wait()
        process.start()
        # It may have been cosigned, for all it knows: no other tree is, from now on.
        fork = log.forked_at(9)
        assert post(client, process, fork.request(8, 20)).status_code == 409
        assert post(client, process, fork.request(20, 20)).status_code == 422
        assert post(client, process, log.request(20, 20)).status_code == 200


def post(client, process, body):
    return client.post(f"{process.url}/add-checkpoint", content=body)


class Watched(WitnessKeys):
    """Looks at the disk at the moment it cosigns, as a power cut would."""

    __slots__ = ()
    path = None
    seen = ()

    def cosign(self, text, time_s):
        with sqlite3.connect(Watched.path) as other:
            sizes = [row[0] for row in other.execute("SELECT size FROM seen")]
            sync = other.execute("PRAGMA synchronous").fetchone()
        other.close()
        Watched.seen = (*Watched.seen, (sizes, sync))
        return super().cosign(text, time_s)


def make_witness(folder, log):
    folder.mkdir(exist_ok=True)
    (folder / "logs").write_text(f"{log.vkey}\n")
    keys = Watched("w.example", Ed25519PrivateKey.generate(), mldsa())
    memory = WitnessMemory(folder / "witness.sqlite")
    return Witness(keys, memory, LogList(folder / "logs")), memory


def mldsa():
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

    return MLDSA44PrivateKey.generate()


def test_nothing_is_cosigned_that_is_not_on_the_disk(tmp_path):
    log = MemoryLog()
    witness, memory = make_witness(tmp_path, log)
    Watched.path, Watched.seen = tmp_path / "witness.sqlite", ()
    for old, new in [(0, 5), (5, 9), (9, 9)]:
        assert witness.add(log.request(old, new)).status == 200
    assert [sizes for sizes, _ in Watched.seen] == [[5], [9], [9]]
    assert memory._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    memory.close()


def test_a_disk_that_fails_cosigns_nothing(tmp_path):
    log = MemoryLog()
    witness, memory = make_witness(tmp_path, log)
    Watched.path, Watched.seen = tmp_path / "witness.sqlite", ()
    assert witness.add(log.request(0, 5)).status == 200
    memory._db.execute("PRAGMA query_only=ON")
    with pytest.raises(sqlite3.Error):
        witness.add(log.request(5, 9))
    assert len(Watched.seen) == 1
    memory.close()


def test_threads_and_processes_on_one_memory_never_go_back(tmp_path):
    """Two of everything on one file: the check and the write are one step, or this fails."""
    log = MemoryLog()
    forks = [log.forked_at(3, b"f%d" % number) for number in range(4)]
    Watched.path = tmp_path / "witness.sqlite"
    first, memory = make_witness(tmp_path, log)
    assert first.add(log.request(0, 3)).status == 200
    won = []

    def run(fork):
        witness, own = make_witness(tmp_path, log)
        for new in range(4, 30):
            answer = witness.add(fork.request(new - 1, new))
            if answer.status == 200:
                won.append((new, fork))
        own.close()

    threads = [threading.Thread(target=run, args=[fork]) for fork in forks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sizes = [size for size, _ in won]
    assert sizes == list(range(4, 4 + len(sizes)))
    assert len({id(fork) for _, fork in won}) == 1
    assert memory.last(ORIGIN).size == sizes[-1]
    memory.close()


# --- keys, settings, installation ---------------------------------------------------------------


def test_keys_are_private_kept_and_may_have_a_passphrase(tmp_path):
    made = WitnessKeys.make(tmp_path / "w", "w.example/north", b"correct horse")
    assert (tmp_path / "w" / "keys.pem").stat().st_mode & 0o777 == 0o600
    assert WitnessKeys.load(tmp_path / "w", b"correct horse").vkeys == made.vkeys
    for wrong in (None, b"battery staple"):
        with pytest.raises(KeysUnusableError):
            WitnessKeys.load(tmp_path / "w", wrong)
    with pytest.raises(KeysUnusableError, match="already"):
        WitnessKeys.make(tmp_path / "w", "w.example/north")
    with pytest.raises(KeysUnusableError, match="name"):
        WitnessKeys.make(tmp_path / "v", "two words")
    lines = (tmp_path / "w" / "vkeys").read_text().splitlines()
    (tmp_path / "w" / "vkeys").write_text("\n".join(reversed(lines)) + "\n")
    with pytest.raises(KeysUnusableError, match="not those"):
        WitnessKeys.load(tmp_path / "w", b"correct horse")


def test_a_witness_whose_memory_is_gone_does_not_come_up_as_one_that_saw_nothing(tmp_path):
    """It would cosign any log from the start again, another one than before, too."""
    WitnessKeys.make(tmp_path / "w", "w.example/north")
    for file in (tmp_path / "w").glob("witness.sqlite*"):
        file.unlink()
    with pytest.raises(KeysUnusableError, match="is gone"):
        WitnessKeys.load(tmp_path / "w")
    assert not (tmp_path / "w" / "witness.sqlite").exists()


def test_a_log_that_could_not_be_cosigned_is_not_listed(tmp_path):
    """Else its checkpoint is remembered, and the signing fails: it would be stuck there."""
    (tmp_path / "logs").write_text(f"{MemoryLog('l' * 256).vkey}\n")
    with pytest.raises(NoteInvalid, match="too long"):
        LogList(tmp_path / "logs")
    (tmp_path / "logs").write_text(f"{MemoryLog('l' * 255).vkey}\n")
    assert len(LogList(tmp_path / "logs")) == 1


def test_without_a_certificate_it_stays_on_this_host():
    with pytest.raises(ValidationError):
        WitnessSettings(host="0.0.0.0")
    with pytest.raises(ValidationError):
        WitnessSettings(cert_chain="c.pem")


def test_it_says_why_it_does_not_start(tmp_path):
    environment = os.environ | {"WITNESS_DATA_DIR": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, "-m", "sealgate.cli", "audit", "witness", "serve"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "sealgate audit witness init" in done.stderr


def test_it_knows_nothing_of_the_log_service():
    """It is meant for another host, by another hand: a compromise of one is none of the other."""
    for path in (ROOT / "audit" / "witness").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in getattr(node, "names", [])]
            strays = [n for n in names if n.startswith("audit.") and "audit.witness" not in n]
            assert strays == [], path.name
    script = "import audit.witness.main, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    heavy = {"grpc", "cedarpy", "opentelemetry", "httpx2", "jinja2", "obstore", "uvloop"}
    assert not heavy & {name.partition(".")[0] for name in loaded}
    assert not [n for n in loaded if n.startswith("audit.") and not n.startswith("audit.witness")]


def test_the_note_of_a_request_keeps_the_logs_own_signature(tmp_path):
    log = MemoryLog()
    witness, memory = make_witness(tmp_path, log)
    Watched.path = tmp_path / "witness.sqlite"
    assert witness.add(log.request(0, 5)).status == 200
    assert memory.last(ORIGIN).note == format_note(log.text(5), log.note(5).split("\n\n")[1])
    memory.close()
