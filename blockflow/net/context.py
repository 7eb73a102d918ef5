"""The context: what is a worker process told about the run that it belongs to?

A map from strings to strings that travels as JSON in one environment variable, so that keys and values may hold any
character. In ASCII, so that they may also hold what Python makes of file names that are no UTF-8.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from blockflow.errors import ConnectionFileError
from blockflow.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INVITATION = "invitation"
"""Key of a context that holds the text of a connection file, for who cannot see the file."""

WORK = "work"
"""Key under which it says what a worker has to do, which may hold any data."""

SECRETS = frozenset((INVITATION, WORK))
"""Keys whose values are never shown."""


class Context:
    """What a worker knows about its run.

    `hostname`, `port`, `task_id`, `worker_id`, `logdir`, and `connection`, the path of the connection file.

    >>> from blockflow import Context
    >>> context = Context(task_id="a:b=c", worker_id=3)
    >>> context["worker_id"], Context.from_text(context.to_env())["task_id"]
    ('3', 'a:b=c')
    """

    ENV_VARIABLE = "DAISY_CONTEXT"
    """The environment variable that holds it; the name that daisy users know."""

    def __init__(self, /, **values: Any) -> None:
        self._values = {key: _kept(key, value) for key, value in values.items()}

    def copy(self) -> Context:
        """A context with the same values."""
        return Context(**self._values)

    def to_env(self) -> str:
        """The context as one string, for the environment."""
        return json.dumps({key: self.reveal(key) for key in self._values})

    @classmethod
    def from_text(cls, text: str) -> Context:
        """The context that :meth:`to_env` put into a string.

        Raises:
            ConnectionFileError: The text is no context.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConnectionFileError(
                f"{cls.ENV_VARIABLE} is no context ({error}): it has {len(text)} characters"
            ) from None
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise ConnectionFileError(f"{cls.ENV_VARIABLE} is no context: it must map keys to texts")
        return cls(**values)

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Context:
        """The context of this process.

        Raises:
            ConnectionFileError: The process was not started as a worker, or its context is damaged.
        """
        text = (os.environ if environment is None else environment).get(cls.ENV_VARIABLE)
        if text is None:
            raise ConnectionFileError(
                f"this process has no context ({cls.ENV_VARIABLE} is not set): a worker script is started by the "
                "process_function of a task, which passes its environment on"
            )
        return cls.from_text(text)

    def get(self, key: str, default: str | None = None) -> str | None:
        """The value of a key, or a default; of secret ones only that they are there."""
        value = self._values.get(key, default)
        return None if value is None else str(value)

    def reveal(self, key: str) -> str:
        """Return the value of a key, also if it is secret.

        Raises:
            KeyError: It is not there.
        """
        value = self._values[key]
        return value.reveal() if isinstance(value, Secret) else value

    def __getitem__(self, key: str) -> str:
        return str(self._values[key])

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = _kept(key, value)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, Context) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self._values.items())
        return f"Context({inside})"


def _kept(key: str, value: Any) -> str | Secret:
    """A value as it is kept."""
    if isinstance(value, Secret):
        return value
    return Secret(str(value)) if key in SECRETS else str(value)
