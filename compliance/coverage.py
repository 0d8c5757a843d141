"""The table of all recognizers: `python -m compliance.coverage > docs/recognizers.md`."""

from __future__ import annotations

import sys

from compliance.recognizers import ALL

__all__ = ["page"]

_HEAD = """# Recognizers

Made by `python -m compliance.coverage`; a test compares. Scores are (alone, with a context word
near by); the default policy masks from 0.5 on, places from 0.55. A score below that is for policies
with a threshold of their own. What is `checked` has a checksum or a rule of form.

| type | subtype | recognizer | alone | with context | checked | source |
|---|---|---|---|---|---|---|
"""


def page() -> str:
    """Return the page in Markdown: one row for each recognizer, by type, subtype and name."""
    rows = [
        f"| {r.type} | {r.subtype} | {r.name} | {r.score[0]:g} | {r.score[1]:g} "
        f"| {'yes' if r.check else ''} | {r.source.replace('|', '/')} |"
        for r in sorted(ALL, key=lambda r: (r.type, r.subtype, r.name))
    ]
    return f"{_HEAD}{chr(10).join(rows)}\n\n{len(rows)} recognizers.\n"


if __name__ == "__main__":
    sys.stdout.write(page())
