"""Bugs that somebody might write, to find out whether the simulation would notice them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.errors import DamagedLedgerError
from blockflow.ledger import frames
from blockflow.ledger.frames import HEAD_SIZE
from blockflow.ledger.journal import Journal
from blockflow.ledger.run_ledger import RunLedger
from blockflow.outbox import Outbox
from blockflow.plan.conflicts import Levels, levels_of
from blockflow.plan.plan import TaskPlan, single
from blockflow.scheduler import completion, dispatch, leases, propagation, reconnect, scheduler
from blockflow.scheduler import events as ev
from blockflow.scheduler.leases import Lease, Leases
from blockflow.scheduler.scheduler import HANDLERS
from blockflow.switchboard import Send, Switchboard
from blockflow.testing.simulation.cluster import Cluster
from blockflow.testing.simulation.link import Link
from blockflow.wire import messages as wire
from blockflow.wire.framing import FrameReader
from blockflow.wire.session import WorkerSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from blockflow.plan.grid import Grid
    from blockflow.plan.slices import Indices
    from blockflow.scheduler.retry_policy import FailureHistory
    from blockflow.scheduler.state import SchedulerState, TaskRecord
    from blockflow.switchboard import Action
    from blockflow.wire.held import Given, HeldLease

# ------------------------------------------------------------------------------------------------------ what may run


def forgets_conflicts(patch: pytest.MonkeyPatch) -> None:
    def levels(grid: Grid, *, read_write_conflict: bool, apart: tuple[int, ...] = ()) -> Levels:
        return levels_of(grid, read_write_conflict=False)

    patch.setattr("blockflow.plan.task.levels_of", levels)


def grants_before_all_inputs_are_done(patch: pytest.MonkeyPatch) -> None:
    fan_in = TaskPlan.fan_in
    patch.setattr(TaskPlan, "fan_in", lambda task, indices: fan_in(task, indices).clip(max=1))


def releases_what_waits_before_the_post_check(patch: pytest.MonkeyPatch) -> None:
    reported = HANDLERS[ev.BlocksReported]

    def early(state: SchedulerState, event: ev.BlocksReported, now: float) -> list[ev.Instruction]:
        done = reported(state, event, now)
        for wanted in [wanted for wanted in done if isinstance(wanted, ev.RunChecks)]:
            task = state.tasks[wanted.task]
            attempts = [task.verifying.pop(index)[1] for index in wanted.indices.tolist()]
            completion.blocks_done(state, task, wanted.indices, np.array(attempts), 0.0, now)
            done.remove(wanted)
        return done

    patch.setitem(HANDLERS, ev.BlocksReported, early)


def runs_what_waits_for_a_failed_block(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion, "orphan", propagation.release)


def forgets_orphans(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion, "orphan", lambda state, task, indices, now: None)


def forgets_to_release(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion, "release", lambda state, task, indices, now: None)


# ------------------------------------------------------------------------------------------------ leases and fences


def worker_counts_its_deadline_from_the_answer(patch: pytest.MonkeyPatch) -> None:
    receive = Link._receive

    def late(link: Link) -> None:
        before = link.session.deadline
        receive(link)
        if before is not None and link.session.deadline != before:
            link.session.deadline = link._worker.now() + link.session.lease_seconds

    patch.setattr(Link, "_receive", late)


def worker_never_fences_itself(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkerSession, "holds", False)


def worker_forgets_its_deadline_when_it_begins_a_block(patch: pytest.MonkeyPatch) -> None:
    next_block = WorkerSession.next_block

    def given(session: WorkerSession, now: float) -> Given | None:
        found = next_block(session, now)
        if found is not None and session.deadline is not None:
            session.deadline = max(session.deadline, now + session.lease_seconds)
        return found

    patch.setattr(WorkerSession, "next_block", given)


def worker_sends_no_heartbeats(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkerSession, "heartbeat", lambda session, now: None)


def driver_does_not_answer_heartbeats(patch: pytest.MonkeyPatch) -> None:
    handle = Switchboard._understand

    def understand(board: Switchboard, connection: int, line: Any, message: Any, now: float) -> list[Action]:
        actions = handle(board, connection, line, message, now)
        return [done for done in actions if not (isinstance(done, Send) and isinstance(done.message, wire.Alive))]

    patch.setattr(Switchboard, "_understand", understand)


def driver_has_no_patience(patch: pytest.MonkeyPatch) -> None:
    for module in ("leases", "reconnect"):
        patch.setattr(f"blockflow.scheduler.{module}.server_seconds", lambda lease: 0.7 * lease)


def takes_a_lease_back_too_early(patch: pytest.MonkeyPatch) -> None:
    expired = Leases.expired
    patch.setattr(Leases, "expired", lambda held, now: expired(held, now + 0.4 * held.seconds))


def does_not_renew(patch: pytest.MonkeyPatch) -> None:
    def renew(held: Leases, worker: int, now: float) -> None:
        if held._deadlines.get(worker) == now:
            held._deadlines[worker] = now + held.seconds * 1.05

    patch.setattr(Leases, "renew", renew)


def never_takes_a_lease_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "expired", lambda held, now: [])


def frees_blocks_when_a_connection_is_lost(patch: pytest.MonkeyPatch) -> None:
    disconnected = Switchboard.disconnected

    def lost(board: Switchboard, connection: int, now: float, *, broken: bool = False) -> list[Action]:
        line = board.line(connection)
        actions = disconnected(board, connection, now, broken=broken)
        if line is not None and line.worker is not None and not line.said_goodbye:
            actions += board.handle(ev.WorkerLeft(worker=line.worker, crashed=True), now)
        return actions

    patch.setattr(Switchboard, "disconnected", lost)


def takes_a_frozen_process_for_dead(patch: pytest.MonkeyPatch) -> None:
    def is_dead(cluster: Cluster, number: int) -> bool:
        return number not in cluster.workers or cluster.workers[number].paused

    patch.setattr(Cluster, "is_dead", is_dead)


def uses_attempt_numbers_again(patch: pytest.MonkeyPatch) -> None:
    grant = Leases.grant

    def again(held: Leases, worker: int, task: int, indices: Indices, now: float) -> Lease:
        held._next_attempt = 1
        return grant(held, worker, task, indices, now)

    patch.setattr(Leases, "grant", again)


def counts_stale_reports(patch: pytest.MonkeyPatch) -> None:
    grant = Leases.grant
    granted: dict[tuple[int, int], list[int]] = {}

    def remember(held: Leases, worker: int, task: int, indices: Indices, now: float) -> Lease:
        lease = grant(held, worker, task, indices, now)
        granted[id(held), lease.number] = indices.tolist()
        return lease

    def held_by_anybody(held: Leases, number: int, worker: int) -> Lease | None:
        mine = held._of_worker.get(worker, {}).get(number)
        blocks = granted.get((id(held), number))
        return mine or next((lease for lease in held if lease.indices.tolist() == blocks), None)

    patch.setattr(Leases, "grant", remember)
    patch.setattr(Leases, "held", held_by_anybody)


# ------------------------------------------------------------------------------------------- what reports mean


def worker_reports_what_it_has_only_begun(patch: pytest.MonkeyPatch) -> None:
    report = WorkerSession._report

    def eager(session: WorkerSession, lease: HeldLease | None, now: float, *, asks: bool) -> None:
        if lease is not None and lease.done < lease.started:
            lease.done = lease.started
        report(session, lease, now, asks=asks)

    patch.setattr(WorkerSession, "_report", eager)
    patch.setattr(WorkerSession, "block_done", _done_at_any_place(WorkerSession.block_done))


def _done_at_any_place(block_done: Callable[..., None]) -> Callable[..., None]:
    def done(session: WorkerSession, given: Given, *arguments: Any, **options: Any) -> None:
        if given.position == given.lease.done:
            block_done(session, given, *arguments, **options)

    return done


def goodbye_claims_the_block_under_way(patch: pytest.MonkeyPatch) -> None:
    goodbye = WorkerSession.goodbye

    def claim(session: WorkerSession, reason: str, now: float, **more: Any) -> None:
        for lease in session._leases:
            lease.done = lease.started
        goodbye(session, reason, now, **more)

    patch.setattr(WorkerSession, "goodbye", claim)


def worker_goes_on_with_what_it_gave_back(patch: pytest.MonkeyPatch) -> None:
    def give_back(session: WorkerSession, lease: HeldLease) -> None:
        if lease.started < len(lease.indices):
            session._outgoing.append(wire.Returned(lease.number, lease.started))

    patch.setattr(WorkerSession, "_give_back", give_back)


def forgets_blocks_that_are_given_back(patch: pytest.MonkeyPatch) -> None:
    for module in (completion, reconnect, scheduler):
        patch.setattr(module, "blocks_returned", lambda state, task, indices, now: None)


def forgets_blocks_of_lost_workers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion, "lease_lost", lambda state, lease, now, **how: [])


def failures_count_as_success(patch: pytest.MonkeyPatch) -> None:
    reported = Switchboard._reported

    def good(board: Switchboard, worker: int, message: wire.Report) -> ev.BlocksReported:
        return reported(board, worker, wire.Report(*_fields(message)[:3], None, message.asks, message.number))

    patch.setattr(Switchboard, "_reported", good)


def _fields(message: wire.Report) -> tuple[int, int, int]:
    return message.lease, message.upto, message.microseconds


# ---------------------------------------------------------------------------------------------------------- budgets


def counts_losses_as_failures(patch: pytest.MonkeyPatch) -> None:
    def lost(state: SchedulerState, lease: Lease, now: float, **how: str) -> list[ev.Instruction]:
        failures = [ev.BlockFailure(index=index, error="lost") for index in lease.outstanding.tolist()]
        task, attempt = state.tasks[lease.task], lease.attempt
        told = [completion.attempt_failed(state, task, failure, lease.worker, attempt, now) for failure in failures]
        return [each for some in told for each in some]

    patch.setattr(completion, "lease_lost", lost)


def _fails_differently(patch: pytest.MonkeyPatch, before: Callable[[FailureHistory], int]) -> None:
    """Let a failure count from another number of failures before it."""
    failed = completion.attempt_failed

    def differently(
        state: SchedulerState, task: TaskRecord, failure: ev.BlockFailure, worker: int | None, attempt: int, now: float
    ) -> list[ev.Instruction]:
        history = task.histories[failure.index]
        history.failures = before(history)
        return failed(state, task, failure, worker, attempt, now)

    for module in (completion, scheduler):
        patch.setattr(module, "attempt_failed", differently)


def fails_one_retry_too_early(patch: pytest.MonkeyPatch) -> None:
    _fails_differently(patch, lambda history: history.failures or 1)


def never_gives_a_block_up(patch: pytest.MonkeyPatch) -> None:
    _fails_differently(patch, lambda history: -1)


def never_finds_the_block_that_kills(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion, "MOST_LOSSES", 10**6)


def gives_up_after_two_lost_workers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(completion, "MOST_LOSSES", 2)


def an_end_that_was_announced_counts_as_a_crash(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(HANDLERS, ev.WorkerEnding, lambda state, event, now: [])


def skips_blocks_whose_check_raised(patch: pytest.MonkeyPatch) -> None:
    failed = completion.attempt_failed

    def skipped(
        state: SchedulerState, task: TaskRecord, failure: ev.BlockFailure, worker: int | None, attempt: int, now: float
    ) -> list[ev.Instruction]:
        if worker is not None:
            return failed(state, task, failure, worker, attempt, now)
        completion.blocks_skipped(state, task, single(failure.index), now)
        return [ev.TellFailure(task=task.plan.number, failure=failure, final=False)]

    patch.setattr(scheduler, "attempt_failed", skipped)


# ------------------------------------------------------------------------------------------- beginnings and endings


def goes_on_after_a_stop(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(HANDLERS, ev.StopAsked, lambda state, event, now: [])


def gives_blocks_to_workers_that_were_sent_home(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dispatch, "dismiss", lambda state, workers: None)
    patch.setattr(scheduler, "dismiss", lambda state, workers: None)


def sends_workers_home_while_their_task_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dispatch, "_is_over", lambda state, task: not task.ready_count)


def never_sends_anybody_home(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dispatch, "_is_over", lambda state, task: False)


def keeps_connections_for_ever(patch: pytest.MonkeyPatch) -> None:
    def disconnected(board: Switchboard, connection: int, now: float, *, broken: bool = False) -> list[Action]:
        line = board._lines.get(connection)
        if line is None or line.worker is None or line.said_goodbye:
            return []
        del board._connection_of[line.worker]
        line.said_goodbye = True
        return board.handle(ev.ConnectionLost(worker=line.worker), now)

    patch.setattr(Switchboard, "disconnected", disconnected)


def loses_the_rest_of_a_frame(patch: pytest.MonkeyPatch) -> None:
    complete = FrameReader._complete

    def forgetful(reader: FrameReader) -> Iterator[bytes]:
        yield from complete(reader)
        reader._buffer.clear()

    patch.setattr(FrameReader, "_complete", forgetful)


# --------------------------------------------------------------------------------- ledgers, and lives of the driver


def acknowledges_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    put = Outbox.put

    def at_once(outbox: Outbox, actions: Any, records: Any) -> list[Action]:
        put(outbox, [], records)
        return list(actions)

    patch.setattr(Outbox, "put", at_once)


def never_syncs_the_journal(patch: pytest.MonkeyPatch) -> None:
    def write(journal: Journal, frame: bytes) -> None:
        assert journal._file is not None
        journal._file.append(frame)
        journal._size += len(frame)

    patch.setattr(Journal, "_write", write)


def leaves_half_a_frame_when_the_disk_is_full(patch: pytest.MonkeyPatch) -> None:
    write = Journal._write

    def half(journal: Journal, frame: bytes) -> None:
        assert journal._file is not None
        with patch.context() as inner:
            inner.setattr(type(journal._file), "truncate", lambda file, size: None)
            write(journal, frame)

    patch.setattr(Journal, "_write", half)


def writes_behind_the_head_of_a_journal_twice(patch: pytest.MonkeyPatch) -> None:
    begin = Journal._begin

    def twice(journal: Journal) -> None:
        begin(journal)
        assert journal._file is not None
        journal._file.append(bytes(HEAD_SIZE))

    patch.setattr(Journal, "_begin", twice)


def forgets_to_record_what_is_done(patch: pytest.MonkeyPatch) -> None:
    write = RunLedger.write
    patch.setattr(RunLedger, "write", lambda ledger, records: write(ledger, records[:-1]))


def uses_numbers_of_an_earlier_life_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leases, "first_number", lambda epoch: 1)


def waits_for_nobody_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconnect, "await_workers", lambda state, awaited, now: None)


def waits_too_short_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    awaits = reconnect.await_workers
    patch.setattr(reconnect, "await_workers", lambda state, awaited, now: awaits(state, awaited, now - 55.0))


def lets_anybody_keep_anything(patch: pytest.MonkeyPatch) -> None:
    def claimed(state: SchedulerState, event: ev.LeaseClaimed, now: float) -> list[ev.Instruction]:
        return [ev.AcknowledgeReport(worker=event.worker, lease=event.lease, stale=False)]

    patch.setitem(HANDLERS, ev.LeaseClaimed, claimed)


def worker_claims_nothing_when_it_is_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkerSession, "claim", lambda session, now: session.heartbeat(now))


def worker_does_not_repeat_what_was_not_heard(patch: pytest.MonkeyPatch) -> None:
    claim = WorkerSession.claim

    def forgetful(session: WorkerSession, now: float) -> None:
        claim(session, now)
        session._outgoing = [
            message for message in session._outgoing if not (isinstance(message, wire.Report) and message.lease)
        ]

    patch.setattr(WorkerSession, "claim", forgetful)


# ------------------------------------------------------------------------------------ processes that are about to end


def frees_blocks_of_a_process_that_is_about_to_end(patch: pytest.MonkeyPatch) -> None:
    ending = HANDLERS[ev.WorkerEnding]

    def at_once(state: SchedulerState, event: ev.WorkerEnding, now: float) -> list[ev.Instruction]:
        ending(state, event, now)
        return completion.leases_lost(state, event.worker, now, suspicious=False)

    patch.setitem(HANDLERS, ev.WorkerEnding, at_once)


def takes_a_broken_connection_for_the_end_of_a_process(patch: pytest.MonkeyPatch) -> None:
    disconnected = Switchboard.disconnected

    def trusting(board: Switchboard, connection: int, now: float, *, broken: bool = False) -> list[Action]:
        return disconnected(board, connection, now)

    patch.setattr(Switchboard, "disconnected", trusting)


def forgets_who_was_to_blame_for_an_end(patch: pytest.MonkeyPatch) -> None:
    ending = HANDLERS[ev.WorkerEnding]

    def blameless(state: SchedulerState, event: ev.WorkerEnding, now: float) -> list[ev.Instruction]:
        return ending(state, ev.WorkerEnding(worker=event.worker), now)

    patch.setitem(HANDLERS, ev.WorkerEnding, blameless)


# -------------------------------------------------------------------------------------- what a torn journal looks like


def believes_torn_frames(patch: pytest.MonkeyPatch) -> None:
    """Whatever the body of a frame is, its checksum is right; what is missing are zeros."""
    feed = frames.FrameReader.feed

    def believing(reader: frames.FrameReader, data: bytes) -> list[frames.Frame]:
        found = feed(reader, data)
        head = frames._frame_head(reader._rest, 0)
        if head is None or head[2] != reader.next:
            return found
        length, count, first, _ = head
        size = frames.FRAME_HEAD_SIZE + length
        body = reader._rest[frames.FRAME_HEAD_SIZE : size].ljust(length, bytes(1))
        reader._rest, reader._stuck = reader._rest[size:], False
        reader.next += count
        reader.good += size
        return [*found, frames.Frame(first, count, body)]

    patch.setattr(frames.FrameReader, "feed", believing)


def believes_frames_with_holes(patch: pytest.MonkeyPatch) -> None:
    """The checksum of the body is not looked at."""
    feed = frames.FrameReader.feed

    def believing(reader: frames.FrameReader, data: bytes) -> list[frames.Frame]:
        found = feed(reader, data)
        head = frames._frame_head(reader._rest, 0)
        if head is None or head[2] != reader.next or len(reader._rest) < frames.FRAME_HEAD_SIZE + head[0]:
            return found
        length, count, first, _ = head
        size = frames.FRAME_HEAD_SIZE + length
        body, reader._rest, reader._stuck = reader._rest[frames.FRAME_HEAD_SIZE : size], reader._rest[size:], False
        reader.next += count
        reader.good += size
        return [*found, frames.Frame(first, count, body)]

    patch.setattr(frames.FrameReader, "feed", believing)


def takes_a_torn_tail_for_damage(patch: pytest.MonkeyPatch) -> None:
    def finish(reader: frames.FrameReader) -> int:
        if reader._rest:
            raise DamagedLedgerError("a torn tail")
        return 0

    patch.setattr(frames.FrameReader, "finish", finish)


# ------------------------------------------------------------------------------------- workers that are absent, or late


def forgets_absent_workers_that_lose_their_connection(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconnect, "forget_disconnected", reconnect.worker_gone)


def keeps_blocks_of_processes_that_are_stopped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cluster, "is_stopped", lambda cluster, number: False)


def looks_at_timeouts_before_leases(patch: pytest.MonkeyPatch) -> None:
    watch = Link.watch

    def hasty(link: Link, now: float) -> bool:
        timeout = link._timeout
        if timeout is not None and link.current is not None and now - link.current[1] > timeout:
            link._worker.timed_out()
            return False
        return watch(link, now)

    patch.setattr(Link, "watch", hasty)


def goes_on_with_workers_whose_leases_have_run_out(patch: pytest.MonkeyPatch) -> None:
    ticked = HANDLERS[ev.Ticked]

    def careless(state: SchedulerState, event: ev.Ticked, now: float) -> list[ev.Instruction]:
        waiting = [dict(task.waiting_workers) for task in state.tasks]
        done = ticked(state, event, now)
        for task, before in zip(state.tasks, waiting, strict=True):
            its = {worker: since for worker, since in before.items() if worker in task.active_workers}
            task.waiting_workers.update(its)
        return [wanted for wanted in done if not isinstance(wanted, ev.CutOff)]

    patch.setitem(HANDLERS, ev.Ticked, careless)
