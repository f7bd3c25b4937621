"""Worlds to kill daemons in, and the suite's own count at the end of its output."""

from collections import Counter

import pytest

from tests.conftest import write_config
from tests.crash.verdict import judge
from tests.crash.world import Server, World

_TALLY = []
VARIANTS = {
    "moved": {},
    "moved with receipts": {"receipts": True},
    "moved to another device": {"device": True, "receipts": True},
    "kept": {"processed": "keep"},
    "deleted": {"processed": "delete"},
    "moved, hashed": {"receipts": True, "identifiers": "hash"},
    "moved to another device, dropped": {"device": True, "identifiers": "drop"},
    "kept, dropped": {"processed": "keep", "identifiers": "drop"},
}


@pytest.fixture(scope="session")
def server():
    found = Server()
    yield found
    found.close()


@pytest.fixture
def world(tmp_path, weights, server, request):
    built = []

    def build(name="moved", bug="", seed=1):
        filing = dict(VARIANTS[name])
        home = request.getfixturevalue("elsewhere") if filing.pop("device", False) else tmp_path
        roots = home / "processed", home / "quarantine"
        filing |= {"processed_dir": str(roots[0]), "quarantine_dir": str(roots[1])}
        privacy = {"identifiers": filing.pop("identifiers", "keep"), "salt": "sixteen characters, at least"}
        config = write_config(
            tmp_path, weights, privacy=privacy, filing=filing | {"min_free_mb": 0}, model={"batch_size": 4},
            inbox={"settle_seconds": 0.1, "give_up_seconds": 0.5, "rescan_seconds": 1.0},
        )  # fmt: skip
        built.append(World(server, tmp_path, config, seed, filing, roots, bug))
        return built[-1]

    yield build
    for each in built:
        each.clear_orphans()


@pytest.fixture
def judged():
    """The end of a test: everything is where it should be, and the tally says so."""

    def judge_and_count(world, **how):
        world.live(**how)
        found = judge(world)
        _TALLY.append(found)
        assert (found.lost, found.repeated, found.wrong) == ([], [], [])
        return found

    return judge_and_count


def pytest_terminal_summary(terminalreporter):
    if not _TALLY:
        return
    kills, files = sum(v.kills for v in _TALLY), sum(v.files for v in _TALLY)
    lost, repeated = sum(len(v.lost) for v in _TALLY), sum(len(v.repeated) for v in _TALLY)
    hits = sum((v.hits for v in _TALLY), start=Counter())
    for crossing, count in sorted(hits.items()):
        terminalreporter.write_line(f"{count:4} {crossing}")
    terminalreporter.write_line(f"{sum(hits.values())} kills at {len(hits)} boundaries, the others at random moments")
    terminalreporter.write_line(f"crash suite: {kills} kills, {files} files, lost {lost}, repeated {repeated}")
