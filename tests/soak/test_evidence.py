"""docs/evidence.md names tests, long forms and mutations that there are, and all of them."""

import ast
import re
from pathlib import Path

from tests.mutations.table import TABLE
from tests.soak.__main__ import FOLDER, LONG

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "evidence.md").read_text()


def test_every_test_that_is_named_is_there():
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)", TEXT))
    assert len(named) > 30
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text())
        found = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in found, f"{file}::{name}"


def test_twenty_faults_have_a_row_with_a_test_and_a_figure():
    rows = [line.split(" | ") for line in TEXT.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row[0].strip("| ")) for row in rows] == list(range(1, 21))
    for row in rows:
        assert "tests" in row[2], row[0]
        assert len(row[3]) > 10, row[0]


def test_every_long_form_is_named_and_can_be_run():
    for each in LONG:
        assert f"`{each.name}`" in TEXT, each.name
        module = each.command[1]
        if module == "pytest":
            file, _, name = each.command[2], each.command[3], each.command[4]
            assert f"def test_{name.removeprefix('test_')}" in (ROOT / file).read_text()
            continue
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    assert sum(FOLDER in each.command for each in LONG) >= 4


def test_every_mutation_is_in_the_page():
    table = TEXT.partition("## One line broken at a time")[2].partition("\n## ")[0]
    for mutation in TABLE:
        assert f"| {mutation.name} | `{mutation.test}` |" in table
