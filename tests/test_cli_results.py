"""Delivered bytes on the buyer's disk: under plain names, replaced whole, never outside the folder."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from tradeskill.errors import InputError, StorageError
from tradeskill.faces.results import TAR, save_result


def archive(*members: tarfile.TarInfo, data: bytes = b"data") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("media_type", "suffix"),
    [("text/markdown", ".md"), ("text/plain; charset=utf-8", ".txt"), ("application/json", ".json"), ("image/x-unknown", ".bin"), ("../../x", ".bin")],
)
def test_the_suffix_follows_from_the_type_and_from_nothing_else(tmp_path: Path, media_type: str, suffix: str) -> None:
    assert save_result(b"x", media_type, "job-1", tmp_path / "out") == [tmp_path / "out" / f"job-1{suffix}"]


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "..", ".", "", ".hidden", "a/b", "a\0b", "a\nb", "x" * 300, "naïve"])
def test_a_name_from_a_stranger_never_leaves_the_folder(tmp_path: Path, name: str) -> None:
    (path,) = save_result(b"x", "text/plain", name, tmp_path / "out")
    assert path.parent == tmp_path / "out"
    assert path.name.removesuffix(".txt").isalnum()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_fetching_again_replaces_what_was_written_and_leaves_no_other_file(tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        (path,) = save_result(data, "text/plain", "job", tmp_path)
        assert path.read_bytes() == data
    for data in (b"one", b"two"):
        names = save_result(archive(member("a.txt"), member("b/c.txt"), data=data), TAR, "job", tmp_path)
        assert names == [tmp_path / "job" / "a.txt", tmp_path / "job" / "b" / "c.txt"]
        assert {path.read_bytes() for path in names} == {data}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "job.txt"]


def test_a_link_in_the_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("keep")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "job.txt").symlink_to(secret)
    save_result(b"x", "text/plain", "job", tmp_path / "out")
    assert secret.read_text() == "keep"


@pytest.mark.parametrize(
    "hostile",
    [
        archive(member("../escape")),
        archive(member("/tmp/escape-of-a-test")),
        archive(member("link", tarfile.SYMTYPE, "/etc/passwd")),
        archive(member("link", tarfile.SYMTYPE, ".."), member("link/x")),
        archive(member("hard", tarfile.LNKTYPE, "/etc/passwd")),
        archive(member("device", tarfile.CHRTYPE)),
        archive(member("pipe", tarfile.FIFOTYPE)),
        archive(member("link", tarfile.SYMTYPE, "a.txt"), member("a.txt")),
        gzip.compress(archive(member("a.txt")), mtime=0),  # without the time of day, so that the test has one name
        b"this is no archive",
        b"",
    ],
)
def test_an_archive_that_is_not_plain_files_is_refused_whole(tmp_path: Path, hostile: bytes) -> None:
    with pytest.raises(InputError, match="safe archive"):
        save_result(hostile, TAR, "job", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert not Path("/tmp/escape-of-a-test").exists()


def test_a_folder_that_cannot_be_made_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"file/out.*--output"):
        save_result(b"x", "text/plain", "job", tmp_path / "file" / "out")


def test_what_is_written_follows_the_owner_s_own_rights_for_new_files(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        (path,) = save_result(b"x", "text/plain", "job", tmp_path)
        assert path.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)
