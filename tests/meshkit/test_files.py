"""Files and folders: what a look finds."""

import pytest

from meshkit.files import names_like


def test_a_look_finds_what_a_glob_finds(tmp_path) -> None:
    for name in ("a.json", ".b.json", "C.JSON", "d.json.new", "7.json", ".json"):
        (tmp_path / name).touch()
    for pattern in ("*.json", "[0-9a-f]*.json", "*.cedar"):
        found = {path.name for path in tmp_path.glob(pattern)}
        assert set(names_like(tmp_path, pattern)) == found


@pytest.mark.parametrize("place", ["missing", "file", "file/below"])
def test_where_no_folder_is_a_look_finds_nothing(tmp_path, place) -> None:
    (tmp_path / "file").touch()
    assert names_like(tmp_path / place, "*") == []


def test_a_look_that_fails_does_not_find_nothing(tmp_path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        names_like(tmp_path / "loop", "*")
