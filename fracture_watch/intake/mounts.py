"""Which file system a path lies on, and whether it is still mounted.

Network mounts send no events and do not lock reliably.
"""

import os
import re
from pathlib import Path

from fracture_watch.errors import StorageUnavailable

NETWORK = frozenset(
    "nfs nfs4 cifs smb3 smbfs afs ceph glusterfs lustre 9p fuse.sshfs fuse.s3fs fuse.rclone fuse.glusterfs "
    "fuse.davfs davfs vboxsf virtiofs beegfs gpfs".split()
)
_MOUNTINFO = Path("/proc/self/mountinfo")


def network_type(path: Path, mountinfo: Path = _MOUNTINFO) -> str | None:
    """The type of the network file system that ``path`` lies on; ``None`` where it is local or unknown."""
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None  # not Linux
    target = path.absolute().resolve()
    best, kind = -1, ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split(" ")[4]))
        if target.is_relative_to(point) and len(point.parts) >= best:  # later mounts cover earlier ones
            best, kind = len(point.parts), right.split(" ")[0]
    return kind if kind in NETWORK else None


class Mounts:
    """Remembers which folders were mount points: without its mount, such a folder is another one of the same name.

    What is looked for below it is not lost, and what is written there is hidden once the mount is back.
    """

    def __init__(self) -> None:
        self._seen: set[Path] = set()

    def check(self, folder: Path) -> None:
        """Raise ``StorageUnavailable`` if ``folder`` was a mount point at an earlier call and is none now."""
        if os.path.ismount(folder):
            self._seen.add(folder)
        elif folder in self._seen:
            raise StorageUnavailable(
                f"nothing is mounted on {folder} any more; mount it again, or start again if it is to be a plain folder"
            )
