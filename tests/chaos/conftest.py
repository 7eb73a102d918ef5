"""Real processes, and what is done to them. Every process ends with its test."""

from __future__ import annotations

from tests.run.conftest import logs

__all__ = ["logs"]
