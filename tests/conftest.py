"""What all tests have in common: how many random examples they try, that none changes where others log, and Ctrl-C.

``dev`` (the default) looks for new examples in each run and remembers failures; ``ci`` always tries the same ones,
so that a red build is the fault of the change; ``few`` tries few of them, where another Python or other versions of
libraries are tested. Choose with the environment variable ``HYPOTHESIS_PROFILE``.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from blockflow.logging import get_log_basedir, set_log_basedir

if TYPE_CHECKING:
    from collections.abc import Iterator

# No deadline: how long an example takes depends on the machine, and says nothing about the code.
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=75, deadline=None, derandomize=True)
settings.register_profile("few", max_examples=20, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# Shells start what runs in the background without Ctrl-C, and so would be everything that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def the_usual_logs() -> Iterator[None]:
    """Examples in docstrings, which run in the same process, expect logs in the usual place."""
    before = get_log_basedir()
    yield
    set_log_basedir(before)
