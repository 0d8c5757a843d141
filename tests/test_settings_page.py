"""docs/settings.md says what the classes say, of every setting."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "deploy/settings_page.py"


def test_the_page_of_settings_is_that_of_the_code() -> None:
    made = subprocess.run(
        [sys.executable, COMMAND],
        cwd=ROOT,
        env=os.environ | {"PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    kept = (ROOT / "docs" / "settings.md").read_text()
    assert made.stdout.splitlines() == kept.splitlines(), f"python {COMMAND} > docs/settings.md"
