from pathlib import Path

import pytest

from fracture_watch.intake.mounts import network_type

MOUNTS = r"""22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw
40 22 0:50 / /mnt/pacs rw,relatime shared:9 - nfs4 server:/export rw,vers=4.2
41 40 259:3 / /mnt/pacs/cache rw,relatime - xfs /dev/sdb1 rw
42 22 0:51 / /mnt/x\040ray\011share rw,relatime master:3 shared:7 - cifs //server/share rw
43 22 0:52 / /mnt/twice rw - ext4 /dev/sdc1 rw
44 22 0:53 / /mnt/twice rw - fuse.sshfs user@host:/ rw
45 22 0:54 / /mnt/once rw - nfs server:/old rw
46 22 0:55 / /mnt/once rw - ext4 /dev/sdd1 rw
"""


@pytest.fixture
def mountinfo(tmp_path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS)
    return path


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/inbox", None),
        ("/mnt/pacs", "nfs4"),
        ("/mnt/pacs/inbox/deep", "nfs4"),
        ("/mnt/pacs/cache/inbox", None),
        ("/mnt/pacs2", None),
        ("/mnt/x ray\tshare/inbox", "cifs"),
        ("/mnt/twice/inbox", "fuse.sshfs"),
        ("/mnt/once/inbox", None),
    ],
)
def test_the_innermost_and_latest_mount_decides(mountinfo, path, kind):
    assert network_type(Path(path), mountinfo) == kind


def test_a_symlink_lies_where_it_leads(mountinfo, tmp_path):
    (tmp_path / "inbox").symlink_to("/mnt/pacs/inbox")
    assert network_type(tmp_path / "inbox", mountinfo) == "nfs4"


def test_a_relative_path_lies_below_the_working_folder(tmp_path, monkeypatch):
    resolved = tmp_path.resolve()
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"1 1 0:1 / {resolved}/share rw - smb3 //server/share rw\n")
    (tmp_path / "share").mkdir()
    monkeypatch.chdir(tmp_path)
    assert network_type(Path("share/inbox"), mountinfo) == "smb3"


def test_where_nothing_is_known_of_mounts_everything_counts_as_local(tmp_path):
    assert network_type(Path("/mnt/pacs"), tmp_path / "gone") is None


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="there is no /proc/self/mountinfo here")
def test_the_mounts_of_this_machine_can_be_read():
    assert network_type(Path("/proc/self")) is None
