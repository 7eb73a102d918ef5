"""What can happen to a scheduler: one step of a random life.

A step is any move that is possible now. Each life prefers some moves and leaves out others, because a life with a bit
of everything never gets far enough to meet what only happens after thirty blocks, or after a third lost worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blockflow.errors import RemoteProtocolError
from blockflow.scheduler import events as ev
from blockflow.scheduler import retry_policy
from tests.scheduler.plans import random_plan
from tests.scheduler.world import DEAD, ENOUGH_BLOCKS, FAILURES_ON_HOST, LEASE, World, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.scheduler.world import GhostLease, GhostWorker


def be_short_tempered(patch: pytest.MonkeyPatch) -> None:
    """Give hosts and tasks up sooner: plans are small here."""
    patch.setattr(retry_policy, "FAILURES_ON_HOST", FAILURES_ON_HOST)
    patch.setattr(retry_policy, "BREAKER_BLOCKS", ENOUGH_BLOCKS)


def live(random: Random, most_steps: int) -> World:
    """A random life of a scheduler of a random plan; at the end no more goes wrong, and it has to finish."""
    world = World(
        random_plan(random),
        largest_lease=random.choice((1, 2, 5, 5)),
        most_workers=random.choice((1, 2, 3, 8)),
        hosts=random.choice((0, 1, 2, 3)),
        causes=random.choice((1, 1, 2)),
    )
    weights: list[float] = [random.choice((0, 1, 1, 5, 20)) if move in _FAULTS else 5 for move in _MOVES]
    weights[_MOVES.index(_stop)] = random.choice((0, 0, 0, 0.5))
    for _ in range(random.randint(0, most_steps)):
        random.choices(_MOVES, weights)[0](world, random)
    world.finish()
    return world


def _connected(world: World) -> list[GhostWorker]:
    return [worker for worker in world.workers.values() if worker.connected]


def _held(world: World) -> list[tuple[GhostWorker, GhostLease]]:
    return [(worker, lease) for worker in _connected(world) for lease in worker.live]


# ------------------------------------------------------------------------------------------------- what goes well


def _join_by_hand(world: World, random: Random) -> None:
    if len(world.workers) < world.most_workers:
        world.join(random.randrange(len(world.plan.tasks)))


def _join_from_process(world: World, random: Random) -> None:
    if world.processes and len(world.workers) < world.most_workers:
        process = random.choice(sorted(world.processes))
        world.join(world.processes[process], process)


def _ask(world: World, random: Random) -> None:
    if workers := _connected(world):
        world.ask(random.choice(workers))


def _report(world: World, random: Random) -> None:
    if held := _held(world):
        worker, lease = random.choice(held)
        upto = random.choice((len(lease.blocks), random.randint(lease.reported + 1, len(lease.blocks))))
        world.report(worker, lease, upto)


def _heartbeat(world: World, random: Random) -> None:
    if workers := _connected(world):
        world.heartbeat(random.choice(workers))


def _answer_check(world: World, random: Random) -> None:
    if world.checks:
        check = random.choice(world.checks)
        world.answer(check, [random.random() < 0.5 for _ in check.indices])


def _pass_some_time(world: World, random: Random) -> None:
    world.pass_time(random.choice((0.0, 0.1, 10.0)))


# ---------------------------------------------------------------------------------------------------- what does not


def _report_failures(world: World, random: Random) -> None:
    if held := _held(world):
        worker, lease = random.choice(held)
        upto = random.randint(lease.reported + 1, len(lease.blocks))
        covered = [block.key[1] for block in lease.blocks[lease.reported : upto]]
        world.report(worker, lease, upto, fails=[index for index in covered if random.random() < 0.7])


def _report_again(world: World, random: Random) -> None:
    said = [(worker, lease) for worker, lease in _held(world) if lease.reported]
    if said:
        worker, lease = random.choice(said)
        world.report(worker, lease, random.randint(1, lease.reported), fails=[lease.blocks[0].key[1]])


def _report_late(world: World, random: Random) -> None:
    late = [(worker, lease) for worker in _connected(world) for lease in worker.leases if not lease.live]
    if late:
        worker, lease = random.choice(late)
        fails = [block.key[1] for block in lease.blocks if random.random() < 0.3]
        world.report(worker, lease, max(1, len(lease.blocks)), fails)


def _report_of_another(world: World, random: Random) -> None:
    workers = _connected(world)
    if workers and (held := _held(world)):
        worker, (owner, lease) = random.choice(workers), random.choice(held)
        if worker is not owner:
            worker.heard = world.now
            answers = world.scheduler.handle(
                ev.BlocksReported(worker=worker.number, lease=lease.number, upto=1, seconds=0.0), world.now
            )
            assert [answer.stale for answer in answers if isinstance(answer, ev.AcknowledgeReport)] == [True]
            assert len(answers) == 1


def _break_the_rules(world: World, random: Random) -> None:
    number = random.choice(sorted(world.gone) or [-7])
    events: list[ev.Event] = [
        ev.BlocksAsked(worker=number),
        ev.HeartbeatReceived(worker=number),
        ev.BlocksReported(worker=number, lease=1, upto=1, seconds=0.0),
        ev.BlocksReturned(worker=number, lease=1, kept=0),
    ]
    if workers := _connected(world):
        worker = random.choice(workers)
        events.append(ev.WorkerJoined(worker=worker.number, task=worker.task + 1))
    if held := _held(world):
        worker, lease = random.choice(held)
        size = len(lease.blocks)
        first, last = lease.outstanding[0].key[1], lease.blocks[-1].key[1]
        for upto, fails in (
            (size + 1, ()),
            (0, ()),
            (-1, ()),
            (size, (last + 1,)),
            (size, (first, first)),
            (lease.reported + 1, (last,) if lease.reported + 1 < size else (-1,)),
        ):
            failures = tuple(ev.BlockFailure(index=index, error="ValueError: no") for index in fails)
            events.append(
                ev.BlocksReported(worker=worker.number, lease=lease.number, upto=upto, seconds=0.0, failures=failures)
            )
        events += [
            ev.BlocksReturned(worker=worker.number, lease=lease.number, kept=kept)
            for kept in (size + 1, lease.reported - 1)
        ]
    event = random.choice(events)
    before = fingerprint(world.scheduler)
    with pytest.raises(RemoteProtocolError):
        world.scheduler.handle(event, world.now)
    assert fingerprint(world.scheduler) == before


def _give_back(world: World, random: Random) -> None:
    if held := _held(world):
        worker, lease = random.choice(held)
        world.give_back(worker, lease, random.randint(lease.reported, len(lease.blocks)))


def _leave(world: World, random: Random) -> None:
    if world.workers:
        world.leave(random.choice(list(world.workers.values())), crashed=random.random() < 0.7)


def _crash_in_a_block(world: World, random: Random) -> None:
    """Again and again: what runs again comes first, so some lives find blocks that seem to kill their workers."""
    if workers := [worker for worker in _connected(world) if not worker.dismissed]:
        worker = random.choice(workers)
        world.ask(worker)
        if worker.live:
            world.leave(worker, crashed=True)


def _leave_twice(world: World, random: Random) -> None:
    if world.gone:
        world.leave_again(random.choice(list(world.gone.values())))


def _disconnect(world: World, random: Random) -> None:
    if workers := _connected(world):
        world.disconnect(random.choice(workers))


def _end_in_the_middle(world: World, random: Random) -> None:
    if workers := _connected(world):
        worker = random.choice(workers)
        world.announce_end(worker)
        if random.random() < 0.7:
            world.disconnect(worker)


def _rejoin(world: World, random: Random) -> None:
    lost = [worker for worker in world.workers.values() if not worker.connected]
    if lost:
        world.rejoin(random.choice(lost))


def _pass_a_lease(world: World, random: Random) -> None:
    for worker in _connected(world):
        if random.random() < 0.5:
            world.pass_time(LEASE / 2)
            world.heartbeat(worker)
    world.pass_time(random.choice((LEASE / 2, DEAD)))


def _end_process(world: World, random: Random) -> None:
    if world.processes:
        world.end_process(random.choice(sorted(world.processes)), clean=random.random() < 0.4)


def _answer_check_badly(world: World, random: Random) -> None:
    if world.checks:
        check = random.choice(world.checks)
        world.answer(check, [random.choice((True, False, None, None)) for _ in check.indices])


def _stop(world: World, _: Random) -> None:
    world.stop()


def _resize(world: World, random: Random) -> None:
    world.resize(random.randrange(len(world.plan.tasks)), random.choice((0, 1, 2, 5)))


_FAULTS: list[Callable[[World, Random], None]] = [
    _report_failures,
    _report_again,
    _report_late,
    _report_of_another,
    _break_the_rules,
    _give_back,
    _leave,
    _crash_in_a_block,
    _leave_twice,
    _disconnect,
    _end_in_the_middle,
    _rejoin,
    _pass_a_lease,
    _end_process,
    _answer_check_badly,
    _resize,
    _stop,
]

_MOVES: list[Callable[[World, Random], None]] = [
    _join_by_hand,
    _join_from_process,
    _ask,
    _ask,
    _ask,
    _report,
    _report,
    _report,
    _heartbeat,
    _answer_check,
    _pass_some_time,
    *_FAULTS,
]
