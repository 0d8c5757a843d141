"""Working folders hold second names of key files: none may outlive the work, a kill included."""

import subprocess
import sys

import pytest

from appliance.staging import BACKUP, RESTORING, clear_staging, cleared_at_start, staging

KILLED = """
import os, pathlib, sys
from appliance.staging import BACKUP, staging
data = pathlib.Path(sys.argv[1])
with staging(data, BACKUP) as folder:
    (folder / "1").mkdir()
    (folder / "1" / "key").hardlink_to(data / "key.json")
    os.kill(os.getpid(), 9)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_backup_left_is_cleared_by_the_next_and_by_a_start(tmp_path) -> None:
    key = tmp_path / "key.json"
    for clears in (lambda: cleared_at_start(tmp_path), lambda: list(backups(tmp_path))):
        key.write_text("{}")
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
        assert len(names(tmp_path)) == 2
        assert key.stat().st_nlink == 2
        clears()
        assert names(tmp_path) == ["key.json"]
        assert key.stat().st_nlink == 1


def backups(data):
    with staging(data, BACKUP) as folder:
        yield from folder.iterdir()


def test_one_in_use_is_left_alone(tmp_path) -> None:
    with staging(tmp_path, BACKUP) as folder, staging(tmp_path, BACKUP) as other:
        (folder / "a").write_text("x")
        assert clear_staging(tmp_path, BACKUP) == 0
        assert (folder / "a").read_text() == "x"
        assert other != folder
    assert names(tmp_path) == []


def test_other_folders_and_links_are_not_ours(tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_text("x")
    (tmp_path / f"{RESTORING}1").mkdir()
    assert clear_staging(tmp_path, BACKUP) == 0
    (tmp_path / f"{BACKUP}link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / f"{BACKUP}file").write_text("x")
    assert clear_staging(tmp_path, BACKUP) == 0
    assert (tmp_path / "elsewhere" / "a").exists()


def test_nothing_stays_after_a_failure(tmp_path) -> None:
    def fails():
        with staging(tmp_path / "new", RESTORING) as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert names(tmp_path / "new") == []
