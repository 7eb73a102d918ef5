"""Texts that are kept in files: a change of one is seen in the review."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).with_name("golden")


def check(name: str, text: str) -> None:
    """Compare a text with the one that is kept.

    ``BLOCKFLOW_ACCEPT=1 pytest tests/launch`` keeps the new ones.
    """
    path = FOLDER / name
    if os.environ.get("BLOCKFLOW_ACCEPT"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path} is different; BLOCKFLOW_ACCEPT=1 accepts the new text"
