"""Allow-lists hold the source: every name counted, every key logged, stands on one.

A new counter, gauge, histogram or step: a row in meshkit/metric_list.py. A new log key: in
`LOG_KEYS` of meshkit/telemetry_names.py, if it is a name and never text of a person.
"""

import ast
import re
from functools import cache
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference.engines.triton import scrape
from meshkit import counters, metric_names
from meshkit.metric_list import LABELS, ROWS
from meshkit.metric_names import METRICS, VALUE_CHARS_MAX, Kind, found, may_label
from meshkit.telemetry_names import LOG_KEYS, is_event

ROOT = Path(__file__).parent.parent.parent
PACKAGES = (
    *("meshkit", "gateway", "compliance", "cache", "inference", "audit", "appliance"),
    "sealgate/cli",
)
KINDS = {
    "counted": Kind.COUNTER,
    "measured": Kind.GAUGE,
    "observed": Kind.HISTOGRAM,
    "step": Kind.SUMMARY,
}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


@cache
def calls():
    """Every call in the packages: where, and the node."""
    return [
        (path.relative_to(ROOT), node)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def text_of(node):
    """A literal; of an f-string the text, with `x` in its gaps; None if it is neither."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else "x" for v in node.values]
        return "".join(parts)
    return None


def counted_names():
    """What is counted where, with which kind; of a plain variable the places only."""
    named, loose = [], []
    for path, node in calls():
        called = node.func.id if isinstance(node.func, ast.Name) else ""
        if called not in KINDS or not node.args:
            continue
        if (text := text_of(node.args[0])) is None:
            loose.append(str(path))
        else:
            name = f"step:{text}" if called == "step" else text
            named.append((f"{path}:{node.lineno}", name, KINDS[called]))
    return named, loose


def test_every_name_that_is_counted_is_on_the_list():
    named, _ = counted_names()
    assert len(named) > 50
    assert [each for each in named if found(each[1], each[2]) is None] == []


def test_names_that_are_no_literals_are_known_by_hand():
    """A table or a helper: its names are tried here, or would be by nobody."""
    _, loose = counted_names()
    assert set(loose) <= {
        "audit/log/opening.py",
        "compliance/service.py",
        "gateway/restoring.py",
        "inference/engines/triton/scrape.py",
        "meshkit/counters.py",
        "meshkit/logs.py",
        "meshkit/otlp.py",
    }
    for name, kind in (
        ("audit.waiting", Kind.GAUGE),
        ("audit.backlog", Kind.GAUGE),
        ("audit.checkpoint_age_s", Kind.GAUGE),
        ("audit.unpublished_age_s", Kind.GAUGE),
        ("audit.open_intents", Kind.GAUGE),
        ("compliance.findings.prompt.mask.EMAIL", Kind.COUNTER),
        ("tokens.allowed", Kind.COUNTER),
        ("tokens.denied", Kind.COUNTER),
        ("metrics.overflow", Kind.COUNTER),
        ("logs.keys_dropped", Kind.COUNTER),
        ("logs.refused", Kind.COUNTER),
        ("telemetry.spans_lost", Kind.COUNTER),
        ("telemetry.logs_lost", Kind.COUNTER),
        *((name, Kind.COUNTER) for name in scrape.COUNTERS.values()),
        *((name, Kind.GAUGE) for name in scrape.GAUGES.values()),
    ):
        assert found(name, kind), name


def test_every_source_on_the_list_is_counted_somewhere():
    """An entry that nothing feeds is a promise on a dashboard that stays empty."""
    named, _ = counted_names()
    fed = {hit[0].source for _, name, kind in named if (hit := found(name, kind))}
    by_hand = {
        *(f"audit.{each}" for each in ("waiting", "backlog", "open_intents")),
        *("audit.checkpoint_age_s", "audit.unpublished_age_s", "logs.{event}"),
        "compliance.findings.{direction}.{action}.{type}",
        *scrape.COUNTERS.values(),
        *scrape.GAUGES.values(),
    }
    assert {metric.source for metric in METRICS} - fed - by_hand == set()


def logged():
    """Every call of a logger: where, the node."""
    for path, node in calls():
        func = node.func
        if (
            isinstance(func, ast.Attribute)
            and func.attr in LEVELS
            and isinstance(func.value, ast.Name)
            and func.value.id in {"log", "logger"}
        ):
            yield f"{path}:{node.lineno}", node


def test_every_log_call_uses_keys_on_the_list():
    seen = list(logged())
    assert len(seen) > 40
    assert [
        (where, keyword.arg)
        for where, node in seen
        for keyword in node.keywords
        if keyword.arg not in LOG_KEYS | {"exc_info"}
    ] == [], "a key that is None is **something"


def test_every_log_call_has_one_constant_event_of_ours():
    loose = [
        where
        for where, node in logged()
        if len(node.args) != 1 or not is_event(text_of(node.args[0]) or "")
    ]
    assert [where for where in loose if not where.startswith("meshkit/tls_renewal.py")] == []
    assert len(loose) <= 1, "a loop over two constants"


def test_spans_are_named_and_keyed_by_constants():
    """`annotate` and `.set` take keys of telemetry_names, never text made on the spot."""
    loose = [
        f"{path}:{node.lineno}"
        for path, node in calls()
        if isinstance(node.func, ast.Name)
        and node.func.id == "annotate"
        and not (isinstance(node.args[0], ast.Name) and node.args[0].id.isupper())
    ]
    assert loose == []


# --- the list itself ----------------------------------------------------------------------------


def test_names_follow_the_conventions():
    for metric in METRICS:
        assert re.fullmatch(r"(sealgate|rpc_server|gen_ai)_[a-z0-9_]+", metric.name), metric.name
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_ms", "_s"))
        if metric.kind in {Kind.HISTOGRAM, Kind.SUMMARY} and metric.unit == "s":
            assert metric.name.endswith("_seconds")
        assert (metric.unit == "s") == metric.name.endswith("_seconds"), metric.name
        assert metric.means.endswith("."), metric.name
        assert set(metric.labels) <= set(LABELS), metric.name


def test_one_name_is_one_kind_with_one_set_of_labels():
    by_name = {}
    for metric in METRICS:
        told = (metric.kind, frozenset(metric.labels), metric.means, metric.unit)
        assert by_name.setdefault(metric.name, told) == told, metric.name


def test_every_label_is_used_and_bounded():
    used = {label for metric in METRICS for label in metric.labels}
    assert used == set(LABELS)
    assert not {"tenant", "user", "call_id", "trace_id", "session"} & used


def test_the_first_source_that_fits_counts():
    metric, labels = found("cache.l1.hit", Kind.COUNTER)
    assert (metric.exposed, dict(labels)) == (
        "sealgate_cache_lookups_total",
        {"tier": "l1", "result": "hit"},
    )
    metric, _ = found("cache.sealing.failed", Kind.COUNTER)
    assert metric.exposed == "sealgate_cache_sealing_failures_total"
    assert found("cache.l1.hit", Kind.GAUGE) is None
    assert found("", Kind.COUNTER) is None
    assert len(ROWS) == len(METRICS)


@settings(max_examples=50)
@given(st.text(max_size=200))
@example("ada@example.org")
@example("two words")
@example("x" * VALUE_CHARS_MAX)
@example("")
def test_no_prose_is_a_label(text):
    sound = re.fullmatch(r"[A-Za-z0-9._:/#+\-]*", text) and len(text) < VALUE_CHARS_MAX
    assert may_label("reason", text) == bool(sound)
    assert not may_label("tenant", text)
    hit = found(f"compliance.findings.prompt.mask.{text}", Kind.COUNTER)
    assert (hit is not None) == bool(sound)


def test_there_is_an_end_to_how_many_names_are_counted(monkeypatch):
    monkeypatch.setattr(counters, "_counters", {})
    monkeypatch.setattr(counters, "_histograms", {})
    for number in range(counters.NAMES_MAX + 10):
        counters.counted(f"made.up.{number}")
        counters.observed(f"made.up.{number}", 1)
    held = counters.counters()
    assert held["metrics.overflow"] == 20
    assert len(held) <= counters.NAMES_MAX + 1
    assert len(counters.histograms()) == counters.NAMES_MAX


def test_the_list_is_remembered_within_bounds():
    assert metric_names.found.cache_info().maxsize >= 2 * counters.NAMES_MAX
