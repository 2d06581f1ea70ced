"""outputs.py: what is taken from a folder that a job has had for itself, and how such a folder is removed."""

import io
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tradeskill.errors import NotFoundError, RefusedError
from tradeskill.model import Result
from tradeskill_plugins import outputs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "output"
    path.mkdir()
    return path


@pytest.fixture
def opened(folder: Path) -> Iterator[int]:
    handle = outputs.open_folder(folder)
    yield handle
    os.close(handle)


def collect(folder: Path, most_bytes: int = 1000, most_files: int = 10) -> list[tuple[str, bytes]]:
    handle = outputs.open_folder(folder)
    try:
        return outputs.collect(handle, most_bytes, most_files)
    finally:
        os.close(handle)


def test_files_come_sorted_by_path_from_all_folders(folder: Path) -> None:
    (folder / "b" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "b" / "deep" / "2").write_text("two")
    (folder / "a 日本.txt").write_text("one")
    (folder / "c").write_text("")
    assert collect(folder) == [("a 日本.txt", b"one"), ("b/deep/2", b"two"), ("c", b"")]


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


SPECIAL: dict[str, Callable[[Path], object]] = {
    "symbolic link": lambda path: path.symlink_to("/etc/passwd"),
    "dangling symbolic link": lambda path: path.symlink_to("nowhere"),
    "symbolic link to a folder": lambda path: path.symlink_to("/etc"),
    "hard link": lambda path: (path.parent.parent / "other").write_text("x") and path.hardlink_to(path.parent.parent / "other"),
    "FIFO": os.mkfifo,
    "socket": bind,
    "sparse terabyte": lambda path: (path.touch(), os.truncate(path, 2**40)),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_anything_but_a_plain_file_is_refused(folder: Path, kind: str) -> None:
    (folder / "a").write_text("fine")
    SPECIAL[kind](folder / "z")
    with pytest.raises(RefusedError, match="'z'"):
        collect(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_device_is_refused_and_never_opened(folder: Path) -> None:
    os.mknod(folder / "z", 0o600 | 0o020000, os.makedev(5, 0))
    with pytest.raises(RefusedError, match="device"):
        collect(folder)


@pytest.mark.parametrize("name", [".hidden", "...", "a\nb", "a\x1b[2J", "a\u202eb", "a\u200bb", "a\\b", "a\x7f", "\udcff", "x" * 201, "ä" * 101])
def test_a_name_that_could_fool_somebody_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("1")
    with pytest.raises(RefusedError) as refusal:
        collect(folder)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("name", ["a", "-rf", "a b", "ümlaut.md", "x" * 200, "页.md", "a..b", "a:b"])
def test_an_ordinary_name_is_kept(folder: Path, name: str) -> None:
    (folder / name).write_text("1")
    assert collect(folder) == [(name, b"1")]


def test_the_caps_count_bytes_of_all_files_and_entries_of_all_folders(folder: Path) -> None:
    (folder / "a").write_bytes(bytes(600))
    (folder / "b").mkdir()
    (folder / "b" / "c").write_bytes(bytes(400))
    assert len(collect(folder, 1000, 3)) == 2
    with pytest.raises(RefusedError, match="999 bytes"):
        collect(folder, 999, 3)
    with pytest.raises(RefusedError, match="more than 2 entries"):
        collect(folder, 1000, 2)


def test_sixteen_folders_deep_is_too_deep(folder: Path) -> None:
    (folder / "/".join("d" * 15)).mkdir(parents=True)
    assert collect(folder, most_files=100) == []
    (folder / "/".join("d" * 16)).mkdir(parents=True)
    with pytest.raises(RefusedError, match="nested"):
        collect(folder, most_files=100)


def test_a_file_swapped_after_it_was_looked_at_is_refused(folder: Path, opened: int) -> None:
    (folder / "a").write_text("first")
    (found,) = outputs.survey(opened, 100, 10)
    (folder / "b").write_text("other")
    (folder / "b").rename(folder / "a")
    with pytest.raises(RefusedError, match="changed"):
        outputs._read(opened, found)
    (folder / "a").unlink()
    (folder / "a").symlink_to("/etc/passwd")
    with pytest.raises(RefusedError, match="cannot be read"):
        outputs._read(opened, found)


def test_a_file_that_grew_or_shrank_after_it_was_looked_at_is_refused(folder: Path, opened: int) -> None:
    (folder / "a").write_text("first")
    (found,) = outputs.survey(opened, 100, 10)
    for text in ("first and more", "f"):
        (folder / "a").write_text(text)
        with pytest.raises(RefusedError, match="changed"):
            outputs._read(opened, found)


def test_a_folder_swapped_for_a_symlink_is_refused_at_every_component(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(RefusedError, match="symbolic link"):
        outputs.open_folder(tmp_path / "link")
    with pytest.raises(RefusedError, match="symbolic link"):
        outputs.open_folder(tmp_path, "link")
    with pytest.raises(NotFoundError):
        outputs.open_folder(tmp_path, "nothing")


def test_one_known_file_is_read_under_the_same_suspicion(folder: Path, opened: int) -> None:
    (folder / "stdout").write_text("said")
    assert outputs.read_file(opened, "stdout", 4) == b"said"
    with pytest.raises(RefusedError, match="larger than 3 bytes"):
        outputs.read_file(opened, "stdout", 3)
    with pytest.raises(NotFoundError):
        outputs.read_file(opened, "stderr", 3)


def test_one_file_is_the_result_itself_with_the_type_of_its_ending() -> None:
    assert outputs.pack([("a/page.MD", b"# x")]) == Result(b"# x", "text/markdown; charset=utf-8")
    assert outputs.pack([("data.unknown", b"x")]) == Result(b"x", "application/octet-stream")


def test_several_files_are_one_tar_whose_bytes_depend_on_names_and_contents_only(folder: Path) -> None:
    files = [("b/日本.txt", b"two"), ("a.txt", b"one")]
    first = outputs.pack(files)
    assert first == outputs.pack(files[::-1])
    assert first.media_type == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(first.data)) as archive:
        members = archive.getmembers()
    assert [(m.name, m.size, m.mode, m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members] == [
        ("a.txt", 3, 0o644, 0, 0, 0, "", ""),
        ("b/日本.txt", 3, 0o644, 0, 0, 0, "", ""),
    ]


@pytest.mark.parametrize(
    ("data", "media_type"),
    [(b'{"a": 1}', outputs.JSON), (b"1e999", outputs.JSON), (b"Infinity", outputs.TEXT), (b"[" * 100_000, outputs.TEXT), (b"a\0", "application/octet-stream")],
)
def test_printed_bytes_are_json_only_if_they_parse(data: bytes, media_type: str) -> None:
    assert outputs.media_type_of(data) == media_type


def test_a_tree_thousands_of_folders_deep_is_removed(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=handle)
        deeper = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = deeper
    os.close(handle)
    parent = os.open(tmp_path, os.O_RDONLY)
    outputs.remove_tree(parent, "d")
    outputs.remove_tree(parent, "d")
    os.close(parent)
    assert list(tmp_path.iterdir()) == []


def test_removing_a_symlink_removes_the_link(folder: Path, tmp_path: Path, opened: int) -> None:
    (tmp_path / "keep").mkdir()
    (folder / "link").symlink_to(tmp_path / "keep")
    outputs.remove_tree(opened, "link")
    assert (tmp_path / "keep").is_dir()
    assert list(folder.iterdir()) == []
