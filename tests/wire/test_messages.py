"""Messages: everything that may be said comes back as it was said, and nothing else is ever understood."""

from __future__ import annotations

import math
import random
import struct
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockflow.errors import LocalProtocolError, RemoteProtocolError
from blockflow.plan.tiling import tile
from blockflow.scheduler.leases import LARGEST_LEASE
from blockflow.wire import messages as wire
from blockflow.wire.failures import LONGEST_ERROR, LONGEST_TRACEBACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockflow.geometry import Box

naturals = st.integers(0, 2**63 - 1)
pids = st.integers(1, 2**31 - 1)
durations = st.integers(0, 10**15)
wholes = st.integers(-(2**63), 2**63 - 1)
names = st.text(max_size=255)
failures = st.builds(
    wire.Failure,
    naturals,
    st.text(max_size=LONGEST_ERROR),
    st.text(max_size=200) | st.just("\U0001f52c" * LONGEST_TRACEBACK),
    names,
)
positives = st.integers(1, 2**63 - 1)
axes = st.builds(
    wire.RegularLayout,
    wholes,
    positives,
    *[naturals] * 5,
    st.none() | st.tuples(wholes, wholes),
) | st.builds(
    wire.BalancedLayout, wholes, wholes, positives, positives, positives, wholes, wholes, naturals, naturals, naturals
)

from_worker: st.SearchStrategy[wire.FromWorker] = st.one_of(
    st.builds(wire.Hello, naturals, names, names, st.none() | naturals, names, pids, st.none() | naturals),
    st.builds(wire.Held, naturals, naturals, st.lists(naturals, max_size=50).map(tuple), naturals),
    st.builds(wire.Report, naturals, naturals, durations, st.none() | failures, st.booleans(), naturals),
    st.builds(wire.Returned, naturals, naturals),
    st.builds(wire.Heartbeat, naturals),
    st.builds(wire.Goodbye, st.text(max_size=LONGEST_ERROR)),
    st.builds(wire.Scale, naturals, names, names, naturals),
)
from_driver: st.SearchStrategy[wire.FromDriver] = st.one_of(
    st.builds(
        wire.Welcome,
        naturals,
        st.lists(axes, min_size=1, max_size=32).map(tuple),
        st.lists(st.tuples(wholes, wholes), min_size=1, max_size=32).map(tuple),
        naturals,
        st.none() | naturals,
        st.booleans(),
    ),
    st.builds(wire.Refused, st.text(max_size=LONGEST_ERROR)),
    st.builds(wire.Granted, naturals, naturals, st.lists(naturals, max_size=50).map(tuple)),
    st.builds(wire.Acknowledged, naturals, naturals, st.booleans()),
    st.builds(wire.Alive, naturals),
    st.builds(wire.Recalled, naturals),
    st.builds(wire.Finished),
    st.builds(wire.Scaled, naturals),
)

DECODERS: tuple[Callable[[bytes], Any], ...] = (wire.decode_from_worker, wire.decode_from_driver)

EXAMPLES: tuple[wire.FromWorker | wire.FromDriver, ...] = (
    wire.Hello(wire.PROTOCOL, "0123456789abcdef", "smooth", 3, "node17", 4711, None),
    wire.Held(7, 120, (5, 3, 2, 1), 9),
    wire.Report(7, 12, 51_000, wire.Failure(99, "ValueError: x", "Traceback ...", "a.py:3"), True, 5),
    wire.Report(0, 0, 0, None, True, 1),
    wire.Returned(7, 3),
    wire.Heartbeat(8),
    wire.Scale(wire.PROTOCOL, "0123456789abcdef", "smooth", 20),
    wire.Scaled(8),
    wire.Goodbye("timeout"),
    wire.Goodbye("timeout", True, wire.Failure(7, "TimeoutError: late", "", "")),
    wire.Welcome(1, (wire.RegularLayout(-5, 10, 7, 2, 1, 0, 4),), ((-7, 66),), 60_000_000, None, False),
    wire.Refused("this is another run"),
    wire.Granted(7, 120, (5, 3, 2, 1)),
    wire.Acknowledged(5, 7, False),
    wire.Alive(8),
    wire.Recalled(7),
    wire.Finished(),
)


# ------------------------------------------------------------------------------------------------------- round trips


@given(from_worker)
def test_what_a_worker_says_is_understood(message: wire.FromWorker) -> None:
    assert wire.decode_from_worker(wire.encode(message)) == message


@given(from_driver)
def test_what_a_driver_says_is_understood(message: wire.FromDriver) -> None:
    assert wire.decode_from_driver(wire.encode(message)) == message


@given(from_worker)
def test_a_worker_is_not_taken_for_a_driver(message: wire.FromWorker) -> None:
    with pytest.raises(RemoteProtocolError, match="not a message of a driver"):
        wire.decode_from_driver(wire.encode(message))


@given(from_driver)
def test_a_driver_is_not_taken_for_a_worker(message: wire.FromDriver) -> None:
    with pytest.raises(RemoteProtocolError, match="not a message of a worker"):
        wire.decode_from_worker(wire.encode(message))


@given(from_worker | from_driver)
def test_no_message_is_larger_than_the_largest(message: wire.FromWorker | wire.FromDriver) -> None:
    assert 0 < len(wire.encode(message)) <= wire.LARGEST_MESSAGE


def test_the_longest_lease_fits_into_a_message() -> None:
    # Every second block of the far end of the largest grid: no runs, and numbers as long as they can be.
    far_apart = [2**40 * number for number in range(1, LARGEST_LEASE + 1)]
    runs = wire.pack_runs(far_apart)
    granted = wire.Granted(2**63 - 1, 2**63 - 1, runs)
    body = wire.encode(granted)
    assert len(body) <= wire.LARGEST_MESSAGE
    assert wire.decode_from_driver(body) == granted
    assert LARGEST_LEASE <= wire.MOST_BLOCKS


def test_the_longest_introduction_fits_before_the_handshake() -> None:
    hello = wire.Hello(wire.PROTOCOL, "f" * 16, "\N{EURO SIGN}" * 66, 2**63 - 1, "h" * 255, 2**31 - 1, 2**63 - 1)
    assert len(wire.encode(hello)) <= wire.LARGEST_HELLO


# ------------------------------------------------------------------------------------------------- what is refused


def packed(*values: Any) -> bytes:
    return msgspec.msgpack.encode(values)


HELLO = (1, wire.PROTOCOL, "run", "task", None, "host", 1, None)
REPORT = (2, 1, 1, 10, None, False, 1)
WELCOME = (16, 1, ((1, 0, 1, 1, 0, 0, 0, 0, None),), ((0, 1),), 1, None, False)


@pytest.mark.parametrize("message", [HELLO, REPORT])
def test_the_examples_of_workers_below_are_right(message: tuple[Any, ...]) -> None:
    wire.decode_from_worker(packed(*message))


def test_the_example_of_a_driver_below_is_right() -> None:
    wire.decode_from_driver(packed(*WELCOME))


@pytest.mark.parametrize("place", range(1, 7))
@pytest.mark.parametrize(
    "wrong", [-1, 2**63, 2**64 - 1, -(2**63), 1.0, math.nan, math.inf, "x" * 256, b"bytes", [1], {"a": 1}, ()]
)
def test_a_field_of_the_wrong_kind_is_refused(place: int, wrong: Any) -> None:
    refused = 0
    for example in (HELLO, REPORT):
        values = list(example)
        values[place] = wrong
        with pytest.raises(RemoteProtocolError):
            wire.decode_from_worker(packed(*values))
        refused += 1
    assert refused == 2


@pytest.mark.parametrize("place", range(1, 6))
@pytest.mark.parametrize("wrong", [-1, 2**64 - 1, 1.5, math.nan, "x", b"x", {}, (), ((),), True])
def test_a_welcome_of_the_wrong_kind_is_refused(place: int, wrong: Any) -> None:
    values: list[Any] = list(WELCOME)
    values[place] = wrong
    with pytest.raises(RemoteProtocolError):
        wire.decode_from_driver(packed(*values))


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",  # never used in msgpack
        packed(),
        packed(99),
        packed("Hello"),
        packed(1),
        packed(*HELLO, 5),
        packed(*HELLO[:-1]),
        packed(*HELLO) + b"\x00",
        packed(22, 1),
        msgspec.msgpack.encode({"protocol": 1}),
        msgspec.msgpack.encode(5),
        msgspec.msgpack.encode(math.nan),
        b"\xdd\xff\xff\xff\xff",  # an array of 4 G elements
        b"\xdb\xff\xff\xff\xff",  # a text of 4 GiB
        b"\xdf\xff\xff\xff\xff",  # a map of 4 G pairs
        b"\xc9\xff\xff\xff\xff\x01",  # an extension of 4 GiB
        b"\x91" * 100_000,
        b"\x81" * 100_000,
        packed(1, 1, "run") + b"\x91" * 60_000,
        b"\x97\x01\x01\xa2\xff\xfe\xa1t\xc0\xa1h\x01",  # text that is not UTF-8
        b"\x92\x05\xd6\xff\x00\x00\x00\x00",  # a time stamp
    ],
)
def test_what_is_no_message_is_refused(decode: Callable[[bytes], Any], body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not a message of a"):
        decode(body)


@pytest.mark.parametrize(
    "message",
    [
        (5, "x" * (LONGEST_ERROR + 1)),
        (2, 1, 1, 10, (0, "x" * (LONGEST_ERROR + 1), "", ""), False, 1),
        (2, 1, 1, 10, (0, "", "x" * (LONGEST_TRACEBACK + 1), ""), False, 1),
        (2, 1, 1, 10, (0, "", "", "x" * 256), False, 1),
        (2, 1, 1, 10, (0, "", "", "", ""), False, 1),
        (1, wire.PROTOCOL, "run", "t" * 256, None, "host", 1),
    ],
)
def test_long_texts_of_workers_are_refused(message: tuple[Any, ...]) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.decode_from_worker(packed(*message))


@pytest.mark.parametrize(
    "message",
    [
        (17, "x" * (LONGEST_ERROR + 1)),
        (18, 1, 1, (1,) * (2 * wire.MOST_BLOCKS + 1)),
        (16, 1, (), (), 1, None, False),
        (16, 1, ((0, 1, 1, 0, 0, 0, 0),) * 33, ((0, 1),) * 33, 1, None, False),
        (16, 1, ((0, 1, 1, 0, 0, 0, 0, 0),), ((0, 1),), 1, None, False),
        (16, 1, ((0, 1, 1, 0, 0, 0, 0),), ((0, 1, 2),), 1, None, False),
    ],
)
def test_long_lists_of_drivers_are_refused(message: tuple[Any, ...]) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.decode_from_driver(packed(*message))


def mutated(body: bytes, dice: random.Random) -> bytes:
    """A body with something wrong: bits, bytes, lengths, the end, or parts of another."""
    data = bytearray(body)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(data) + 1)
        match dice.randrange(7):
            case 0 if place < len(data):
                data[place] ^= 1 << dice.randrange(8)
            case 1 if place < len(data):
                data[place] = dice.randrange(256)
            case 2:
                del data[place : place + dice.randint(1, 8)]
            case 3:
                data[place:place] = dice.randbytes(dice.randint(1, 8))
            case 4:
                # Heads of large arrays, maps, texts and extensions, floats, and the ends of the integers.
                head = dice.choice([b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9", b"\xcb", b"\xcf", b"\xd3"])
                data[place : place + 1] = head + struct.pack(">Q", dice.choice([0, 1, 2**32 - 1, 2**63, 2**64 - 1]))
            case 5:
                other = wire.encode(dice.choice(EXAMPLES))
                data[place:] = other[dice.randrange(len(other)) :]
            case _:
                data[place:place] = bytes([dice.choice([0x91, 0x81, 0xDC, 0xC1, 0xC4, 0x7F, 0xFF])]) * dice.randint(
                    1, 9
                )
    return bytes(data)


def test_mutated_messages_are_understood_or_refused() -> None:
    dice = random.Random(20)
    refused = 0
    for number in range(20_000):
        body = mutated(wire.encode(EXAMPLES[number % len(EXAMPLES)]), dice)
        for decode in DECODERS:
            try:
                message = decode(body)
            except RemoteProtocolError:
                refused += 1
            else:
                # What is understood can be said again: no field is outside its bounds.
                assert decode(wire.encode(message)) == message
    assert 30_000 < refused < 40_000  # most, not all: both outcomes were tried


@settings(max_examples=200)
@given(st.binary(max_size=2000))
def test_any_bytes_are_understood_or_refused(body: bytes) -> None:
    for decode in DECODERS:
        try:
            decode(body)
        except RemoteProtocolError:
            continue


# ------------------------------------------------------------------------------------------------------------- runs


@given(st.sets(st.integers(0, 300), max_size=100), st.integers(0, 1000))
def test_runs_give_the_same_blocks(blocks: set[int], spare: int) -> None:
    indices = sorted(blocks)
    runs = wire.pack_runs(indices)
    size = max(indices, default=-1) + 1
    assert wire.unpack_runs(runs, size + spare) == indices
    assert len(runs) == 2 * sum(1 for index in indices if index - 1 not in blocks)
    if indices:
        with pytest.raises(RemoteProtocolError, match="not at most"):
            wire.unpack_runs(runs, size - 1)


@pytest.mark.parametrize("indices", [[3, 2], [2, 2], [0, 1, 2, 1], [-1]])
def test_blocks_that_are_not_sorted_are_never_sent(indices: list[int]) -> None:
    with pytest.raises(LocalProtocolError, match="the blocks of a lease must be sorted"):
        wire.pack_runs(indices)


@pytest.mark.parametrize(
    "runs", [(5,), (5, 1, 2), (0, 0), (3, 0, 1, 1), (0, wire.MOST_BLOCKS + 1), (0, 2**63 - 1), (2**63 - 1, 1)]
)
def test_what_are_no_runs_is_refused(runs: tuple[int, ...]) -> None:
    with pytest.raises(RemoteProtocolError, match=f"not at most {wire.MOST_BLOCKS} blocks of a grid of 20000"):
        wire.unpack_runs(runs, 20_000)


def test_the_largest_lease_is_understood() -> None:
    assert wire.unpack_runs((0, wire.MOST_BLOCKS), 20_000) == list(range(wire.MOST_BLOCKS))


# ------------------------------------------------------------------------------------------------------------- grids


@given(st.data())
def test_a_grid_crosses_the_wire(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 4))
    total, read, write = [], [], []
    for _ in range(dims):
        begin, step = data.draw(st.integers(-100, 100)), data.draw(st.integers(1, 9))
        before, after = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
        total.append((begin, begin + before + after + data.draw(st.integers(step, 50))))
        read.append((0, before + step + after))
        write.append((before, before + step))
    box: tuple[Box, Box, Box] = (tuple(total), tuple(read), tuple(write))
    grid = tile(total=box[0], read=box[1], write=box[2], fit=data.draw(st.sampled_from(["valid", "shrink"])))
    assert wire.grid_of(wire.layout_of(grid)).axes == grid.axes
