"""Frames: however a stream is cut on its way, the same bodies come out."""

from __future__ import annotations

import random
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import LocalProtocolError, RemoteProtocolError
from blockflow.wire.framing import FrameReader, frame
from blockflow.wire.messages import LARGEST_HELLO, LARGEST_MESSAGE

bodies_of_any_size = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data, cut at these places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


@given(bodies_of_any_size, st.lists(st.integers(0, 500), max_size=20))
def test_any_cut_gives_the_same_bodies(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame(body) for body in bodies)
    reader = FrameReader(LARGEST_MESSAGE)
    seen = [body for piece in pieces(stream, cuts) for body in reader.feed(piece)]
    assert seen == bodies


@given(bodies_of_any_size)
def test_byte_by_byte_gives_each_body_with_its_last_byte(bodies: list[bytes]) -> None:
    reader = FrameReader(LARGEST_MESSAGE)
    for body in bodies:
        *before, last = (list(reader.feed(bytes([byte]))) for byte in frame(body))
        assert last == [body]
        assert not any(before)


@given(bodies_of_any_size, st.lists(st.integers(0, 500), max_size=20), st.sampled_from([0, 101, 2**32 - 1]))
def test_bodies_in_front_of_a_wrong_length_come_out_for_any_cut(
    bodies: list[bytes], cuts: list[int], length: int
) -> None:
    stream = b"".join(frame(body) for body in bodies) + length.to_bytes(4, "little") + b"rest"
    reader = FrameReader(100)
    seen: list[bytes] = []

    def read_all() -> None:
        for piece in [*pieces(stream, cuts), b"", b"more"]:
            seen.extend(reader.feed(piece))

    with pytest.raises(RemoteProtocolError, match=rf"a frame of {length} bytes; 1 to 100 are allowed here"):
        read_all()
    assert seen == bodies


def test_the_largest_body_passes_and_a_larger_one_does_not() -> None:
    largest = bytes(LARGEST_MESSAGE)
    assert list(FrameReader(LARGEST_MESSAGE).feed(frame(largest))) == [largest]
    with pytest.raises(LocalProtocolError, match="a message has 1 to 262144 bytes, this one 262145"):
        frame(largest + b"x")


def test_an_empty_body_is_never_sent() -> None:
    with pytest.raises(LocalProtocolError, match="a message has 1 to 262144 bytes, this one 0"):
        frame(b"")


@pytest.mark.parametrize("at_once", [False, True])
def test_the_limit_may_be_raised_after_the_handshake(at_once: bool) -> None:
    reader = FrameReader(LARGEST_HELLO)
    hello, report = bytes(LARGEST_HELLO), bytes(LARGEST_HELLO + 1)
    seen = []
    for data in [frame(hello) + frame(report)] if at_once else [frame(hello), frame(report)]:
        for body in reader.feed(data):
            seen.append(body)
            reader.limit = LARGEST_MESSAGE
    assert seen == [hello, report]


def test_bodies_that_nobody_took_are_not_given_again() -> None:
    reader = FrameReader(LARGEST_MESSAGE)
    for body in reader.feed(frame(b"1") + frame(b"2")):
        assert body == b"1"
        break
    assert list(reader.feed(frame(b"3"))) == [b"2", b"3"]


@pytest.mark.parametrize("length", [LARGEST_MESSAGE + 1, 2**31, 2**32 - 1])
def test_a_length_of_gigabytes_is_refused_before_anything_is_allocated(length: int) -> None:
    reader = FrameReader(LARGEST_MESSAGE)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="a frame of"):
            next(reader.feed(length.to_bytes(4, "little")))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_stream_that_was_refused_stays_refused() -> None:
    reader = FrameReader(10)
    with pytest.raises(RemoteProtocolError):
        next(reader.feed(bytes(4)))
    with pytest.raises(RemoteProtocolError):
        next(reader.feed(frame(b"fine")))


def test_many_small_frames_at_once() -> None:
    dice = random.Random(1)
    bodies = [dice.randbytes(dice.randint(1, 20)) for _ in range(10_000)]
    assert list(FrameReader(LARGEST_MESSAGE).feed(b"".join(map(frame, bodies)))) == bodies
