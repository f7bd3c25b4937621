"""One model and worker pool for all faults, and a daemon that is asked over HTTP how it is."""

import hashlib
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from fracture_watch import assembly
from fracture_watch.config import load_settings
from fracture_watch.delivery.metrics import Metrics
from tests.conftest import png, write_config
from tests.test_daemon import drop, files, rows, until


@pytest.fixture(scope="package")
def runtime(tmp_path_factory, weights):
    settings = load_settings(write_config(tmp_path_factory.mktemp("runtime"), weights), {})
    with assembly.runtime(settings) as running:
        yield running


class House:
    """The daemon in a thread, its folders, its database, and `/readyz`."""

    def __init__(self, folder, weights, runtime, **sections):
        self.folder, self.inbox, self.processed = folder, folder / "inbox", folder / "processed"
        sections["filing"] = {"min_free_mb": 0} | sections.get("filing", {})
        settings = load_settings(write_config(folder, weights, **sections), {})
        runtime = replace(runtime, metrics=Metrics())
        self.database = assembly.open_database(settings)
        self.daemon = assembly.daemon(settings, runtime, self.database)
        self.daemon._pace = replace(self.daemon._pace, pause=0.2, linger=0.0, patience=(0.3, 0.3))
        self._client = assembly.website(settings, runtime, self.database, self.daemon).test_client()

    @contextmanager
    def working(self):
        stop = threading.Event()
        thread = threading.Thread(target=self.daemon.run, args=(stop,))
        thread.start()
        try:
            self.until_ready()
            yield self
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()
            self.database.close()

    def readyz(self):
        answer = self._client.get("/readyz")
        return answer.status_code, answer.json["reasons"]

    def until_ready(self):
        assert until(lambda: self.readyz()[0] == 200), self.readyz()

    def paused(self, *words):
        """Until it is, for a reason that holds these words; then it must go on being so, without a break."""
        assert until(lambda: self.readyz()[0] == 503), self.readyz()
        assert until(lambda: all(word in str(self.readyz()) for word in words)), self.readyz()
        seen, end = set(), time.monotonic() + 0.8
        while time.monotonic() < end:
            seen.add(self.readyz()[0])
            time.sleep(0.005)
        assert seen == {503}, "it said that it was ready while it was not"
        return self.readyz()[1][0]

    def drop(self, *numbers):
        for number in numbers:
            drop(self.folder, f"{number}.png", png(number))

    def all_done(self, *numbers):
        """Each of the pictures is in processed, under the one result it has."""
        names = sorted(f"{number}.png" for number in numbers)
        assert until(lambda: files(self.processed) == names), (files(self.processed), self.readyz())
        assert until(lambda: all(filed for (filed,) in self.rows("SELECT filed FROM file")))
        self.until_ready()
        assert [name for name in files(self.inbox) if not name.startswith(".")] == []
        for number in numbers:
            assert (self.processed / f"{number}.png").read_bytes() == png(number)
        digests = {hashlib.sha256(png(number)).hexdigest(): f"{number}.png" for number in numbers}
        expected = sorted(("classified", digest, str(self.processed / name)) for digest, name in digests.items())
        assert self.rows("SELECT status, sha256, filed_path FROM results ORDER BY 1, 2, 3") == expected

    def rows(self, sql):
        return rows(self.folder, sql)


@pytest.fixture
def house(tmp_path, weights, runtime):
    def _house(**sections):
        return House(tmp_path, weights, runtime, **sections)

    return _house
