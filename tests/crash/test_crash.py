"""kill -9 at every boundary and at random moments: nothing is lost, nothing is done twice."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.conftest import write_config
from tests.crash.world import WHOLE, World

VARIANTS = {
    "moved": {},
    "moved, with receipts": {"receipts": True},
    "moved to another device": {"device": True},
    "kept": {"processed": "keep"},
    "deleted": {"processed": "delete"},
}


@pytest.fixture
def world(tmp_path, weights, request):
    def build(name="moved", bug="", seed=1):
        filing = dict(VARIANTS[name])
        roots = None
        if filing.pop("device", False):
            roots = other_device(request)
            filing |= {"processed_dir": str(roots / "processed"), "quarantine_dir": str(roots / "quarantine")}
        config = write_config(
            tmp_path, weights, filing=filing | {"min_free_mb": 0}, model={"batch_size": 8, "heatmaps": "none"},
            inbox={"settle_seconds": 0.1, "give_up_seconds": 0.3, "rescan_seconds": 1.0},
        )  # fmt: skip
        built = World(tmp_path, config, seed, filing.get("processed", "move"), bug)
        if roots:
            built.roots = lambda: [roots / "processed", roots / "quarantine"]
        return built

    return build


def other_device(request):
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared))
    request.addfinalizer(lambda: shutil.rmtree(folder))
    return folder


def judged(world, tally):
    world.finish()
    found = world.verdict()
    tally.append(found)
    assert (found.lost, found.repeated, found.wrong) == ([], [], [])
    return found


@pytest.mark.parametrize("name", ["moved", "moved to another device"])
def test_a_few_kills(world, crash_tally, name):
    built = world(name)
    for _ in range(4):
        built.fill(10)
        built.killed_at_a_crossing(60)
    judged(built, crash_tally)


@pytest.mark.crash
@pytest.mark.parametrize("name", VARIANTS)
def test_kills_at_every_boundary(world, crash_tally, name):
    built = world(name, seed=len(name))
    for _ in range(42):
        built.fill(8)
        built.killed_at_a_crossing(70)
    found = judged(built, crash_tally)
    assert found.kills == 42
    wanted = {"before record", "after record"}
    assert wanted <= set(found.places), found.places


@pytest.mark.crash
def test_kills_at_random_moments(world, crash_tally):
    built = world()
    for _ in range(20):
        built.fill(8)
        built.killed_after(built.random.uniform(0.8, 4.0))
    judged(built, crash_tally)


@pytest.mark.crash
def test_kills_of_the_whole_program(world, crash_tally):
    built = world()
    for _ in range(6):
        built.fill(30)
        built.killed_after(built.random.uniform(4.0, 12.0), WHOLE)
    judged(built, crash_tally)


class TestPlantedBugs:
    """The same checks see what they are there to see."""

    def run(self, built):
        for _ in range(8):
            built.fill(8)
            built.killed_at_a_crossing(30)
        built.finish()
        return built.verdict()

    @pytest.mark.crash
    def test_moving_before_the_commit_loses_files(self, world):
        assert self.run(world(bug="moves-first", seed=5)).lost

    @pytest.mark.crash
    def test_forgetting_what_was_committed_repeats_files(self, world):
        assert self.run(world(bug="forgets", seed=6)).repeated
