"""How are the commands of a batch system run?"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockflow.errors import RunError
from blockflow.launch.queue import Silence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATIENCE = 60.0
"""Seconds that a command may take; sbatch itself gives up after 9 if nobody answers."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str


def call(words: Sequence[str], *, given: str = "", without: Callable[[str], bool]) -> Answer:
    """Run a command, and wait for its end.

    Args:
        words: The command.
        given: Its standard input.
        without: Whether it does not get an environment variable.

    Raises:
        RunError: There is no such command.
        Silence: It took too long.
    """
    environment = {name: value for name, value in os.environ.items() if not without(name)}
    environment["LC_ALL"] = "C.UTF-8"  # its messages are read
    try:
        done = subprocess.run(
            words,
            input=given.encode(),
            capture_output=True,
            timeout=PATIENCE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the driver
            check=False,
        )
    except FileNotFoundError:
        raise RunError(
            f"there is no command {words[0]} on this machine's PATH: start the run on a login or submission node of "
            "the cluster, or load its module first"
        ) from None
    except OSError as error:
        raise RunError(f"{words[0]} cannot be run: {error}") from error
    except subprocess.TimeoutExpired:
        raise Silence(f"{words[0]} has not answered for {PATIENCE:g} s") from None
    return Answer(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
