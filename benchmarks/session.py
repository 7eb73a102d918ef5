"""Asking one question: every contender in turn, round after round, and everything that was measured kept.

Nothing is left out: a contender whose environment cannot be made, and a run that fails, takes too long or gives another
result than the first one, stays in the record with its last lines.
"""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.environments import EnvironmentFailedError, ensure
from benchmarks.machine import describe_machine
from benchmarks.measure import Measurement, interleave, run
from benchmarks.question import CASES, script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.environments import Environment
    from benchmarks.question import Question, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One measurement and what it belongs to."""

    contender: str
    label: str
    round: int
    measured: Measurement


@dataclass(slots=True, kw_only=True)
class Record:
    """Everything about one question, as it is kept in a file."""

    question: str
    quick: bool
    date: str
    command: str
    machine: dict[str, Any]
    versions: dict[str, dict[str, str]]
    """By contender: every distribution in its environment."""
    missing: dict[str, str]
    """By contender: why it has no environment."""
    taken: list[Taken] = field(default_factory=list)

    def save(self, directory: Path) -> Path:
        """Write the file, and return its path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.date[:10]}-{self.question}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return path

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read a file."""
        raw = json.loads(path.read_text())
        taken = [Taken(**{**each, "measured": Measurement(**each["measured"])}) for each in raw.pop("taken")]
        return cls(**raw, taken=taken)


class Contenders:
    """The environments of all contenders, made when they are first needed, and warmed up.

    Args:
        find: Makes the environment of a contender, or finds it.
    """

    def __init__(self, find: Callable[[str], Environment] = ensure) -> None:
        self._find = find
        self._found: dict[str, Environment] = {}
        self.missing: dict[str, str] = {}
        """By contender: why it has no environment."""

    def get(self, name: str) -> Environment | None:
        """The environment of a contender; None if it cannot be made."""
        if name not in self._found and name not in self.missing:
            try:
                found = self._find(name)
            except EnvironmentFailedError as error:
                self.missing[name] = str(error)
                return None
            with tempfile.TemporaryDirectory() as place:
                # Files are compiled and in memory then, for all contenders alike.
                run(
                    [found.python, str(CASES / "tiny.py"), name],
                    directory=Path(place),
                    variables=found.variables,
                    timeout=60.0,
                )
            self._found[name] = found
        return self._found.get(name)


def ask(
    question: Question,
    contenders: Contenders,
    *,
    names: Iterable[str],
    rounds: int,
    quick: bool,
    command: str,
    say: Callable[[str], None],
) -> Record:
    """Ask a question.

    Args:
        question: What to ask.
        contenders: Their environments.
        names: The contenders that take part.
        rounds: How often each run is made; less often where the run says so.
        quick: Whether the question was made for quick runs.
        command: How this was called, for the record.
        say: Called with a line after each run.
    """
    wanted = set(names)
    runs = [run for run in question.runs if run.contender in wanted]
    places = {name: contenders.get(name) for name in dict.fromkeys(run.contender for run in runs)}
    present = {name: place for name, place in places.items() if place is not None}
    for name in places.keys() - present.keys():
        say(f"{name} has no environment: {contenders.missing[name]}")
    record = Record(
        question=question.name,
        quick=quick,
        date=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        command=command,
        machine=describe_machine(),
        versions={name: place.versions() for name, place in present.items()},
        missing={name: why for name, why in contenders.missing.items() if name in places},
    )
    with tempfile.TemporaryDirectory(prefix="blockflow-benchmark-") as folder:
        work = Path(folder)
        if question.prepare and present:
            place = next(iter(present.values()))
            words = [str(place.python), *script(question.prepare, None, work)]
            subprocess.run(words, env=place.variables, check=True)
        timed = [(run, min(rounds, run.most or rounds)) for run in runs if run.contender in present]
        checksum: object = None
        for number, each in interleave(timed):
            measured = _measure(each, present[each.contender], work)
            checksum = measured.reported.get("checksum") if checksum is None else checksum
            if not measured.failure and measured.reported.get("checksum") != checksum:
                measured = replace(measured, failure="its result differs from that of the first run")
            record.taken.append(Taken(contender=each.contender, label=each.label, round=number, measured=measured))
            say(_line(question, each, number, measured))
    return record


def _measure(each: Run, place: Environment, work: Path) -> Measurement:
    """One run, in a directory of its own that is gone afterwards."""
    directory = work / "run"
    directory.mkdir()
    try:
        measured = run(
            each.command(place.python, work),
            directory=directory,
            variables=place.variables,
            timeout=each.timeout,
            reports=each.reports,
        )
        if each.check and not measured.failure:
            checked = run(
                [place.python, *script(each.check, None, work)],
                directory=directory,
                variables=place.variables,
                timeout=each.timeout,
            )
            measured = replace(
                measured,
                reported={**measured.reported, **checked.reported},
                failure=checked.failure and f"its check {checked.failure}",
                last_lines=checked.last_lines,
            )
        return measured
    finally:
        shutil.rmtree(directory)


def _line(question: Question, each: Run, number: int, measured: Measurement) -> str:
    head = f"{question.name:10} round {number + 1}  {each.contender:10} {each.label:12}"
    if measured.failure:
        return "\n    ".join([f"{head} FAILED: {measured.failure}", *measured.last_lines])
    left = f", {measured.left_behind} processes left behind" if measured.left_behind else ""
    return (
        f"{head} {measured.wall_seconds:8.2f} s, CPU {measured.cpu_seconds:8.2f} s, "
        f"others {max(0.0, measured.other_cpu_seconds):7.2f} s{left}"
    )
