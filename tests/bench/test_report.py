import json

from bench import report
from bench.catalogue import Figure

MACHINE = {
    "cpu": "a cpu",
    "instructions": "AVX2",
    "cores": 2,
    "filesystem": "ext4",
    "commit": "0123",
}
HIT = Figure(name="governed_hit_rps", value=700.0, reference=3500.0, ratio=0.2, spread=0.03)
PLAIN = Figure(name="holdback_chars", value=96.0)


def test_latest_has_the_promised_shape(tmp_path):
    path = tmp_path / "results" / "latest.json"
    report.write(path, MACHINE, [HIT, PLAIN])

    told = json.loads(path.read_text())
    assert told["machine"] == MACHINE
    figure = told["figures"]["governed_hit_rps"]
    assert {key: figure[key] for key in ("value", "unit", "reference", "ratio", "command")} == {
        "value": 700.0,
        "unit": "requests/s",
        "reference": 3500.0,
        "ratio": 0.2,
        "command": "python -m bench --only governed_hit_rps",
    }


def test_a_missed_budget_is_stored_as_missed(tmp_path):
    path = tmp_path / "latest.json"
    report.write(path, MACHINE, [HIT])

    figure = json.loads(path.read_text())["figures"]["governed_hit_rps"]
    assert (figure["verdict"], figure["budget"], figure["stretch"]) == ("missed", 0.25, 0.6)


def test_figures_of_the_same_machine_stay_and_those_of_another_go(tmp_path):
    path = tmp_path / "latest.json"
    report.write(path, MACHINE, [HIT])
    report.write(path, MACHINE | {"commit": "4567"}, [PLAIN])
    assert set(json.loads(path.read_text())["figures"]) == {"governed_hit_rps", "holdback_chars"}

    for another in ({"cpu": "another"}, {"instructions": "none"}):
        report.write(path, MACHINE | another, [PLAIN])
        assert set(json.loads(path.read_text())["figures"]) == {"holdback_chars"}
        report.write(path, MACHINE, [HIT])


def test_a_broken_file_is_replaced(tmp_path):
    path = tmp_path / "latest.json"
    path.write_text("{half")
    report.write(path, MACHINE, [PLAIN])
    assert json.loads(path.read_text())["figures"]["holdback_chars"]["value"] == 96.0


def test_the_table_names_budget_and_verdict():
    heading, hit, plain, *_ = report.table([HIT, PLAIN]).splitlines()
    assert heading.split()[:4] == ["figure", "value", "unit", "reference"]
    assert "x >= 0.25" in hit
    assert hit.endswith("missed")
    assert plain.endswith("-")


def test_the_table_shows_notes_below():
    noted = Figure(name="echo_rps", value=1.0, note="server core 99 % busy")
    assert report.table([noted]).endswith("echo_rps: server core 99 % busy")
