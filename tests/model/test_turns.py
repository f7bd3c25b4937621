"""Real threads take turns; each waits until it stands in its queue before the next one comes."""

import threading
import time

import pytest

from fracture_watch.model.turns import PATIENCE, Turns


class Queue:
    """People who come one after the other while somebody holds the turn."""

    def __init__(self, at_once=1):
        self.turns = Turns(at_once)
        self.served = []
        self.people = []

    def comes(self, name, *, urgent):
        def wait():
            with self.turns.turn(urgent=urgent):
                self.served.append(name)

        before = self.waiting()
        self.people.append(threading.Thread(target=wait))
        self.people[-1].start()
        deadline = time.monotonic() + 10
        while self.waiting() == before:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def waiting(self):
        return len(self.turns._urgent) + len(self.turns._patient)

    def all_served(self):
        for person in self.people:
            person.join(10)
        return self.served


def test_whoever_is_urgent_goes_first_and_each_queue_keeps_its_order():
    queue = Queue()
    with queue.turns.turn(urgent=False):
        for name in ("backlog 1", "asked 1", "backlog 2", "asked 2"):
            queue.comes(name, urgent=name.startswith("asked"))
    assert queue.all_served() == ["asked 1", "asked 2", "backlog 1", "backlog 2"]


def test_where_two_may_have_a_turn_at_once_the_third_waits_for_one_of_them():
    queue = Queue(at_once=2)
    with queue.turns.turn(urgent=False):
        with queue.turns.turn(urgent=True):
            queue.comes("third", urgent=True)
            assert queue.served == []
        assert queue.all_served() == ["third"]


def test_the_backlog_gets_a_turn_however_many_are_urgent():
    queue = Queue()
    with queue.turns.turn(urgent=False):
        queue.comes("backlog", urgent=False)
        for number in range(PATIENCE + 3):
            queue.comes(number, urgent=True)
    assert queue.all_served().index("backlog") == PATIENCE


def test_a_turn_that_ends_in_an_error_is_given_back():
    turns = Turns()
    with pytest.raises(RuntimeError), turns.turn(urgent=False):
        raise RuntimeError
    with turns.turn(urgent=True):
        pass
