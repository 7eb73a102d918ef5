"""What may leave now, and what has to wait until the records before it are durable?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blockflow.outbox import Outbox
from blockflow.scheduler.events import Record, RecordGone, StartProcess
from blockflow.switchboard import Action, Close, Send
from blockflow.wire.messages import Alive, Finished


def say(connection: int) -> Send:
    return Send(connection=connection, message=Finished())


ALIVE = Send(connection=1, message=Alive(1))
START = StartProcess(task=0, process=0, delay=0.0)


def test_without_records_everything_leaves_at_once() -> None:
    outbox = Outbox()
    assert outbox.put([say(1), ALIVE, START], []) == [say(1), ALIVE, START]
    assert outbox.idle


def test_messages_wait_for_the_records_that_came_with_them() -> None:
    outbox = Outbox()
    assert outbox.put([say(1), START, ALIVE, Close(connection=1, reason="")], [RecordGone(worker=1)]) == [START, ALIVE]
    assert not outbox.idle
    assert outbox.take_batch() == [RecordGone(worker=1)]
    assert outbox.written() == [say(1), Close(connection=1, reason="")]
    assert outbox.idle


def test_what_comes_while_a_batch_is_written_waits_for_the_next_if_it_has_records() -> None:
    outbox = Outbox()
    outbox.put([say(1)], [RecordGone(worker=1)])
    outbox.take_batch()
    outbox.put([say(2)], [])
    outbox.put([say(3)], [RecordGone(worker=3)])
    outbox.put([say(4)], [])
    assert outbox.take_batch() == [], "one batch at a time"
    assert outbox.written() == [say(1), say(2)]
    assert outbox.take_batch() == [RecordGone(worker=3)]
    assert outbox.written() == [say(3), say(4)]
    assert outbox.take_batch() == []


@given(st.lists(st.sampled_from(["say", "record and say", "take", "written"]), max_size=60))
def test_nothing_overtakes_its_records_and_nothing_is_lost(moves: list[str]) -> None:
    outbox = Outbox()
    said: list[Action] = []
    left: list[Action] = []
    needs: list[int] = []
    records = durable = in_flight = 0

    def check() -> None:
        assert left == said[: len(left)], "in order"
        assert all(need <= durable for need in needs[: len(left)]), "before its records were durable"

    for move in [*moves, "written", "take", "written"]:
        match move:
            case "say" | "record and say":
                made: list[Record] = []
                if move == "record and say":
                    records += 1
                    made.append(RecordGone(worker=records))
                said.append(say(len(said)))
                needs.append(records)
                left += outbox.put([said[-1]], made)
            case "take":
                in_flight += len(outbox.take_batch())
            case "written" if in_flight > durable:
                durable = in_flight
                left += outbox.written()
        check()
    assert left == said
    assert outbox.idle
