"""Simulated runs on the command line: ``python -m blockflow.testing.simulation --profile lossy --schedules 1000``."""

from __future__ import annotations

import argparse
import sys
import time

from blockflow.testing.simulation import PROFILES, schedules, summary


def main(arguments: list[str] | None = None) -> int:
    """Run schedules, and print an account; returns the exit code: 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m blockflow.testing.simulation", description="Whole clusters in memory, in which things go wrong."
    )
    parser.add_argument("--profile", choices=[*PROFILES, "all"], default="all", help="what goes wrong")
    parser.add_argument("--schedules", type=int, default=100, help="how many of each profile")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--twice", action="store_true", help="run everything twice and compare")
    chosen = parser.parse_args(arguments)
    broken = False
    for profile in list(PROFILES) if chosen.profile == "all" else [chosen.profile]:
        began = time.process_time()
        reports = list(schedules(chosen.schedules, profile, seed=chosen.seed))
        seconds = time.process_time() - began
        sys.stdout.write(f"{profile}: {summary(reports)}\n  {len(reports) / max(seconds, 1e-9):.1f} schedules/s\n")
        for report in reports:
            if report.violations:
                broken = True
                sys.stdout.write(f"{report}\n")
        if chosen.twice:
            again = [report.event_hash for report in schedules(chosen.schedules, profile, seed=chosen.seed)]
            differ = [report.seed for report, second in zip(reports, again, strict=True) if report.event_hash != second]
            sys.stdout.write(f"  the same when run again: {f'all but seeds {differ}' if differ else 'all'}\n")
            broken = broken or bool(differ)
        sys.stdout.flush()
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
