import io
import json
import logging

import pytest
import structlog

from meshkit.counters import counters
from meshkit.logs import FreeTextError, _State, configure_logging, handed_to
from meshkit.telemetry import root_span

CANARY = "canary ada@example.org"


@pytest.fixture
def out():
    return io.StringIO()


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setattr(_State, "strict", _State.strict)
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    yield
    logging.getLogger().handlers = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def lines(out):
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_json_with_the_trace_of_its_call(out):
    configure_logging(stream=out, strict=True)
    with root_span("Chat") as call:
        structlog.get_logger().info("audit.serving", port=50_055, hits=True, names=["a", "b"])
    (line,) = lines(out)
    assert line.pop("at").endswith("Z")
    assert line == {
        "event": "audit.serving",
        "level": "info",
        "port": 50_055,
        "hits": True,
        "names": ["a", "b"],
        "trace_id": call.trace.trace_id.hex(),
        "span_id": call.trace.span_id.hex(),
    }


@pytest.mark.parametrize("given", [CANARY, [CANARY], {"x": CANARY}, object(), CANARY.encode()])
def test_free_text_is_refused_in_tests_and_replaced_in_production(out, given):
    configure_logging(stream=out, strict=True)
    with pytest.raises(FreeTextError) as caught:
        structlog.get_logger().info("call.done", model=given)
    assert "canary" not in str(caught.value)
    configure_logging(stream=out)
    before = counters().get("logs.refused", 0)
    structlog.get_logger().info("call.done", model=given)
    structlog.get_logger().info(CANARY)
    assert counters()["logs.refused"] == before + 2
    assert "canary" not in out.getvalue()
    assert [line["event"] for line in lines(out)] == ["call.done", "refused"]


def test_a_key_that_is_not_on_the_list_is_refused_in_tests_and_dropped_in_production(out):
    configure_logging(stream=out, strict=True)
    with pytest.raises(FreeTextError) as caught:
        structlog.get_logger().info("call.done", prompt=7)
    assert str(caught.value) == "prompt"
    configure_logging(stream=out)
    before = counters().get("logs.keys_dropped", 0)
    structlog.get_logger().info("call.done", prompt=7, port=1)
    assert counters()["logs.keys_dropped"] == before + 1
    (line,) = lines(out)
    assert "prompt" not in line
    assert line["port"] == 1


@pytest.mark.parametrize("event", ["Tell", "ada", "call", "call.Done", "call.done ada", "a" * 300])
def test_an_event_is_one_of_ours_or_none(out, event):
    configure_logging(stream=out)
    structlog.get_logger().info(event)
    assert [line["event"] for line in lines(out)] == ["refused"]


def test_what_is_handed_on_is_clean_and_nothing_after_the_block(out):
    configure_logging(stream=out)
    told = []
    with handed_to(told.append):
        structlog.get_logger().info("call.done", prompt=CANARY, model=CANARY, port=1)
        logging.getLogger("grpc").error("Unexpected: %s", CANARY)
        logging.getLogger("opentelemetry.exporter").error("cannot send %s", CANARY)
    structlog.get_logger().info("call.done")
    assert [line["event"] for line in told] == ["call.done", "log.foreign"]
    assert "canary" not in repr(told)


def test_an_exception_leaves_kind_and_frames(out):
    configure_logging(stream=out, strict=True)
    try:
        raise ValueError(CANARY)  # noqa: TRY301
    except ValueError:
        structlog.get_logger().exception("call.bug")
    (line,) = lines(out)
    assert line["kind"] == "ValueError"
    assert "test_logs.py" in line["frames"][0]
    assert "canary" not in out.getvalue()


def test_other_libraries_lines_say_who_and_how_grave_only(out):
    configure_logging(stream=out)
    try:
        raise ValueError(CANARY)  # noqa: TRY301
    except ValueError:
        logging.getLogger("grpc").exception("Unexpected: %s", CANARY)
    logging.getLogger("grpc").info("not grave enough")
    (line,) = lines(out)
    assert (line["event"], line["logger"], line["level"]) == ("log.foreign", "grpc", "error")
    assert line["kind"] == "ValueError"
    assert "canary" not in out.getvalue()
