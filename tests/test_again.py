"""What failed once is run again by itself: it passes only if it passes then, and is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ONCE = """
from pathlib import Path
def test_unsteady():
    seen = Path(__file__ + ".seen")
    before = seen.exists()
    seen.touch()
    assert before
"""


def twice(folder, *texts):
    """Run pytest in a folder with these files of tests, and then what `make test` runs."""
    for number, text in enumerate(texts):
        (folder / f"test_{number}.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    few = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist"}
    env = os.environ | few | {"PYTHONPATH": str(ROOT)}
    words = [[sys.executable, "-m", "pytest", "-q"], [sys.executable, "-m", "tests.again"]]
    first = subprocess.run(words[0], cwd=folder, env=env, capture_output=True, check=False)
    return subprocess.run(
        [*words[1], str(first.returncode)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_that_passes_alone_is_named_and_stops_nobody(tmp_path) -> None:
    done = twice(tmp_path, ONCE, "def test_good(): pass")
    assert done.returncode == 0, done.stdout
    assert "UNSTEADY, passed alone:\n  test_0.py::test_unsteady\n" in done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param((ONCE, "def test_bad(): assert 0"), id="one fails again"),
        pytest.param((ONCE,) * 4, id="more than a few"),
        pytest.param(("import nothing_of_this_name",), id="a file that cannot be read"),
    ],
)
def test_all_else_fails(tmp_path, texts) -> None:
    assert twice(tmp_path, *texts).returncode != 0
