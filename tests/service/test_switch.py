"""The kill switch works by its mere presence, and doubt counts as pressed."""

import os
from pathlib import Path

import pytest

from service.switch import pressed


def test_only_an_absent_file_in_a_readable_folder_means_no(tmp_path: Path) -> None:
    """If this breaks, `touch` does not stop the daemon, or nothing ever starts it."""
    path = tmp_path / "stop"
    free = (pressed(path), pressed(None))
    path.touch()
    touched = pressed(path)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")

    assert (None, None) == free
    assert "is there" in (touched or "")
    assert "is there" in (pressed(path) or "")


def test_a_folder_that_is_gone_or_closed_counts_as_pressed(tmp_path: Path) -> None:
    """If this breaks, an unmounted disk silently releases the emergency stop."""
    (tmp_path / "file").touch()

    assert "is missing" in (pressed(tmp_path / "gone" / "stop") or "")
    assert "cannot be looked for" in (pressed(tmp_path / "file" / "stop") or "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can look into every folder")
def test_a_folder_without_permission_counts_as_pressed(tmp_path: Path) -> None:
    """If this breaks, a changed mode releases the emergency stop."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    try:
        assert "cannot be looked for" in (pressed(closed / "stop") or "")
    finally:
        closed.chmod(0o700)
