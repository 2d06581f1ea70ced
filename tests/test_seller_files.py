"""Which files the seller's tool `deliver` may read: a model that was talked into it does not hand out the profile's keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tradeskill.errors import InputError
from tradeskill_skills.seller.tools import _read


def test_the_profile_s_own_files_are_never_delivered_and_downloads_are(tmp_path: Path) -> None:
    """S44: own files."""
    home = tmp_path / "home"
    (home / "downloads").mkdir(parents=True)
    for name in ("identity.json", "journal.db", "downloads/result"):
        (home / name).write_text("x")
    (tmp_path / "work.txt").write_text("work")
    (tmp_path / "innocent").symlink_to(home / "identity.json")
    assert _read(str(tmp_path / "work.txt"), home) == b"work"
    assert _read(str(home / "downloads" / "result"), home) == b"x"
    for name in (home / "identity.json", home / "downloads" / ".." / "journal.db", tmp_path / "innocent", home):
        with pytest.raises(InputError, match="never delivered"):
            _read(str(name), home)
