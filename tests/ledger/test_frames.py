"""Frames: what was cut or changed is never taken for a record, and a torn tail is told from damage."""

from __future__ import annotations

from random import Random
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockflow.errors import DamagedLedgerError, LedgerVersionError
from blockflow.ledger import frames
from blockflow.ledger.frames import FRAME_HEAD_SIZE, HEAD_SIZE, Frame, FrameReader, Head, encode_frame, encode_head
from blockflow.ledger.records import BlockFailed, BlocksDone, Record, decode_records, encode_records, join_records
from tests.ledger.runs import RUN


def written(*, records: int = 200, first: int = 1) -> tuple[list[Record], bytes, list[int]]:
    """Records of all sizes in commits of all sizes: the records, the file, and where its frames end."""
    random = Random(7)
    made: list[Record] = []
    data = encode_head(Head(first, RUN))
    ends = [len(data)]
    while len(made) < records:
        batch: list[Record] = []
        for _ in range(min(random.choice((1, 1, 2, 5)), records - len(made))):
            block = random.randrange(10_000)
            if random.random() < 0.1:
                batch.append(BlockFailed(0, block, 7, False, "ValueError: ¡no!", "trace\n" * 3, "x.py:1"))
            else:
                batch.append(BlocksDone(0, (block, random.randint(1, 300)), random.randrange(2**50), 1234))
        data += encode_frame(first + len(made), len(batch), join_records(encode_records(batch)))
        made += batch
        ends.append(len(data))
    return made, data, ends


def read(data: bytes) -> tuple[list[Record], int]:
    """All records of a file, and the bytes of its torn tail."""
    reader = FrameReader("journal")
    found = [record for frame in reader.feed(data) for record in decode_records(frame.body)]
    return found, reader.finish()


def test_what_is_written_is_read() -> None:
    made, data, _ = written()
    assert read(data) == (made, 0)


@given(st.data())
def test_how_the_bytes_come_does_not_matter(drawn: st.DataObject) -> None:
    made, data, _ = written(records=20, first=5)
    cuts = sorted(drawn.draw(st.lists(st.integers(0, len(data)))))
    reader = FrameReader("journal")
    found: list[Frame] = []
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += reader.feed(data[begin:end])
    assert [record for frame in found for record in decode_records(frame.body)] == made
    assert (reader.finish(), reader.next, reader.good) == (0, 25, len(data))


def test_a_file_cut_at_any_byte_has_a_torn_tail() -> None:
    made, data, ends = written()
    for cut in range(HEAD_SIZE, len(data)):
        found, torn = read(data[:cut])
        assert found == made[: len(found)]
        assert cut - torn == max(end for end in ends if end <= cut), "whole commits are kept"
    for cut in range(HEAD_SIZE):
        with pytest.raises(DamagedLedgerError, match="byte 0"):
            read(data[:cut])


def test_no_flipped_bit_is_accepted() -> None:
    made, data, ends = written()
    accepted = 0
    for place in range(len(data)):
        begin = max((end for end in ends if end <= place), default=0)
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            if place >= ends[-2]:  # the last commit looks as if it had never been finished
                found, torn = read(bytes(changed))
                accepted += found != made[: len(found)]
                assert len(data) - torn == ends[-2]
            else:
                with pytest.raises(DamagedLedgerError, match=f"damaged at byte {begin}:"):
                    read(bytes(changed))
    assert accepted == 0


@pytest.mark.parametrize("missing", [slice(1, 2), slice(1, 3), slice(3, 4)])
def test_lost_frames_are_damage(missing: slice) -> None:
    _, data, ends = written(records=12)
    begin, end = ends[missing.start], ends[missing.stop]
    for changed in (data[:begin] + data[end:], data[:begin] + bytes(end - begin) + data[end:]):
        with pytest.raises(DamagedLedgerError, match=f"journal is damaged at byte {begin}"):
            read(changed)


def test_frames_that_come_twice_or_in_another_order_are_damage() -> None:
    _, data, ends = written(records=12)
    one, two = data[ends[1] : ends[2]], data[ends[2] : ends[3]]
    for middle in (one + one, two + one):
        with pytest.raises(DamagedLedgerError):
            read(data[: ends[1]] + middle + data[ends[3] :])


def test_more_than_one_commit_of_rubbish_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    made, data, _ = written(records=12)
    monkeypatch.setattr(frames, "LARGEST_BODY", 1000)
    assert read(data + bytes(FRAME_HEAD_SIZE + 1000)) == (made, FRAME_HEAD_SIZE + 1000)
    with pytest.raises(DamagedLedgerError):
        read(data + bytes(FRAME_HEAD_SIZE + 1001))


def test_a_signature_in_rubbish_is_not_a_frame() -> None:
    made, data, _ = written(records=12)
    rubbish = b"x" + frames.MAGIC + bytes(100) + frames.MAGIC
    assert read(data + rubbish) == (made, len(rubbish))


def test_nothing_is_read_behind_damage() -> None:
    made, data, ends = written(records=12)
    changed = bytearray(data)
    changed[ends[2] + 5] ^= 1
    reader = FrameReader("journal")
    found = [
        record for byte in changed for frame in reader.feed(bytes([byte])) for record in decode_records(frame.body)
    ]
    assert found == made[: len(found)]
    assert reader.good == ends[2]
    with pytest.raises(DamagedLedgerError):
        reader.finish()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "VERSION", 3)
    data = encode_head(Head(1, RUN))
    monkeypatch.undo()
    with pytest.raises(LedgerVersionError, match="format 3, this blockflow reads 2"):
        read(data)


def test_a_journal_of_the_first_version_is_refused_by_its_version() -> None:
    head = b"\xffblockflow-j\n" + (1).to_bytes(2, "little") + (1).to_bytes(8, "little")
    data = head + crc32(head).to_bytes(4, "little") + bytes(100)
    with pytest.raises(LedgerVersionError, match="format 1, this blockflow reads 2"):
        read(data)
