"""The mesh as it runs: six processes, the real model, OpenBao, certificates that are renewed."""

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from meshkit.w3c import traceparent
from sealgate import AsyncAuditReader, AsyncClient, UnavailableError
from tests.otlp_receiver import Receiver, receiving

ROOT = Path(__file__).parent.parent.parent
MODEL = "smollm2-135m-instruct"
SERVICES = ("gateway", "compliance", "cache", "inference", "audit")
START_S = 240
CERTIFICATE_S = 60


@dataclass
class Running:
    data: Path
    process: subprocess.Popen
    collector: Receiver

    @property
    def facts(self):
        return json.loads((self.data / "ready.json").read_text())

    @property
    def vkey(self):
        return Path(self.facts["vkey"]).read_text().strip()

    def client(self):
        return AsyncClient.from_folder(self.facts["gateway"], self.facts["tls"], vkey=self.vkey)

    def pid(self, service):
        """Of the process that serves now: started again, it has another one."""
        needle = f"\0-m\0{service}.main\0"
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if needle in path.read_text() and self.is_ours(path.parent):
                    return int(path.parent.name)
            except OSError:
                continue
        return None

    def is_ours(self, process):
        return f"{self.data}/services" in (process / "environ").read_text(errors="replace")

    def kill(self, service):
        os.kill(self.pid(service), signal.SIGKILL)

    async def until_serving(self, service, starts):
        port = self.data / "services" / service / "port"
        async with asyncio.timeout(START_S):
            while self.started(service) < starts or not port.exists():
                await asyncio.sleep(0.05)

    def started(self, service):
        return self.log(service).count('"service.serving"')

    def log(self, service):
        return (self.data / "services" / service / "log.jsonl").read_text()


@pytest.fixture(scope="session")
def collector():
    with receiving() as made:
        yield made


@pytest.fixture(scope="session")
def mesh(tmp_path_factory, collector):
    data = tmp_path_factory.mktemp("mesh")
    settings = {f"APPLIANCE_{name.upper()}_PORT": "0" for name in SERVICES}
    for name in SERVICES:
        settings |= {
            f"{name.upper()}_TELEMETRY__OTLP_TARGET": f"127.0.0.1:{collector.port}",
            f"{name.upper()}_TELEMETRY__TRACE_SAMPLE_RATIO": "0",
            f"{name.upper()}_TELEMETRY__EXPORT_EVERY_MS": "200",
            f"{name.upper()}_TELEMETRY__EXPORT_METRICS_EVERY_MS": "200",
            f"{name.upper()}_TELEMETRY__METRICS_PORT": "0",
            f"{name.upper()}_TELEMETRY__STRICT": "true",
            f"{name.upper()}_SERVING__LAME_DUCK_MS": "0",
        }
    settings |= {
        "GATEWAY_TELEMETRY__TRACE_SAMPLE_RATIO": "1",
        "GATEWAY_HOPS__CACHE_MS": "1500",
        "GATEWAY_HOPS__CONNECT_MS": "4000",
        "GATEWAY_HOPS__REACHING__KEEPALIVE_MS": "10500",
        "GATEWAY_HOPS__REACHING__KEEPALIVE_TIMEOUT_MS": "1000",
        "APPLIANCE_DATA_DIR": str(data),
        "APPLIANCE_MODELS_DIR": str(ROOT / "var" / "models"),
        "APPLIANCE_CERTIFICATE_TTL_S": str(CERTIFICATE_S),
        "APPLIANCE_RESTART_PAUSE_S": "1.5",
        "COMPLIANCE_CACHE_DIR": str(ROOT / "var" / "cache" / "compliance"),
    }
    with (data / "mesh.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "appliance.mesh"],
            cwd=ROOT,
            env=os.environ | settings,
            stdout=output,
            stderr=output,
        )
    deadline = time.monotonic() + START_S
    while not (data / "ready.json").exists():
        assert process.poll() is None, (data / "mesh.log").read_text()[-2_000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield Running(data, process, collector)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


async def test_the_policy_behind_a_digest_is_kept(mesh):
    async with mesh.client() as client:
        answer = await client.chat(fresh(), model=MODEL, max_tokens=4)
    kept = mesh.data / "compliance" / "policies" / f"{answer.screening.policy_digest.hex()}.json"
    assert json.loads(kept.read_bytes())["name"] == "default"


def fresh(text="Say hello"):
    """A prompt nobody asked before: no cache answers it."""
    return f"{text}, {secrets.token_hex(4)}."


async def test_one_trace_crosses_all_five_processes(mesh):
    trace_id, span_id = os.urandom(16), os.urandom(8)
    from meshkit.contract import TraceContext

    header = traceparent(TraceContext(trace_id=trace_id, span_id=span_id), sampled=False)
    async with mesh.client() as client:
        await client.chat(
            fresh("My mail is ada@example.org"), model=MODEL, max_tokens=4, traceparent=header
        )

    def all_there():
        """Each process tells of its own spans in its own time: parents may come after."""
        return (
            roots(mesh, trace_id) >= ROOTS and appends(mesh, trace_id) >= 2 and not orphans(spans())
        )

    def spans():
        return {span.span_id: (who, span) for who, span in mesh.collector.of(trace_id)}

    await until(all_there)
    assert roots(mesh, trace_id) <= ROOTS | {
        ("inference", "/sealgate.v1.InferenceService/ListModels")  # a second's memo may serve
    }
    assert appends(mesh, trace_id) == 2, "an INTENT and an OUTCOME"
    assert "ada@" not in str(list(spans().values()))


async def test_metrics_and_log_lines_of_all_five_processes_reach_the_collector(mesh):
    """No word of a prompt among them, nor anybody's name."""
    async with mesh.client() as client:
        await client.chat(fresh("Write to ada@example.org"), model=MODEL, max_tokens=4)
    told = mesh.collector

    def senders(name):
        return {who for who, each in told.metrics if each == name}

    def serving():
        return {who for who, line in told.lines if line.body.string_value == "service.serving"}

    await until(lambda: serving() == set(SERVICES))
    # Audit's only call is a stream that lives on.
    await until(lambda: senders("rpc.server.call.duration") >= set(SERVICES) - {"audit"})
    await until(lambda: found_types(told) >= {"EMAIL"})
    await until(lambda: usage(told) == {"input", "output"})
    await until(lambda: ("audit", "sealgate.audit_commit_duration") in told.metrics)
    await until(lambda: ("inference", "gen_ai.server.time_to_first_token") in told.metrics)
    for name in ("sealgate.certificate_remaining", "process_resident_memory_bytes"):
        await until(lambda name=name: senders(name) >= set(SERVICES))
    assert "ada@" not in told.text
    assert "example.org" not in told.text


def found_types(told):
    return labels_of(told, "compliance", "sealgate.findings", "type")


def usage(told):
    return labels_of(told, "gateway", "gen_ai.client.token.usage", "gen_ai.token.type")


def labels_of(told, who, name, key):
    metric = told.metrics.get((who, name))
    if metric is None:
        return set()
    points = getattr(metric, metric.WhichOneof("data")).data_points
    return {a.value.string_value for point in points for a in point.attributes if a.key == key}


ROOTS = {
    ("gateway", "/sealgate.v1.GatewayService/Chat"),
    ("compliance", "/sealgate.v1.ComplianceService/Screen"),
    ("compliance", "/sealgate.v1.ComplianceService/Release"),
    ("cache", "/sealgate.v1.CacheService/Get"),
    ("cache", "/sealgate.v1.CacheService/Put"),
    ("inference", "/sealgate.v1.InferenceService/Generate"),
    ("audit", "audit.append"),
}
APPEND = ("audit", "audit.append")


def roots(mesh, trace_id):
    """The first span of each RPC."""
    server = 2  # opentelemetry.proto.trace.v1.Span.SPAN_KIND_SERVER
    return {(who, span.name) for who, span in mesh.collector.of(trace_id) if span.kind == server}


def appends(mesh, trace_id):
    """How many events of the call the audit service has told of."""
    return sum((who, span.name) == APPEND for who, span in mesh.collector.of(trace_id))


def orphans(spans):
    """The spans that do not lead up to the gateway's."""
    top = ("gateway", "/sealgate.v1.GatewayService/Chat")
    return [(who, span.name) for who, span in spans.values() if ancestry(spans, span)[-1] != top]


def ancestry(spans, span):
    """Names from a span up to one whose parent is nobody's of ours."""
    chain = []
    while True:
        who, here = spans[span.span_id]
        chain.append((who, here.name))
        if here.parent_span_id not in spans:
            return chain
        span = spans[here.parent_span_id][1]


async def until(holds, seconds=60.0):
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.05)


DOWN = {
    "compliance": "COMPLIANCE_DOWN",
    "inference": "INFERENCE_DOWN",
}


@pytest.mark.parametrize("service", DOWN)
async def test_a_neighbour_killed_mid_call_is_told_by_its_name_and_the_next_call_works(
    mesh, service
):
    starts = mesh.started(service)
    async with mesh.client() as client:
        stream = client.stream(
            fresh("Tell me a long story"), model=MODEL, max_tokens=200, timeout_s=60
        )
        await anext(stream)
        mesh.kill(service)
        with pytest.raises(UnavailableError) as caught:
            async for _ in stream:
                pass
        assert caught.value.reason.name == DOWN[service]

        await mesh.until_serving(service, starts + 1)
        result = await client.chat(fresh(), model=MODEL, max_tokens=3)

    assert result.receipt is not None


async def test_a_killed_cache_is_a_miss(mesh):
    starts = mesh.started("cache")
    prompt = fresh()
    async with mesh.client() as client:
        first = await client.chat(prompt, model=MODEL, max_tokens=3)
        assert (await client.chat(prompt, model=MODEL, max_tokens=3)).cache_tier == "l1"
        mesh.kill("cache")
        down = await client.chat(prompt, model=MODEL, max_tokens=3)
        await mesh.until_serving("cache", starts + 1)
        async with asyncio.timeout(60):  # the channel tries again twice a second
            while (
                after := await client.chat(prompt, model=MODEL, max_tokens=3)
            ).cache_tier == "down":
                await asyncio.sleep(0.1)

    assert down.cache_tier == "down"
    assert first.text == down.text == after.text
    assert after.cache_tier == "miss"


async def test_a_killed_audit_is_waited_for_and_takes_each_event_once(mesh):
    """The OUTCOME of the call under way goes to the log that was started again."""
    starts = mesh.started("audit")
    async with mesh.client() as client:
        stream = client.stream(fresh("Tell me a story"), model=MODEL, max_tokens=150, timeout_s=60)
        await anext(stream)
        mesh.kill("audit")
        with suppress(UnavailableError):  # if it was away for longer than its budget
            async for _ in stream:
                pass
        await mesh.until_serving("audit", starts + 1)
        result = await client.chat(fresh(), model=MODEL, max_tokens=3)

    async with AsyncAuditReader.from_folder(
        mesh.facts["audit"], mesh.facts["auditor_tls"], vkey=mesh.vkey
    ) as reader:
        records = await reader.records(call_id=result.receipt.call_id)
    assert [record.phase.value for record in records] == ["intent", "outcome"]


async def test_a_paused_audit_is_down_and_nothing_is_released(mesh):
    paused = mesh.pid("audit")
    async with mesh.client() as client:
        os.kill(paused, signal.SIGSTOP)
        try:
            with pytest.raises(UnavailableError) as caught:
                await client.chat(fresh(), model=MODEL, max_tokens=3)
        finally:
            os.kill(paused, signal.SIGCONT)
        result = await client.chat(fresh(), model=MODEL, max_tokens=3)

    assert caught.value.reason.name == "AUDIT_DOWN"
    assert caught.value.receipt is None
    assert result.receipt is not None


async def test_a_paused_cache_is_a_miss_after_a_bounded_wait(mesh):
    paused = mesh.pid("cache")
    async with mesh.client() as client:
        os.kill(paused, signal.SIGSTOP)
        try:
            began = time.monotonic()
            result = await client.chat(fresh(), model=MODEL, max_tokens=3)
            took = time.monotonic() - began
        finally:
            os.kill(paused, signal.SIGCONT)

    assert result.cache_tier == "down"
    assert took < 10


async def test_a_paused_compliance_is_down_long_before_the_callers_deadline(mesh):
    paused = mesh.pid("compliance")
    async with mesh.client() as client:
        os.kill(paused, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(UnavailableError) as caught:
                await anext(client.stream(fresh(), model=MODEL, max_tokens=3, timeout_s=100))
            took = time.monotonic() - began
        finally:
            os.kill(paused, signal.SIGCONT)
        async with asyncio.timeout(30):
            while not await works(client):
                await asyncio.sleep(0.2)

    assert caught.value.reason.name == "COMPLIANCE_DOWN"
    assert took < 40


async def works(client):
    try:
        result = await client.chat(fresh(), model=MODEL, max_tokens=3)
    except UnavailableError:
        return False
    return result.receipt is not None


async def test_no_secret_is_in_an_environment_or_left_on_the_disk(mesh):
    for service in SERVICES:
        folder = mesh.data / "services" / service
        assert not (folder / "wrapped_secret_id").exists(), "spent and removed"
        environ = Path(f"/proc/{mesh.pid(service)}/environ").read_text().split("\0")
        ours = [each for each in environ if each.startswith(f"{service.upper()}_")]
        assert ours
        assert [each for each in ours if re.search(r"hvs\.|s\.[A-Za-z0-9]{24}", each)] == []


async def test_every_port_is_on_loopback(mesh):
    listening = subprocess.run(
        ["ss", "-Hltn"], capture_output=True, text=True, check=False
    ).stdout.split("\n")
    for service in SERVICES:
        port = mesh.facts[f"{service}_port"]
        lines = [line for line in listening if re.search(rf":{port}\s", line)]
        assert lines
        assert [line for line in lines if "127.0.0.1" not in line] == []


@pytest.mark.slow
async def test_certificates_are_renewed_under_load_without_a_failed_call(mesh):
    """60 s certificates, so each process gets a new one within any 40 s: at 2/3 of its life."""
    old = {service: await serial(mesh, service) for service in SERVICES}
    done, end = 0, time.monotonic() + CERTIFICATE_S

    async def keep_asking(client):
        nonlocal done
        prompt = fresh()
        while time.monotonic() < end and (old or done <= 200):
            await client.chat(prompt, model=MODEL, max_tokens=3)
            done += 1
            await asyncio.sleep(0.02)

    async def see_them_change():
        while time.monotonic() < end and old:
            for service in list(old):
                if await serial(mesh, service) != old[service]:
                    del old[service]
            await asyncio.sleep(0.5)

    async with mesh.client() as client:
        await asyncio.gather(see_them_change(), *(keep_asking(client) for _ in range(4)))

    assert done > 200
    assert old == {}
    assert {service: "tls.renewal_failed" in mesh.log(service) for service in SERVICES} == (
        dict.fromkeys(SERVICES, False)
    )


async def serial(mesh, service):
    import ssl

    from cryptography import x509

    address = ("127.0.0.1", mesh.facts[f"{service}_port"])
    pem = await asyncio.to_thread(ssl.get_server_certificate, address)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number
