"""Files that are whole or not there at all, whoever else writes them."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fracture_watch.disk import digest, write_whole
from tests.imaging.test_read import as_nobody

# Writes one of two contents again and again; whoever reads meanwhile sees one of them whole, and never a mixture.
_WRITER = """
import sys
from pathlib import Path
from fracture_watch.disk import write_whole
for _ in range(int(sys.argv[3])):
    write_whole(Path(sys.argv[1]), sys.argv[2].encode() * 200_000)
"""


def test_several_processes_write_one_file_at_once_and_it_is_whole_at_every_moment(tmp_path):
    path, sizes = tmp_path / "object.dcm", {"a": 200_000, "bb": 400_000}
    write_whole(path, b"a" * 200_000)
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, path, text, "60"], stderr=subprocess.PIPE) for text in sizes
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes()
        seen.add((content[:1], len(content), len(set(content))))
    assert [(writer.wait(), writer.stderr.read()) for writer in writers] == [(0, b"")] * 2
    assert seen <= {(b"a", 200_000, 1), (b"b", 400_000, 1)}
    assert [entry.name for entry in tmp_path.iterdir()] == ["object.dcm"]


def test_what_a_crash_left_goes_with_the_next_attempt(tmp_path):
    (tmp_path / ".a.part").write_bytes(b"half of something longer")
    write_whole(tmp_path / "a", b"whole")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"a": b"whole"}


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "a", b"")


def test_a_folder_that_may_be_written_and_not_read_takes_a_file(tmp_path):
    box = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are not for everybody
    try:
        box.chmod(0o333)
        assert as_nobody(lambda: str(write_whole(box / "a", b"a"))) == "None"
        assert (box / "a").read_bytes() == b"a"
    finally:
        shutil.rmtree(box)


def test_the_digest_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
