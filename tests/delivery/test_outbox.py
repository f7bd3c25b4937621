"""Senders with the real outbox and real receivers; only the time is given."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fracture_watch.delivery.metrics import Metrics
from fracture_watch.delivery.outbox import Patience, Sender
from fracture_watch.delivery.webhook import Webhook
from fracture_watch.errors import DatabaseUnavailable
from fracture_watch.outcomes import Delivery, Failed
from fracture_watch.records import Kind
from fracture_watch.results.database import Database
from fracture_watch.results.outbox import Outbox, Subscription
from fracture_watch.results.store import Store
from fracture_watch.times import as_utc
from tests.delivery.receiver import SECRET, Receiver, answering, hang
from tests.results.test_store import MODEL, classified, record

NAME = "webhook:x"
START = datetime(2026, 1, 31, 8, tzinfo=UTC)
spans = st.floats(0.001, 1e6)


@given(spans, spans, st.integers(1, 10_000), st.integers().map(str))
def test_pauses_double_up_to_the_longest_and_half_of_each_is_chance(first, longest, attempts, seed):
    patience = Patience(first, longest)
    pause = patience.pause(attempts, seed)
    whole = min(longest, first * 2 ** min(attempts - 1, 60))
    assert whole / 2 <= pause <= whole
    assert pause == patience.pause(attempts, seed)
    assert patience.pause(attempts + 1, seed) <= 2 * whole


def test_chance_spreads_what_failed_together():
    pauses = [Patience().pause(1, f"delivery {number}") for number in range(500)]
    assert len(set(pauses)) == 500
    quarters = [sum(2.5 + q * 0.625 <= p < 2.5 + (q + 1) * 0.625 for p in pauses) for q in range(4)]
    assert min(quarters) > 80


@given(st.floats(0, 1e7), st.floats(1, 1e6), st.integers(0, 1000))
def test_it_is_given_up_at_its_age_and_never_before(age, give_up, attempts):
    patience = Patience(give_up=give_up)
    delivery = Delivery("d", Kind.RESULT, NAME, attempts, as_utc(START), {})
    now = START + timedelta(seconds=age)
    again = patience.next_attempt(delivery, now)
    if (now - START).total_seconds() >= give_up:
        assert again is None
    else:
        assert again > now
        assert again - now <= timedelta(seconds=patience.longest)


@given(st.floats(60, 3e5))
def test_whatever_the_age_the_attempts_are_bounded(give_up):
    """A receiver that is down for good is asked some dozens of times for one delivery, and then no more."""
    patience, now, attempts = Patience(give_up=give_up), START, 0
    while again := patience.next_attempt(Delivery("d", Kind.RESULT, NAME, attempts, as_utc(START), {}), now):
        now, attempts = again, attempts + 1
    assert (now - START).total_seconds() >= give_up
    assert attempts <= 16 + give_up / 450


class House:
    """A database, a receiver and its sender, and a clock that goes when it is told to."""

    def __init__(self, folder, channel, **subscription):
        self.now = START
        self.database = Database(f"sqlite:///{folder / 'x.db'}")
        wanted = {"kinds": frozenset({Kind.RESULT})} | subscription
        self.store = Store(self.database, MODEL, [Subscription(NAME, **wanted)])
        self.outbox, self.metrics = Outbox(self.database), Metrics()
        self.sender = Sender(NAME, self.outbox, channel, Patience(), self.metrics, lambda: self.now)

    def record(self, *names):
        for name in names:
            record(self.store, name, classified(name * 2))
        self.now = max(self.now, datetime.now(UTC))  # rows have the real time

    def work(self, seconds=0.0):
        """Let so much time go by, resting as the sender wants to."""
        end = self.now + timedelta(seconds=seconds)
        while self.now <= end:
            rest = self.sender.deliver_next()
            self.now += timedelta(seconds=rest)
            if rest == 1.0:  # nothing is due
                due = self.next_due()
                self.now = max(self.now, due) if due else end + timedelta(seconds=1)

    def next_due(self):
        with self.database.reading() as connection:
            due = connection.exec_driver_sql("SELECT min(next_attempt_at) FROM outbox").scalar()
        return due and datetime.fromisoformat(due)

    def said(self, name):
        [line] = [line for line in self.metrics.text().decode().splitlines() if line.startswith(f"{name}{{")]
        return float(line.rsplit(" ", 1)[1])


@pytest.fixture
def receiver():
    return Receiver()


@pytest.fixture
def house(tmp_path, receiver):
    return House(tmp_path, Webhook(receiver.url, SECRET))


def files(receiver):
    return [message["file"] for message in receiver.messages]


def test_every_result_is_told_once_in_order(house, receiver):
    house.record("c", "a", "b")
    assert house.said("fracture_watch_outbox_delivered_total") == 0
    with receiver.up():
        house.work()
        house.work(3600)
    assert files(receiver) == ["/in/c", "/in/a", "/in/b"]
    assert house.said("fracture_watch_outbox_delivered_total") == 3
    assert house.outbox.standings() == []


def test_a_dead_receiver_that_comes_back_gets_everything(house, receiver):
    house.record("a", "b", "c")
    house.work(6 * 3600)
    [standing] = house.outbox.standings()
    assert (standing.waiting, standing.last_error) == (3, "cannot be reached: Connection refused")
    assert 50 < house.said("fracture_watch_outbox_failed_total") < 200
    house.record("d")
    with receiver.up():
        house.work(3600)
    assert sorted(files(receiver)) == ["/in/a", "/in/b", "/in/c", "/in/d"]
    assert house.outbox.standings() == []


def test_the_same_delivery_has_the_same_id_at_every_attempt(house, receiver):
    answers = iter([500, 302, 404, 204])
    receiver.answer = lambda _: next(answers)
    house.record("a")
    with receiver.up():
        house.work(300)
    assert len(receiver.messages) == 4
    assert len({message["delivery"] for message in receiver.messages}) == 1
    [row] = rows(house, "SELECT attempts, delivered_at, next_attempt_at, last_error FROM outbox")
    assert (row.attempts, row.next_attempt_at, row.last_error) == (4, None, None)
    assert row.delivered_at > as_utc(START)


def rows(house, sql):
    with house.database.reading() as connection:
        return connection.exec_driver_sql(sql).all()


def test_one_that_is_refused_does_not_hold_up_the_others(house, receiver):
    receiver.answer = lambda body: 500 if body["file"] == "/in/a" else 204
    house.record("a", "b", "c")
    with receiver.up():
        house.work(60)
    assert {"/in/b", "/in/c"} < set(files(receiver))
    [standing] = house.outbox.standings()
    assert (standing.waiting, standing.failing) == (1, 1)


def test_what_was_tried_for_days_is_given_up_and_said(house, receiver, caplog):
    house.record("a")
    house.work(4 * 86_400)
    [standing] = house.outbox.standings()
    assert (standing.waiting, standing.given_up) == (0, 1)
    assert "given up, cannot be reached" in caplog.text
    assert "k3y" not in caplog.text + str(rows(house, "SELECT * FROM outbox"))
    with receiver.up():
        house.work(86_400)
    assert receiver.got == []


def test_what_waited_while_nothing_ran_is_tried_once_more_before_it_is_given_up(house, receiver):
    house.record("a")
    house.now += timedelta(days=30)
    with receiver.up():
        house.work()
    assert files(receiver) == ["/in/a"]


def test_an_answer_that_was_not_noted_is_sent_again_with_the_same_id(tmp_path, receiver):
    """As after a kill -9 between the answer and the commit."""
    house = House(tmp_path, Webhook(receiver.url, SECRET))
    house.record("a")

    class Forgetful(Outbox):
        def delivered(self, delivery, at):
            raise DatabaseUnavailable("the database is away")

    dying = Sender(NAME, Forgetful(house.database), Webhook(receiver.url, SECRET), Patience(), Metrics())
    with receiver.up():
        with pytest.raises(DatabaseUnavailable):
            dying.deliver_next()
        house.work()
    one, again = receiver.messages
    assert one == again


def test_what_the_database_cannot_note_at_once_is_noted_before_anything_else_is_sent(tmp_path, receiver):
    house = House(tmp_path, Webhook(receiver.url, SECRET))
    house.record("a", "b")

    class ReadOnly(Outbox):
        refuses = 3

        def delivered(self, delivery, at):
            self.refuses -= 1
            if self.refuses >= 0:
                raise DatabaseUnavailable("the database is read-only")
            super().delivered(delivery, at)

    sender = Sender(NAME, ReadOnly(house.database), Webhook(receiver.url, SECRET), Patience(), Metrics())
    with receiver.up():
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                sender.deliver_next()
        while sender.deliver_next() == 0.0:
            pass
    assert files(receiver) == ["/in/a", "/in/b"]


def test_what_is_refused_for_good_does_not_come_before_what_is_new(tmp_path):
    taken = []

    class Half:
        """An archive that takes every second object."""

        def send(self, delivery):
            number = delivery.subject["id"]
            if number % 2:
                return "it does not take such objects"
            taken.append((number, house.now))
            return None

    house = House(tmp_path, Half())
    house.record(*(f"{number:02}" for number in range(120)))
    began = house.now
    with house.database.writing() as connection:  # one a minute
        for number in range(1, 121):
            due = as_utc(began + timedelta(minutes=number)), number
            connection.exec_driver_sql("UPDATE outbox SET next_attempt_at = ? WHERE file_id = ?", due)
    while house.now < began + timedelta(minutes=121):
        house.now += timedelta(seconds=max(0.2, house.sender.deliver_next()))
    assert [number for number, _ in taken] == list(range(2, 121, 2))
    assert max((when - began).total_seconds() - 60 * number for number, when in taken) <= 61


def test_a_defect_ends_no_thread(tmp_path, caplog):
    class Broken:
        def send(self, delivery):
            raise ZeroDivisionError

    house = House(tmp_path, Broken())
    house.record("a")
    house.work()
    assert house.outbox.standings()[0].last_error == "an internal error; the log has the details"
    assert "ZeroDivisionError" in caplog.text


def test_a_sender_lives_through_a_database_that_is_away_and_stops_when_told(tmp_path, receiver, caplog):
    house = House(tmp_path, Webhook(receiver.url, SECRET))
    house.record("a")
    stop, asked = threading.Event(), threading.Event()

    class Away:
        def turn(self, destination):
            asked.set()
            raise DatabaseUnavailable("the database is away")

    thread = threading.Thread(target=Sender(NAME, Away(), None, Patience(), Metrics()).run, args=(stop,))
    thread.start()
    assert asked.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert "nothing is delivered to webhook:x meanwhile: the database is away" in caplog.text


def test_a_receiver_that_hangs_holds_up_no_commit_and_no_other_receiver(tmp_path, receiver):
    stop = threading.Event()
    with answering(hang) as url, receiver.up():
        house = House(tmp_path, Webhook(receiver.url, SECRET))
        other = Subscription("webhook:hanging", frozenset({Kind.RESULT}))
        house.store = Store(house.database, MODEL, [Subscription(NAME, frozenset({Kind.RESULT})), other])
        hanging = Sender("webhook:hanging", house.outbox, Webhook(url, SECRET, seconds=3), Patience(), Metrics())
        thread = threading.Thread(target=hanging.run, args=(stop,))
        house.record("a")
        thread.start()
        record(house.store, "b", Failed("corrupt", "broken", "bb"))
        house.record("c")
        house.work()
        assert files(receiver) == ["/in/a", "/in/b", "/in/c"]
        stop.set()
        thread.join(10)
    [standing] = house.outbox.standings()
    assert (standing.destination, standing.waiting) == ("webhook:hanging", 3)
