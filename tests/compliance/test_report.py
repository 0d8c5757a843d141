"""The page of figures: whole HTML, nothing from elsewhere, every number one of the JSON."""

import json
import re
from html.parser import HTMLParser

import pytest

from compliance.charts import Bar, bars, curve
from compliance.comparison import Baseline, document
from compliance.evaluate import Evaluation
from compliance.findings import Finding
from compliance.report import page

VOID = {"meta", "br", "hr", "img", "input", "link"}
NAME = '<b>&"names"'


class Page(HTMLParser):
    """Checks nesting, collects what stands in cells, attributes and tags."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.rows, self.faults = [], [], [], [], []
        self.cell = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = ""

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)
        if tag in ("td", "th"):
            self.rows[-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data


def found(kind, start, end):
    return Finding(kind, kind, start, end, 0.9, "r")


@pytest.fixture(scope="module")
def told():
    ours, theirs = Evaluation(), Evaluation()
    records = [
        ({"text": "abcd efgh", "lang": "en"}, NAME),
        ({"text": "abcd", "lang": "en", "tags": ["hard_negative"]}, "negatives"),
        ({"text": "abcd", "lang": "zh", "tags": ["adversarial", "zero_width"]}, "hidden"),
    ]
    for record, group in records:
        spans = [{"start": 0, "end": 4, "type": "PERSON"}]
        full = record | {"id": 1, "spans": [] if group == "negatives" else spans}
        ours.add(full, [found("PERSON", 0, 3)], group=group)
        theirs.add(full, [found("PERSON", 0, 2), found("URL", 5, 9)], group=group)
    about = {"policy": "default", "policy_digest": "ab" * 32, "names": True}
    other = Evaluation()
    baselines = [
        Baseline("Presidio 2", "model <3>", 0.4, theirs),
        Baseline("Presidio 2", "m", 0.0, other),
    ]
    return document(ours, baselines, about)


@pytest.fixture(scope="module")
def bench():
    sizes = {"2k": 300.0, "20k": 3_100.0, "200k": 31_000.0, "1m": 160_000.0}
    return {f"screen_patterns_{size}_us": {"value": value} for size, value in sizes.items()}


def test_it_is_well_formed_and_says_what_language_it_is_in(told, bench):
    html = page(told, bench)
    read = Page(html)

    assert html.startswith('<!doctype html>\n<html lang="en">')
    assert read.open == read.faults == []
    assert {"title", "main", "h1", "table", "svg", "figcaption"} <= set(read.tags)
    assert read.tags.count("h1") == 1


def test_nothing_comes_from_elsewhere_and_nothing_runs(told, bench):
    html = page(told, bench)
    read = Page(html)

    assert not {"script", "link", "img", "iframe", "object", "form"} & set(read.tags)
    assert not [a for a in read.attributes if a[1] in ("src", "href", "srcset") or a[1][:2] == "on"]
    assert re.findall(r"https?://[^\"' ]+", html.replace("http://www.w3.org/2000/svg", "")) == []
    assert "url(" not in html
    assert "@import" not in html
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in read.attributes


def test_the_numbers_in_the_tables_are_those_of_the_json(told):
    rows = {tuple(row[:2]): row for row in Page(page(told)).rows}
    first = told["baselines"][0]["summary"]
    for by in ("group", "type", "language"):
        for name, ours in told["sealgate"]["by"][by].items():
            row = rows[name, str(ours["gold"])]
            theirs = first["by"][by][name]
            figures = ("precision", "recall", "f1", "f2", "leak")
            want = [f"{side[figure]:.3f}" for side in (ours, theirs) for figure in figures]
            assert row[2:12] == want


def test_where_we_are_below_is_said_in_words():
    ours, theirs = Evaluation(), Evaluation()
    record = {"id": 1, "text": "abcd", "spans": [{"start": 0, "end": 4, "type": "PERSON"}]}
    ours.add(record, [], group="g")
    theirs.add(record, [found("PERSON", 0, 4)], group="g")
    about = {"policy": "p", "policy_digest": "", "names": True}
    html = page(document(ours, [Baseline("B", "m", 0.4, theirs)], about))

    assert "<td>below and leaks more</td>" in html
    assert "below it somewhere" in html


def test_every_picture_has_a_text_that_tells_its_numbers(told, bench):
    read = Page(page(told, bench))
    labels = [value for tag, name, value in read.attributes if (tag, name) == ("svg", "aria-label")]

    assert len(labels) == 5
    assert read.attributes.count(("svg", "role", "img")) == 5
    for name, row in told["sealgate"]["by"]["type"].items():
        if row["gold"]:
            assert any(f"{name} {row['f2']:.3f}" in label for label in labels)
    assert any("1,000,000 characters 160,000 microseconds" in label for label in labels)


def test_names_from_outside_are_escaped(told):
    html = page(told)

    assert NAME not in html
    assert "&lt;b&gt;&amp;&quot;names&quot;" in html
    assert "model &lt;3&gt;" in html


def test_sets_that_are_not_there_have_no_section():
    evaluation = Evaluation()
    evaluation.add({"id": 1, "text": "ab", "spans": []}, [])
    html = page(document(evaluation, [], {"policy": "p", "policy_digest": "", "names": False}))

    assert "hold nothing to find" not in html
    assert "disguise" not in html
    assert "baseline" not in html.partition("<main>")[2]
    assert "patterns only" in html


def test_a_bar_is_as_long_as_its_share():
    svg = bars([Bar("x", 0.5, 1.0), Bar("y" * 40, 0.0, None)], "t")
    widths = [float(w) for w in re.findall(r'<rect class="\w+"[^>]* width="([\d.]+)"', svg)]

    assert widths[1] == 2 * widths[0] > 0
    assert widths[2] == 0.0
    assert "y" * 25 + "…" in svg


def test_a_linear_curve_is_a_straight_line():
    svg = curve([(1_000, 10.0), (10_000, 100.0), (100_000, 1_000.0)], "t")
    (points,) = re.findall(r'points="([^"]+)"', svg)
    xs, ys = zip(*(map(float, p.split(",")) for p in points.split()), strict=True)

    assert (ys[0] - ys[1]) / (xs[1] - xs[0]) == pytest.approx((ys[1] - ys[2]) / (xs[2] - xs[1]))
    assert "1 ms" in svg


def test_the_document_survives_json(told):
    assert page(json.loads(json.dumps(told))) == page(told)
