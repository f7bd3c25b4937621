"""A PostgreSQL server in a folder of its own, for as long as somebody measures or tests."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # where Debian keeps them
USER = "fracture_watch"


def binary(name: str) -> str | None:
    """One of the server's own programs."""
    return shutil.which(name) or next((str(at / name) for at in _BINARIES if (at / name).exists()), None)


class Cluster:
    """A running server on a free port of this machine; root, which it refuses to be, runs it as somebody else.

    Parameters
    ----------
    password : str
    settings : sequence of str
        ``NAME=VALUE`` of the server's configuration; by default it is as it is installed.
    """

    def __init__(self, password: str, settings: Sequence[str] = ()) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fracture_watch_pg"))
        self._settings = settings
        self._who: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres" if any(u.pw_name == "postgres" for u in pwd.getpwall()) else "nobody")
            self._who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"postgresql://{USER}:{password}@127.0.0.1:{self._port}"
        (self._folder / "password").write_text(password)
        plain = ["--no-locale", "--encoding=UTF8", "--no-sync", "--auth=scram-sha-256"]
        named = [f"--username={USER}", f"--pwfile={self._folder / 'password'}"]
        self._run("initdb", "-D", str(self._folder / "data"), *plain, *named)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self._port} -k {self._folder} -h 127.0.0.1 {' '.join(f'-c {s}' for s in self._settings)}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "-w", "-s", "-D", str(self._folder / "data"), "-l", log, "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop it; ``immediate`` is a crash."""
        self._run("pg_ctl", "stop", "-w", "-s", "-m", mode, "-D", str(self._folder / "data"))

    def remove(self) -> None:
        """Stop it if it runs, and leave nothing."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, name: str, *arguments: str) -> None:
        program, environment = binary(name), {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        if program is None:
            raise FileNotFoundError(f"{name} of PostgreSQL is not installed")
        # Not captured: the server would inherit the pipe, and nobody would see its end.
        subprocess.run(
            [program, *arguments],
            check=True,
            timeout=120,
            cwd=self._folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._who,
        )
