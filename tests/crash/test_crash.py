"""kill -9 at every boundary and at random moments: nothing is lost, nothing is done twice."""

import pytest

from tests.crash.conftest import VARIANTS
from tests.crash.order import unsafe
from tests.crash.planted import WRONG_ORDERS
from tests.crash.tap import START
from tests.crash.verdict import judge

OFTEN = {"moved": 4, "moved with receipts": 2, "moved to another device": 4, "kept": 2, "deleted": 3}
OFTEN |= {"moved, hashed": 2, "moved to another device, dropped": 2, "kept, dropped": 2}
DUE = {  # what a life cannot be without; everything else that a first one came by is killed at too
    "moved": {"commit in store.record", "commit in store.filed", "link in moving.moved", "unlink in moving.moved"},
    "moved with receipts": {"fsync in slips.write_slip", "replace in slips.write_slip"},
    "moved to another device": {
        "copy in moving._copied", "fsync in moving._copied", "link in moving.moved", "unlink in moving.moved",
        "unlink in moving._copied",
    },
    "kept": {"commit in store.record"},
    "deleted": {"commit in store.record", "unlink in filing._put"},
    "moved, hashed": {"commit in store.filed", "link in moving.moved", "replace in slips.write_slip"},
    "moved to another device, dropped": {"copy in moving._copied", "unlink in moving._copied"},
    "kept, dropped": {"commit in store.record"},
}  # fmt: skip


def crossings(world):
    """Every boundary that there is, from a life without a death."""
    world.fill(pictures=4, junk=2, copies=1)
    world.live()
    found = {entry["crossing"] for entry in world.journal()} - {START}
    return sorted(name for name in found if "database._migrate" not in name)  # only a first start makes a database


def killed_often(world, targets, often):
    """Each boundary so often, at its first or second crossing; one that is not come by is tried again."""
    for crossing in targets * often:
        world.fill(pictures=1, junk=1, copies=world.random.random() < 0.3)
        reached = world.killed_at(f"{crossing}#{world.random.choice((1, 1, 2))}")
        for _ in range(0 if reached else 4):
            world.fill(pictures=2, junk=2)
            if world.killed_at(crossing):
                break


def in_order(world):
    return unsafe(world.journal(), world.inbox, world.processed == "delete")


@pytest.mark.parametrize("name", ["moved", "moved to another device", "moved, hashed"])
def test_a_few_kills(world, judged, name):
    built = world(name)
    targets = crossings(built)
    killed_often(built, built.random.sample(targets, 12), 1)
    judged(built)
    assert in_order(built) == []


@pytest.mark.parametrize("crossing", ["before fsync in filing.probe", "before replace in heatmap.keep"])
def test_an_unfinished_file_of_a_dead_daemon_does_not_stay(world, judged, crossing):
    built = world()
    built.fill(pictures=1, junk=0)
    assert built.killed_at(crossing)
    judged(built)


def test_names_that_clash_while_they_are_filed_are_found_again(world, judged):
    built = world()
    for number in range(6):  # with a.txt.json there, a.txt has to go to a-1.txt, and the other way round
        built.drop_pair(number)
    assert built.killed_at("before commit in store.filed")
    judged(built)


@pytest.mark.crash
@pytest.mark.parametrize("name", VARIANTS)
def test_kills_at_every_boundary(world, judged, name):
    built = world(name, seed=len(name))
    targets = crossings(built)
    assert {f"{side} {call}" for call in DUE[name] for side in ("before", "after")} <= set(targets)
    killed_often(built, targets, OFTEN[name])
    found = judged(built)
    assert in_order(built) == []
    missed = {target: found.hits[target] for target in targets if found.hits[target] < OFTEN[name]}
    assert missed == {}


@pytest.mark.crash
@pytest.mark.parametrize("name", VARIANTS)
def test_kills_at_random_moments(world, judged, name):
    built = world(name, seed=7)
    for _ in range(12):
        built.fill(pictures=4, junk=2, copies=1)
        built.killed_after(built.random.uniform(0.05, 1.2))
    judged(built)
    assert in_order(built) == []


@pytest.mark.crash
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("seed", range(3))
def test_kills_while_the_database_is_made(world, judged, side, seed):
    built = world(seed=seed)
    built.fill(pictures=2)
    assert built.killed_at(f"{side} commit in database._migrate")
    judged(built)


@pytest.mark.crash
def test_kills_with_decoding_workers(world, judged):
    built = world(seed=3)
    targets = crossings(built)
    for crossing in built.random.sample(targets, 6):
        built.fill(pictures=3, junk=1)
        built.killed_at(crossing, seconds=20, workers=2)
    for _ in range(4):
        built.fill(pictures=3, junk=1)
        built.killed_after(built.random.uniform(1.0, 3.0), workers=2)
    judged(built, workers=2)


@pytest.mark.crash
def test_kills_of_the_whole_program(world, judged):
    built = world("moved with receipts", seed=4)
    wanted = ["commit in store.record", "link in moving.moved", "replace in slips.write_slip", "commit in store.filed"]
    for crossing in [f"{side} {call}" for call in wanted for side in ("before", "after")]:
        built.fill(pictures=3, junk=1, copies=1)
        assert built.killed_at(crossing, seconds=60, whole=True), built.said()
    for _ in range(4):
        built.fill(pictures=6, junk=1)
        built.killed_after(built.random.uniform(3.0, 8.0), whole=True)
    built.fill(pictures=1)  # or nothing may be left to do, and the last life is stopped before it has begun
    judged(built, whole=True)
    assert in_order(built) == []


def test_a_death_between_a_step_and_its_entry_is_no_wrong_order():
    link = "link in moving.moved"
    entries = [
        (START, []), ("before commit in store.record", ["/in/a"]),  # done, and killed
        (START, []), (f"before {link}", ["/in/a", "/out/a"]),  # done, and killed
        (START, []), (f"before {link}", ["/in/a", "/out/a"]), ("before unlink in moving.moved", ["/in/a"]),
    ]  # fmt: skip
    journal = [{"crossing": crossing, "paths": paths} for crossing, paths in entries]
    assert unsafe(journal, "/in") == []
    assert unsafe(journal[2:], "/in") != []  # without the commit


class TestPlantedBugs:
    """The same checks see what they are there to see."""

    def lives(self, built, *crossings):
        for crossing in crossings:
            built.fill(pictures=2, junk=1)
            built.killed_at(crossing)
        built.live()
        return judge(built)

    def test_moving_before_the_commit_loses_files(self, world):
        built = world(bug="moves-first")
        assert self.lives(built, "before commit in store.record").lost
        assert any("before its result was committed" in complaint for complaint in in_order(built))

    @pytest.mark.parametrize("name", ["moved", "kept"])
    def test_forgetting_what_was_committed_repeats_files(self, world, name):
        built = world(name, bug="forgets")
        assert self.lives(built, "after commit in store.record").repeated

    @pytest.mark.parametrize(
        "bug",
        [
            name if name == "source-removed-early" else pytest.param(name, marks=pytest.mark.crash)
            for name in WRONG_ORDERS
        ],
    )
    def test_a_copy_in_a_wrong_order_is_seen(self, world, bug):
        built = world("moved to another device", bug=bug)
        built.fill(pictures=1)
        built.live()
        found = judge(built)
        assert (found.lost, found.repeated, found.wrong) == ([], [], [])  # as long as the power stays on
        assert any("was removed after copy" in complaint for complaint in in_order(built))
