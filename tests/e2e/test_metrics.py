"""What an operator's Prometheus reads from a running house, in both topologies."""

import asyncio
import json
import secrets
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshkit.metric_list import LABELS
from meshkit.metric_names import METRICS

MODEL = "smollm2-135m-instruct"
SERVICES = ("gateway", "compliance", "cache", "inference", "audit")
STANDARD = {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"}
OWN = {
    "gateway": {
        "gen_ai_client_token_usage",
        "sealgate_step_seconds",
        "rpc_server_call_duration_seconds",
    },
    "compliance": {"sealgate_findings"},
    "cache": {"sealgate_cache_lookups"},
    "inference": {
        "gen_ai_server_request_duration_seconds",
        "gen_ai_server_time_to_first_token_seconds",
    },
    "audit": {
        "sealgate_audit_events",
        "sealgate_audit_commit_duration_seconds",
        "sealgate_audit_backlog_events",
        "sealgate_audit_unpublished_age_seconds",
        "sealgate_audit_open_intents",
    },
}
EVERYWHERE = {
    "sealgate_info",
    "sealgate_openbao_up",
    "sealgate_openbao_token_remaining_seconds",
    "sealgate_event_loop_lag_seconds",
    "sealgate_event_loop_silent_seconds",
    "sealgate_calls_in_flight",
    "sealgate_certificate_remaining_seconds",
}


COUNTED = {
    "rpc_server_call_duration_seconds_count",
    "sealgate_step_seconds_count",
    "sealgate_audit_events_total",
    "sealgate_cache_lookups_total",
    "gen_ai_client_token_usage_count",
    "gen_ai_server_time_to_first_token_seconds_count",
    "gen_ai_server_request_duration_seconds_count",
}
"""What a call adds to, and nothing else does."""
PATIENCE_S = 60.0


def logs(house):
    if house.topology == "appliance.main":
        return {"appliance": house.data / "appliance.log"}
    return {name: house.data / "services" / name / "log.jsonl" for name in SERVICES}


def port_in(log: Path):
    """Where a process says that it answers Prometheus: the last time, if it started again."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line["port"] for line in lines if line["event"] == "metrics.serving"][-1]


def scraped(house):
    """The text of each process' endpoint."""
    found = {}
    for name, log in logs(house).items():
        with urllib.request.urlopen(f"http://127.0.0.1:{port_in(log)}/metrics", timeout=10) as page:
            found[name] = page.read().decode()
    return found


@pytest.fixture
async def pages(house):
    word = f"canary{secrets.token_hex(4)}"
    async with house.client() as client:
        for _ in range(2):
            await client.chat(f"Tell {word}@example.org of {word}", model=MODEL, max_tokens=4)
    return word, scraped(house)


async def test_each_process_answers_with_what_its_services_count(house, pages):
    _, texts = pages
    for name, text in texts.items():
        families = {family.name for family in text_string_to_metric_families(text)}
        services = SERVICES if name == "appliance" else (name,)
        for wanted in (STANDARD, EVERYWHERE, *(OWN[service] for service in services)):
            assert wanted <= families, name
        known = {metric.name for metric in METRICS}
        assert {f for f in families if not f.startswith("process_")} <= known


async def test_nothing_a_person_wrote_is_in_metrics_and_no_label_is_off_the_list(pages):
    word, texts = pages
    for text in texts.values():
        assert word not in text
        assert "example.org" not in text
        assert "demo" not in text.replace('role="tenant.demo', ""), "a tenant is no label"
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                assert set(sample.labels) <= {*LABELS, "le"}


async def test_what_is_counted_is_what_was_done(house, pages):
    before = await settled(house)
    async with house.client() as client:
        await client.chat(f"Say {secrets.token_hex(4)}", model=MODEL, max_tokens=4)
    after = await settled(house)

    def grew(who, name, **labels):
        key = (name, tuple(sorted(labels.items())))
        who = who if who in after else "appliance"
        return after[who][key] - before[who].get(key, 0)

    chat = {"rpc_method": "sealgate.v1.GatewayService/Chat", "error_type": ""}
    assert grew("gateway", "rpc_server_call_duration_seconds_count", **chat) == 1
    assert grew("gateway", "sealgate_step_seconds_count", step="screen") == 1
    assert grew("audit", "sealgate_audit_events_total") == 2
    tokens = {"gen_ai_request_model": MODEL, "gen_ai_token_type": "output"}
    assert grew("gateway", "gen_ai_client_token_usage_count", **tokens) == 1
    model = {"gen_ai_request_model": MODEL}
    assert grew("inference", "gen_ai_server_time_to_first_token_seconds_count", **model) == 1
    done = {**model, "error_type": ""}
    assert grew("inference", "gen_ai_server_request_duration_seconds_count", **done) == 1
    assert grew("cache", "sealgate_cache_lookups_total", tier="l1", result="miss") == 1


async def settled(house):
    """Each process' samples, once what was done is counted: by some after its answer has left."""
    found, before = {name: samples(text) for name, text in scraped(house).items()}, {}
    async with asyncio.timeout(PATIENCE_S):
        while counts(found) != before:
            before = counts(found)
            await asyncio.sleep(0.5)
            found = {name: samples(text) for name, text in scraped(house).items()}
    return found


def counts(found):
    return {
        (who, key): value
        for who, samples_ in found.items()
        for key, value in samples_.items()
        if key[0] in COUNTED
    }


def samples(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
