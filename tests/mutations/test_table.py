"""The list of mutations is about today's code; `python -m tests.mutations` runs it (make chaos)."""

import ast
from pathlib import Path

import pytest

from tests.mutations.table import FIVE, TABLE

ROOT = Path(__file__).parents[2]


def test_every_mutation_is_another_and_the_five_are_among_them():
    assert len({mutation.name for mutation in TABLE}) == len(TABLE) > len(FIVE) == 5


@pytest.mark.parametrize("mutation", TABLE, ids=lambda mutation: mutation.name)
def test_a_mutation_changes_a_line_that_is_there_once_and_its_test_exists(mutation):
    sound = (ROOT / mutation.file).read_text()
    assert sound.count(mutation.old) == 1, "the code was changed: bring tests/mutations up to date"
    broken = sound.replace(mutation.old, mutation.new)
    assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(sound))
    file, _, test = mutation.test.partition("::")
    names = {
        node.name
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert test.partition("[")[0] in names
