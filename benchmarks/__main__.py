"""The command line: ``python -m benchmarks [case ...] [--rounds N] [--quick] [--peers daisy2,daisy1,dask]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.environments import HOME, PEERS, ROOT
from benchmarks.questions import MAKERS, question
from benchmarks.report import write
from benchmarks.session import Contenders, ask


def main(words: list[str]) -> int:
    """Ask questions, and write what was found; 1 if any run failed."""
    options = _parse(words)
    results = options.results or (HOME / "quick-results" if options.quick else ROOT / "benchmarks" / "results")
    contenders = Contenders()
    failed = False
    for name in [] if options.draw else options.cases or list(MAKERS):
        asked = question(name, quick=options.quick)
        record = ask(
            asked,
            contenders,
            names=["blockflow", *options.peers],
            rounds=options.rounds or (2 if options.quick else asked.rounds),
            quick=options.quick,
            command=" ".join(["python -m benchmarks", *words]),
            say=_say,
        )
        failed |= bool(record.missing) or any(taken.measured.failure for taken in record.taken)
        _say(f"wrote {record.save(results)}")
    _say(f"wrote {write(results)}")
    _draw(results)
    return int(failed)


def _draw(results: Path) -> None:
    try:
        from benchmarks.plot import draw
    except ImportError as error:
        _say(f"no plot was drawn: {error}")
        return
    for path in draw(results):
        _say(f"wrote {path}")


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure blockflow beside its peers.")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"what to ask, of {', '.join(MAKERS)}; default: all")
    parser.add_argument("--rounds", type=int, help="how often each run is made (default: as the question says)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything works")
    parser.add_argument(
        "--peers", default=",".join(PEERS), help="beside blockflow; may be empty (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, help="folder for what is written (default: benchmarks/results)")
    parser.add_argument("--draw", action="store_true", help="measure nothing; write page and plot from the records")
    options = parser.parse_args(words)
    if unknown := set(options.cases) - set(MAKERS):
        parser.error(f"unknown case: {', '.join(sorted(unknown))}; there are {', '.join(MAKERS)}")
    options.peers = [name for name in options.peers.split(",") if name]
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"unknown peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    return options


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
