"""Do the simulated network and disk behave as real ones do?"""

from __future__ import annotations

import errno
from random import Random
from typing import TYPE_CHECKING

import pytest

from blockflow.testing.simulation.agenda import Agenda
from blockflow.testing.simulation.disk import Died, SimulatedDisk
from blockflow.testing.simulation.network import Pipe

if TYPE_CHECKING:
    from blockflow.ledger.disk import Disk

DATA = bytes(range(256)) * 8


def disk(seed: int = 0) -> SimulatedDisk:
    return SimulatedDisk(Random(seed), lambda: 0.0)


def run(agenda: Agenda) -> None:
    while agenda.step():
        pass


# ---------------------------------------------------------------------------------------------------------- agenda


def test_things_of_one_time_happen_in_the_order_in_which_they_were_noted() -> None:
    agenda, happened = Agenda(), list[int]()
    for number in range(5):
        agenda.at(1.0, lambda number=number: happened.append(number))  # type: ignore[misc]
    run(agenda)
    assert happened == [0, 1, 2, 3, 4]


# --------------------------------------------------------------------------------------------------------- network


@pytest.mark.parametrize("seed", range(50))
def test_bytes_arrive_in_order_however_they_are_cut_and_held_up(seed: int) -> None:
    agenda, random, come = Agenda(), Random(seed), list[bytes | None]()
    pipe = Pipe(agenda, random, 1.0, come.append)
    sent = b""
    for number in range(30):
        data = bytes([number]) * random.randint(1, 5)
        sent += data
        agenda.at(random.uniform(number, number + 1), lambda data=data: pipe.send(data))  # type: ignore[misc]
    for _ in range(3):  # several faults of one kind may overlap
        begin = random.uniform(0, 30)
        agenda.at(begin, pipe.block)
        agenda.at(begin + random.uniform(0, 20), pipe.unblock)
    agenda.at(100.0, lambda: pipe.end(lose=False))
    agenda.at(100.1, lambda: pipe.send(b"too late"))
    run(agenda)
    assert come[-1] is None
    assert b"".join(data for data in come if data is not None) == sent


@pytest.mark.parametrize("seed", range(50))
def test_what_arrives_before_a_break_is_a_beginning_of_what_was_sent(seed: int) -> None:
    agenda, random, come = Agenda(), Random(seed), list[bytes | None]()
    pipe = Pipe(agenda, random, 1.0, come.append)
    for number in range(20):
        agenda.at(0.1 * number, lambda number=number: pipe.send(bytes([number] * 3)))  # type: ignore[misc]
    agenda.at(1.5, lambda: pipe.end(lose=True))
    agenda.at(1.6, lambda: pipe.end(lose=False))
    run(agenda)
    assert come.count(None) == 1
    assert come[-1] is None
    whole = b"".join(bytes([number] * 3) for number in range(20))
    assert whole.startswith(b"".join(data for data in come if data is not None))


# ------------------------------------------------------------------------------------------------------------ disk


def test_it_is_what_the_ledger_asks_for() -> None:
    simulated: Disk = disk()
    simulated.write("folder/one", b"1")
    simulated.create("folder/two", b"2")
    with pytest.raises(FileExistsError):
        simulated.create("folder/two", b"3")
    assert simulated.names("") == ["folder"]
    assert simulated.names("folder") == ["one", "two"]
    assert simulated.names("nowhere") == []
    simulated.rename("folder/one", "folder/three")
    simulated.rename("folder", "other")
    assert simulated.read("other/three") == b"1"
    assert b"".join(simulated.pieces("other/three")) == b"1"
    simulated.touch("other/two")
    assert simulated.age("other/two") == 0.0
    simulated.remove("other/two")
    simulated.remove("other/two")
    assert simulated.names("other") == ["three"]
    simulated.remove("other")
    assert simulated.names("") == []
    with pytest.raises(FileNotFoundError):
        simulated.read("other/three")


@pytest.mark.parametrize("seed", range(20))
def test_a_power_cut_spares_what_was_synced(seed: int) -> None:
    simulated = disk(seed)
    simulated.write("journal", b"")
    simulated.sync("")
    file = simulated.open("journal")
    file.append(DATA)
    file.sync()
    file.append(DATA)
    file.close()
    simulated.lose_power()
    left = simulated.read("journal")
    assert left.startswith(DATA)
    assert len(left) <= 2 * len(DATA)
    assert all(left[at : at + 32] in (bytes(32), DATA[at % 256 : at % 256 + 32]) for at in range(0, len(left) - 31, 32))


def test_a_power_cut_may_take_a_new_file() -> None:
    found = set()
    for seed in range(20):
        simulated = disk(seed)
        simulated.write("new", DATA)
        simulated.lose_power()
        found.add(tuple(simulated.names("")))
    assert found == {(), ("new",)}


def test_a_file_that_was_cut_ends_there() -> None:
    simulated = disk()
    simulated.write("journal", b"")
    file = simulated.open("journal")
    file.append(DATA)
    file.truncate(10)
    assert simulated.read("journal") == DATA[:10]


def test_a_full_disk_takes_a_part() -> None:
    simulated = disk()
    simulated.write("journal", b"")
    file = simulated.open("journal")
    simulated.full = True
    with pytest.raises(OSError, match="no space") as caught:
        file.append(DATA)
    assert caught.value.errno == errno.ENOSPC
    assert DATA.startswith(simulated.read("journal"))
    with pytest.raises(OSError, match="no space"):
        simulated.write("other", b"")


def test_a_failed_sync_is_told_once() -> None:
    simulated = disk()
    simulated.write("journal", b"")
    file = simulated.open("journal")
    simulated.fails = True
    with pytest.raises(OSError, match="failed") as caught:
        file.sync()
    assert caught.value.errno == errno.EIO
    file.sync()


def test_the_driver_dies_at_an_operation() -> None:
    simulated = disk()
    simulated.dies_after = 2
    simulated.write("one", b"")
    simulated.write("two", b"")
    with pytest.raises(Died):
        simulated.write("three", b"")
    simulated.write("three", b"")
    assert simulated.names("") == ["one", "three", "two"]
