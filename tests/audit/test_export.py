"""The export: three formats that cannot be broken out of, and nothing missing whatever happens."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc

import audit.export.sinks
from audit.export import cef, ecs, ocsf
from audit.export.exporter import Exporter, GaveUp, Waits
from audit.export.otlp import OtlpSink, is_loopback
from audit.export.reading import LogReader, LogRefused
from audit.export.sinks import FileSink, Line, SinkDown
from audit.export.state import StateBusy, alone, load_state
from audit.export.told import told_of
from audit.records.ocsf_record import ocsf_record
from meshkit.contract import Direction, FindingCount
from meshkit.tlog import (
    Edge,
    VerifierKey,
    bundle_path,
    checkpoint_text,
    encode_bundle,
    entry_hashes,
    format_note,
    signature_line,
)
from sealgate.cli import BAD_USAGE, DONE, REFUSED, UNAVAILABLE, main
from tests.audit.world import make_outcome

HASTY = Waits(first_s=0.001, most_s=0.002, patience_s=0.01, poll_s=0.001)


class Grown:
    """A log in a folder, grown at will, and signed: tiles without a service."""

    def __init__(self, folder):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.folder = folder
        self._key = Ed25519PrivateKey.generate()
        self.key = VerifierKey("logs.example/x", self._key.public_key().public_bytes_raw())
        self.leaves, self._edge = [], Edge()
        self.grow([])

    def grow(self, leaves):
        """Add leaves; full bundles and tiles are written beside the partial ones."""
        first = len(self.leaves) // 256
        self.leaves += leaves
        self._edge, tiles = self._edge.grown(entry_hashes(leaves))
        for number in range(first, -(-len(self.leaves) // 256)):
            bundle = self.leaves[number * 256 : (number + 1) * 256]
            self._write(bundle_path(number, len(bundle)), encode_bundle(bundle))
        for path, data in tiles:
            self._write(path, data)
        text = checkpoint_text(self.key.name, len(self.leaves), self._edge.root())
        line = signature_line(self.key, self._key.sign(text.encode()))
        self._write("checkpoint", format_note(text, line).encode())

    def _write(self, path, data):
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(data)

    def read(self, path):
        try:
            return (self.folder / path).read_bytes()
        except FileNotFoundError:
            return None


def leaf(number):
    event = {"action": "chat", "call_id": f"{number:032x}", "phase": "note", "time_us": 10**15}
    whole = {"event": event, "log": {"received_us": 10**15}, "schema": "sealgate/audit/v1"}
    return json.dumps(whole).encode()


@pytest.fixture
def log(tmp_path):
    made = Grown(tmp_path / "log")
    made.grow([leaf(number) for number in range(300)])
    return made


def exporter(log, sink, state, **rest):
    reader = LogReader(log.read, log.key)
    return Exporter(reader, lambda _origin: sink, state, "ecs", **{"waits": HASTY} | rest)


def indexes_in(path):
    return [json.loads(line)["event"]["sequence"] for line in path.read_bytes().splitlines()]


# --- formats --------------------------------------------------------------------------------------

texts = st.text(max_size=30) | st.text("a=|\\\n\r \u2028\x00\x85\ud800nu", max_size=12)


@settings(max_examples=80, deadline=None)
@given(head=texts, value=texts, other=texts)
def test_what_cef_escapes_is_read_back_the_same_in_one_line(head, value, other):
    line = (
        f"CEF:0|a|b|1|{cef.header_value(head)}|{cef.header_value(other)}|3|"
        f"cs1={cef.extension_value(value)} cs2={cef.extension_value(other)}"
    )
    fields, extension = cef.parse(line)
    assert fields[4:6] == (head, other)
    assert extension == {"cs1": value, "cs2": other}
    assert len(line.splitlines()) == 1
    line.encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
NAMES = ("action", "outcome", "ocsf", "usage", "verdicts", "tls", "time_us", "model", "trace_id",
         "detail", "policies", "user", "tenant", "duration_us", "call_id")  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(event=st.dictionaries(st.sampled_from(NAMES), json_values), log_part=json_values)
def test_a_leaf_of_any_shape_is_one_line_in_every_format(event, log_part):
    """Leaves are checked when they are appended; an exporter believes nothing all the same."""
    whole = {"event": event, "log": log_part, "schema": "sealgate/audit/v1"}
    told = told_of(json.dumps(whole).encode(), 7, "logs.example/x|=\n")
    for line in (ocsf.ocsf_line(told), ecs.ecs_line(told), cef.cef_line(told)):
        assert len(line.decode().splitlines()) == 1
    document = json.loads(ecs.ecs_line(told))
    assert document["event"]["sequence"] == 7
    action = event.get("action")
    fields, extension = cef.parse(cef.cef_line(told).decode())
    if isinstance(log_part, dict) and isinstance(action, str) and action:
        assert (fields[5], extension["act"]) == (action, action)
    assert extension["deviceExternalId"] == "logs.example/x|=\n"


@pytest.mark.parametrize("raw", [b"", b"\xff\x00", b"[1]", b'{"schema":"x"}', b"9" * 5_000])
def test_an_entry_that_is_no_leaf_of_ours_goes_out_as_its_bytes(raw):
    document = json.loads(ecs.ecs_line(told_of(raw, 3, "o")))
    assert document["sealgate"]["log"]["index"] == 3
    base = json.loads(ocsf.ocsf_line(told_of(raw, 3, "o")))
    assert (base["class_uid"], base["raw_data"]) == (0, b64encode(raw).decode())
    assert cef.parse(cef.cef_line(told_of(raw, 3, "o")).decode())[1]["externalId"] == "3"


async def test_a_record_of_ours_in_ecs_and_cef(world):
    found = FindingCount(
        direction=Direction.PROMPT, type="EMAIL", subtype="", action="mask", count=2
    )
    made = make_outcome(counts=(found,), duration_us=1_500, subject="patient 7")
    async with world.open() as audit:
        appended = await audit.append(made)
        (record,) = await audit.records("acme", call_id=made.call_id)
    told = told_of(record.leaf, record.index, "o")
    document = json.loads(ecs.ecs_line(told))
    event = json.loads(record.leaf)["event"]
    assert document["event"]["original"] == record.leaf.decode()
    assert document["event"]["hash"] == appended.leaf_hash.hex()
    assert document["event"]["category"] == ["api"]
    assert document["event"]["outcome"] == "success"
    assert document["event"]["duration"] == 1_500_000
    assert document["user"]["id"] == event["user"]
    assert document["tls"] == {
        "version": "1.3", "version_protocol": "tls", "curve": "X25519MLKEM768",
    }  # fmt: skip
    assert document["gen_ai"]["request"]["model"] == "smollm2"
    assert document["sealgate"]["verdicts"][0]["count"] == 2
    assert json.loads(ocsf.ocsf_line(told)) == ocsf_record(record.leaf, record.index, "o")
    fields, extension = cef.parse(cef.cef_line(told).decode())
    assert fields == ("CEF:0", "Sealgate", "Sealgate", "1", "6003:chat", "chat", "3")
    assert extension["cs4"] == "prompt/EMAIL/mask/2"
    assert extension["cs5"] == appended.leaf_hash.hex()
    assert extension["suid"] == event["user"]
    assert b"patient 7" not in ecs.ecs_line(told) + cef.cef_line(told)


# --- the export -----------------------------------------------------------------------------------


def test_an_export_goes_on_where_it_was_and_leaves_nothing_out(log, tmp_path):
    out, state = tmp_path / "out", tmp_path / "state"
    exporter(log, FileSink(out), state).run(follow=False)
    assert indexes_in(out) == [*range(300)]
    exporter(log, FileSink(out), state).run(follow=False)
    for count in (1, 211, 1, 256, 600):
        log.grow([leaf(len(log.leaves) + n) for n in range(count)])
        exporter(log, FileSink(out), state).run(follow=False)
    assert indexes_in(out) == [*range(len(log.leaves))]
    assert out.stat().st_mode & 0o777 == 0o600


class Recorder:
    """A sink that notes what the state said whenever it was written to."""

    def __init__(self, state, fail=0):
        self.state, self.fail = state, fail
        self.taken, self.states = [], []

    def put(self, lines):
        self.states.append(load_state(self.state, "ecs").done.size)
        if self.fail:
            self.fail -= 1
            raise SinkDown(str(errno.EAGAIN))
        self.taken += [line.number for line in lines]
        return ()

    def reopen(self):
        pass

    def close(self):
        pass


def test_the_state_is_advanced_behind_the_sink_and_never_before(log, tmp_path):
    state = tmp_path / "state"
    sink = Recorder(state)
    exporter(log, sink, state).run(follow=False)
    assert sink.states == [0, 256]
    log.grow([leaf(1)])
    with pytest.raises(GaveUp):
        exporter(log, Recorder(state, fail=10**6), state).run(follow=False)
    assert load_state(state, "ecs").done.size == 300
    sink = Recorder(state, fail=3)
    exporter(log, sink, state).run(follow=False)
    assert sink.taken == [300]


def test_a_log_that_was_put_back_or_rewritten_is_not_exported_further(log, tmp_path):
    out, state = tmp_path / "out", tmp_path / "state"
    exporter(log, FileSink(out), state).run(follow=False)
    before = out.read_bytes()
    whole, log.leaves, log._edge = log.leaves, [], Edge()
    log.grow(whole[:290])
    with pytest.raises(LogRefused, match="shrunk"):
        exporter(log, FileSink(out), state).run(follow=False)
    log.leaves, log._edge = [], Edge()
    log.grow([*whole[:7], b"forged", *whole[8:], leaf(300)])
    with pytest.raises(LogRefused, match="fork"):
        exporter(log, FileSink(out), state).run(follow=False)
    assert out.read_bytes() == before


def test_nothing_goes_out_that_the_checkpoint_does_not_hold(log, tmp_path):
    out = tmp_path / "out"
    bundle = log.folder / bundle_path(1, 44)
    bundle.write_bytes(bundle.read_bytes().replace(b"chat", b"CHAT", 1))
    with pytest.raises(LogRefused, match="entry"):
        exporter(log, FileSink(out), tmp_path / "state").run(follow=False)
    assert indexes_in(out) == [*range(256)]
    (log.folder / "checkpoint").write_bytes(b"no checkpoint\n")
    with pytest.raises(LogRefused, match="signature"):
        exporter(log, FileSink(out), tmp_path / "state").run(follow=False)


def test_a_full_disk_is_waited_for_and_leaves_no_half_lines(log, tmp_path, monkeypatch):
    out, state = tmp_path / "out", tmp_path / "state"
    room, write = [3], os.write

    def scarce(handle, data):
        if room[0] and len(data) > 1_000:
            room[0] -= 1
            write(handle, bytes(data[:777]))
            raise OSError(errno.ENOSPC, "no space")
        return write(handle, data)

    monkeypatch.setattr(audit.export.sinks.os, "write", scarce)
    waits = []
    exporter(log, FileSink(out), state, told=lambda what, _: waits.append(what)).run(follow=False)
    assert waits == ["waiting"] * 3
    assert indexes_in(out) == [*range(300)]


def test_a_file_that_is_rotated_away_is_left_to_whoever_took_it(tmp_path):
    out = tmp_path / "out"
    sink = FileSink(out)
    sink.put([Line(0, b"one", b"")])
    out.rename(tmp_path / "out.1")
    sink.put([Line(1, b"two", b"")])
    assert (tmp_path / "out.1").read_bytes() == b"one\n"
    assert out.read_bytes() == b"two\n"
    sink.close()
    out.write_bytes(b"two\nhalf a li")
    FileSink(out).put([Line(2, b"three", b"")])
    assert out.read_bytes() == b"two\nthree\n"


def test_following_goes_on_with_what_comes_in_a_new_file_after_a_rotation(log, tmp_path):
    out = tmp_path / "out"
    rests = []

    def rest(_seconds):
        rests.append(len(log.leaves))
        if len(rests) == 3:
            return True
        out.rename(tmp_path / f"out.{len(rests)}")
        export.reopen_soon()
        log.grow([leaf(n) for n in range(5)])
        return False

    export = exporter(log, FileSink(out), tmp_path / "state", rest=rest)
    assert export.run(follow=True).done.size == 310
    assert rests == [300, 305, 310]
    assert indexes_in(tmp_path / "out.2") == [*range(300, 305)]
    assert indexes_in(out) == [*range(305, 310)]


def test_two_exports_never_share_a_state(tmp_path):
    with alone(tmp_path / "state"), pytest.raises(StateBusy), alone(tmp_path / "state"):
        pass


# --- OTLP -----------------------------------------------------------------------------------------


class Collector(logs_grpc.LogsServiceServicer):
    """Takes records on a real socket; refuses, for good or for now, as it is told."""

    def __init__(self):
        self.taken, self.never, self.codes = [], set(), []

    def Export(self, request, context):
        if self.codes:
            context.abort(self.codes.pop(0), "")
        (resource,) = request.resource_logs
        records = resource.scope_logs[0].log_records
        numbers = [each.attributes[0].value.int_value for each in records]
        self.taken += [
            (number, record)
            for number, record in zip(numbers, records, strict=True)
            if number not in self.never
        ]
        reply = logs.ExportLogsServiceResponse()
        reply.partial_success.rejected_log_records = len(self.never & {*numbers})
        return reply


@contextmanager
def collecting():
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    logs_grpc.add_LogsServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def test_otlp_is_acknowledged_or_sent_again_and_what_is_rejected_is_told(log, tmp_path, capsys):
    words = ["audit", "export", "--format", "ocsf", "--log", str(log.folder), "--vkey"]
    words += [str(log.key), "--state", str(tmp_path / "state"), "--to"]
    with collecting() as (collector, target):
        collector.codes = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED]
        collector.never = {5, 299}
        assert main([*words, f"otlp://{target}"]) == DONE
        told = capsys.readouterr().err
        assert {number for number, _ in collector.taken} == {*range(300)} - {5, 299}
        record = dict(collector.taken)[7]
        body = json.loads(record.body.string_value)
        assert (body["time"], body["metadata"]["sequence"]) == (10**12, 7)
        assert record.event_name == "chat"
        assert "entry 5 is rejected" in told
        assert "2 rejected" in told
        log.grow([leaf(300)])
        collector.codes = [grpc.StatusCode.PERMISSION_DENIED]
        assert main([*words, f"otlp://{target}"]) == REFUSED
    assert load_state(tmp_path / "state", "ocsf").done.size == 300
    assert main([*words, f"otlp://{target}", "--patience", "0.05"]) == UNAVAILABLE
    assert main([*words, "otlp://collector.example:4317"]) == BAD_USAGE


def test_only_addresses_of_this_machine_are_loopback():
    assert all(map(is_loopback, ("127.0.0.1:1", "[::1]:1", "localhost:1")))
    assert not any(map(is_loopback, ("10.0.0.1:1", "localhost.example:1", "127.0.0.1.example:1")))


def test_otlp_sink_splits_no_batch_that_was_taken(log):
    with collecting() as (collector, target):
        sink = OtlpSink(target, None, origin="o", format_name="ecs", timeout_s=5)
        assert sink.put([Line(n, b"{}", leaf(n)) for n in range(9)]) == ()
        assert len(collector.taken) == 9
        sink.close()


# --- kill -9 --------------------------------------------------------------------------------------


def test_killed_at_any_moment_it_leaves_nothing_out(log, tmp_path):
    """And what it wrote twice, it wrote the same."""
    log.grow([leaf(number) for number in range(300, 5_000)])
    out, state = tmp_path / "out", tmp_path / "state"
    words = [sys.executable, "-m", "tests.audit.export_killed", str(log.folder), str(log.key)]
    words += [str(out), str(state)]
    chance, kills = random.Random(7), 0
    for _ in range(20):
        process = subprocess.Popen(words)
        size = out.stat().st_size if out.exists() else 0
        aim = size + chance.randrange(1, 500_000)
        while process.poll() is None and (not out.exists() or out.stat().st_size < aim):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() != 0
        if kills == 3:
            break
        if load_state(state, "ecs").done.size == 5_000:  # it was faster than we looked
            out.unlink()
            state.unlink()
            kills = 0
    assert kills == 3
    assert subprocess.run(words, check=False).returncode == 0
    found = indexes_in(out)
    assert sorted(set(found)) == [*range(5_000)]
    assert len(set(out.read_bytes().splitlines())) == 5_000
