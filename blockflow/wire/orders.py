"""What the launcher and the process that makes workers say to each other, over two pipes.

An order is the number of a process and the length of its payload, 8 bytes each, and the payload. A report is three
64-bit integers: what happened, the number of the process, and its process id or exit code.
"""

from __future__ import annotations

STARTED, ENDED = 0, 1
"""What is reported of a process."""

REPORT_BYTES = 24
"""Pipes keep such a small message in one piece."""
