"""The screening figures: their texts, the process that takes them, and having no Presidio."""

import pytest

from bench import screening
from bench.catalogue import ENTRIES
from bench.plan import Plan


@pytest.fixture(scope="module")
def ours():
    with screening.our_side() as side:
        yield side


def test_texts_are_as_long_as_said_and_never_the_same():
    texts = [screening.english(2_000, number) for number in range(4)]
    texts += [screening.english(20_000, 4)]

    assert [len(text) for text in texts] == [2_000] * 4 + [20_000]
    assert len({sentence for text in texts for sentence in text.split("\n")}) == 140


def test_every_figure_is_in_the_catalogue():
    assert set(screening.NAMES) <= set(ENTRIES)


def test_the_process_tells_how_it_came_up(ours):
    assert 0.1 < ours.born["start_s"] < 600
    assert 50 < ours.born["memory_mb"] < 2_000


def test_names_cost_more_than_patterns_alone(ours):
    texts = [screening.english(2_000, 9)]
    assert ours.cpu_s(texts, names=True)[0] > ours.cpu_s(texts, names=False, repeats=3)[0] > 0


def test_what_was_asked_once_costs_less(ours):
    # A word that no rule knows in each sentence, so that the first time the model runs for each:
    # tens of milliseconds. Load only ever adds, so the least of the later times says enough.
    strangers = " ".join(f"Then ask Qorvath{chr(97 + n)} about it." for n in range(20))
    told = ours.do("again", texts=[strangers], repeats=5)
    assert min(told["cpu_s"]) < told["first_cpu_s"][0] / 2


def test_callers_memory_and_streams_are_measured(ours):
    callers = ours.do("callers", callers=3, calls=2, load=0.5)
    memory = ours.do("memory", scans=1_000, seconds=30)
    stream = ours.do("stream", tokens_per_s=2_000, answers=1)

    assert callers["p99_s"] > 0 < callers["alone_p99_s"]
    assert memory["scans"] == 1_000
    assert memory["resident_mb"] > memory["grown_mb"]
    assert len(stream["first_s"]) == 1
    assert len(stream["gaps_s"]) >= 2


def test_without_presidio_its_figures_are_left_out_and_it_is_said(
    ours, tmp_path, monkeypatch, capsys
):
    (tmp_path / "set_up.py").write_text("raise SystemExit(1)")
    monkeypatch.setattr(screening, "SET_UP", tmp_path / "set_up.py")
    monkeypatch.setattr(screening, "PRESIDIO", tmp_path / "none")
    plan = Plan(wanted=frozenset(screening.VERSUS), quick=True)

    assert screening._against_presidio(plan, ours) == []
    assert "not measured: screen_2k_vs_presidio" in capsys.readouterr().out


def test_a_process_that_ends_is_an_error(monkeypatch):
    monkeypatch.setattr(screening.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended"), screening.our_side():
        pass
