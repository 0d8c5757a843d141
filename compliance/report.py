"""The figures of an evaluation as a page: one file, no scripts, nothing from elsewhere. PURE.

`page(document, bench)` takes what `compliance.comparison.document` made and, if there are any, the
figures of `bench/results/latest.json`. Every number in it is one of theirs, to three digits.
Charts are inline SVG with a text alternative, and the tables beneath hold the same numbers, so that
nothing is told by a picture or a colour alone. Light or dark as the reader's system is.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from compliance.charts import Bar, bars, curve
from compliance.comparison import SLACK
from compliance.page_style import STYLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["page"]

_FIGURES = {"precision": "P", "recall": "R", "f1": "F1", "f2": "F2", "leak": "leaked"}
_TABLES = {"group": "Group", "type": "Type", "language": "Language"}
_CURVE = {
    2_000: "screen_patterns_2k_us",
    20_000: "screen_patterns_20k_us",
    200_000: "screen_patterns_200k_us",
    1_000_000: "screen_patterns_1m_us",
}

_RULES = """A value counts as found when findings of its type cover at least half of it; a finding
counts as right when at least half of it lies in values of its type. F2 weighs recall twice as much
as precision, since a leak costs more than a mask too many. Leaked is the share of the characters
of all values, blanks aside, that nothing covers, whatever its type. Types that a text is not
annotated with are not judged on it."""


def page(document: Mapping[str, Any], bench: Mapping[str, Any] | None = None) -> str:
    """Return the page as HTML."""
    title = "What the filter finds, and what it lets through"
    body = [*_head(document, title), *_legend(document)]
    body += [*_charts(document), *_latency(bench or {})]
    body += _sets(document)
    for by, name in _TABLES.items():
        body += _table(document, by, name)
    body += _notes(document)
    content = "default-src 'none'; style-src 'unsafe-inline'"
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{content}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>Sealgate: {escape(title.lower())}</title>",
        f"<style>{STYLE}</style>",
    ]
    main = "\n".join(body)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n'
        + "\n".join(head)
        + f"\n</head>\n<body>\n<main>\n{main}\n</main>\n</body>\n</html>\n"
    )


def _head(document: Mapping[str, Any], title: str) -> Iterator[str]:
    ours, baselines = document["sealgate"], document["baselines"]
    names = "patterns and name models" if document["names"] else "patterns only"
    beside = (
        f", beside {escape(baselines[0]['name'])} with {escape(baselines[0]['model'])} "
        f"on the same texts in the same run (findings from {baselines[0]['threshold']:g} on)"
        if baselines
        else ""
    )
    yield f"<header><h1>{escape(title)}</h1>"
    yield (
        f"<p>{ours['texts']:,} labelled texts, {ours['overall']['gold']:,} values. Policy "
        f"<code>{escape(document['policy'])}</code>, {names}{beside}.</p></header>"
    )
    yield f'<dl class="tiles">{"".join(_tiles(document))}</dl>'


def _tiles(document: Mapping[str, Any]) -> Iterator[str]:
    ours = document["sealgate"]["overall"]
    first = document["baselines"][0]["summary"]["overall"] if document["baselines"] else None
    for name, label in (("f2", "F2"), ("precision", "precision"), ("recall", "recall")):
        yield _tile(label, _n(ours[name]), f"baseline {_n(first[name])}" if first else "")
    yield _tile(
        "characters leaked", _n(ours["leak"]), f"baseline {_n(first['leak'])}" if first else ""
    )
    comparison = document["comparison"]
    if comparison and comparison["leaked_ratio"] is not None:
        yield _tile("leaked, over the baseline's", _n(comparison["leaked_ratio"]), "")


def _tile(label: str, value: str, beside: str) -> str:
    small = f"<small>{escape(beside)}</small>" if beside else ""
    return f"<div><dt>{escape(label)}</dt><dd>{value}{small}</dd></div>"


def _legend(document: Mapping[str, Any]) -> Iterator[str]:
    if document["baselines"]:
        yield (
            '<p class="legend"><span class="key ours"></span> Sealgate '
            f'<span class="key theirs"></span> {escape(document["baselines"][0]["name"])}</p>'
        )


# --- charts ---------------------------------------------------------------------------------


def _charts(document: Mapping[str, Any]) -> Iterator[str]:
    for by, figure, title in (
        ("group", "f2", "F2 by group: longer is better"),
        ("type", "f2", "F2 by type: longer is better"),
        ("group", "leak", "Characters leaked by group: shorter is better"),
        ("type", "leak", "Characters leaked by type: shorter is better"),
    ):
        yield _figure(title, bars(list(_bars(document, by, figure)), title))


def _bars(document: Mapping[str, Any], by: str, figure: str) -> Iterator[Bar]:
    for name, ours, theirs in _pairs(document, by):
        if ours["gold"]:
            yield Bar(name, ours[figure], theirs[figure] if theirs else None)


def _latency(bench: Mapping[str, Any]) -> Iterator[str]:
    points = [(size, bench[name]["value"]) for size, name in _CURVE.items() if name in bench]
    if len(points) > 1:
        title = "Time of a scan by length, patterns only: both axes logarithmic"
        yield _figure(title, curve(points, title))
        rows = [(f"{size:,}", f"{value:,.0f}") for size, value in points]
        yield _grid("Time of a scan", ("characters", "microseconds"), rows)


def _figure(title: str, picture: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{picture}</figure>"


# --- tables ---------------------------------------------------------------------------------


def _pairs(
    document: Mapping[str, Any], by: str
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """Rows of ours and of the baseline, the most frequent first."""
    ours = document["sealgate"]["by"][by]
    baselines = document["baselines"]
    theirs = baselines[0]["summary"]["by"][by] if baselines else {}
    for name in sorted(ours, key=lambda key: (-ours[key]["gold"], key)):
        yield name, ours[name], theirs.get(name)


def _table(document: Mapping[str, Any], by: str, title: str) -> Iterator[str]:
    baselines = document["baselines"]
    headings = [title, "values", *_FIGURES.values()]
    if baselines:
        headings += [f"{figure}, baseline" for figure in _FIGURES.values()] + ["beside it"]
    rows = []
    for name, ours, theirs in _pairs(document, by):
        row = [name, f"{ours['gold']:,}", *(_n(ours[figure]) for figure in _FIGURES)]
        if baselines:
            beside = theirs or dict.fromkeys(_FIGURES, 0.0)
            row += [*(_n(beside[figure]) for figure in _FIGURES), _mark(ours, beside)]
        rows.append(row)
    yield f"<h2>By {escape(title.lower())}</h2>"
    yield _grid(f"Figures by {title.lower()}", headings, rows)


def _mark(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    if not ours["gold"]:
        return ""
    below = ours["f2"] < theirs["f2"] - SLACK
    leaks = ours["leak"] > theirs["leak"] + SLACK
    return " and ".join(word for word, so in (("below", below), ("leaks more", leaks)) if so)


def _sets(document: Mapping[str, Any]) -> Iterator[str]:
    ours = document["sealgate"]
    first = document["baselines"][0]["summary"] if document["baselines"] else None
    if ours["hard_negatives"]:
        yield "<h2>Texts that hold nothing to find</h2>"
        rows = [
            (name, f"{row['texts']:,}", _n(row["rate"]))
            + ((_n(first["hard_negatives"][name]["rate"]),) if first else ())
            for name, row in ours["hard_negatives"].items()
        ]
        headings = ("Language", "texts", "with an alarm", *(("baseline",) if first else ()))
        yield _grid("Alarms on hard negatives", headings, rows)
    if ours["adversarial"]:
        yield "<h2>Values in disguise</h2>"
        rows = [
            (name, f"{row['spans']:,}", _n(row["coverage"]))
            + ((_n(first["adversarial"][name]["coverage"]),) if first else ())
            for name, row in ours["adversarial"].items()
        ]
        headings = ("Technique", "values", "covered", *(("baseline",) if first else ()))
        yield _grid("Coverage by technique", headings, rows)


def _grid(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _notes(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2>How it is judged</h2><p>{_RULES}</p>"
    if document["comparison"]:
        word = "nowhere below it" if document["comparison"]["beaten"] else "below it somewhere"
        yield f"<p>Against {escape(document['comparison']['against'])}: {word}.</p>"
    for other in document["baselines"][1:]:
        row = other["summary"]["overall"]
        cells = ", ".join(f"{label} {_n(row[name])}" for name, label in _FIGURES.items())
        yield f"<p>{escape(other['name'])}, threshold {other['threshold']:g}: {cells}.</p>"
    digest = escape(document["policy_digest"])
    yield f"<footer><p>Policy digest <code>{digest}</code></p></footer>"


def _n(value: float) -> str:
    return f"{value:.3f}"
