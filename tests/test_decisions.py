"""The decision records: each has its parts, and the index lists each of them."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "design" / "decisions"
RECORDS = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_a_record_has_context_decision_consequences_and_what_was_rejected(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert re.match(rf"# {record.name[:3]}: \S", text)
    parts = re.findall(r"^\*\*(\w+)\.\*\*", text, flags=re.MULTILINE)
    assert parts == ["Context", "Decision", "Consequences", "Rejected"]


def test_the_index_lists_every_record_once_and_in_order() -> None:
    listed = re.findall(r"\]\((\d{3}-[\w-]+\.md)\)", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert listed == [record.name for record in RECORDS]
    assert [record.name[:3] for record in RECORDS] == [f"{number:03}" for number in range(1, len(RECORDS) + 1)]
