"""Pickling of user functions: what cloudpickle leaves out or cannot send, so that a worker runs what a script runs.

cloudpickle sends a function by value where a worker cannot import it. Here its code keeps its file name, and the text
of that file travels with it, whatever cloudpickle itself does to file names. Cached functions go as their function and
its cache's size, modules of classes of their own go by name, and so do functions that draw from a library's own random
generator, which each worker seeds anew.
"""

from __future__ import annotations

import functools
import io
import linecache
import marshal
import random
import sys
import zlib
from importlib import import_module
from types import BuiltinMethodType, CodeType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import cloudpickle

from blockflow.shipped import load_cached_function, load_cached_property, load_code
from blockflow.wire.failures import is_users_code

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["dumps", "pack"]

_COMMAND = "<string>"
"""File name of the code of ``python -c``."""

_CachedFunction = type(functools.lru_cache(int))

LONGEST_SOURCE = 1 << 20
"""Characters of a file that travels with its code; the longer ones are machine-made, and are read where they are."""


def dumps(value: Any, *, sources: bool = True) -> bytes:
    """Return a value as bytes that :func:`pickle.loads` understands in another process.

    >>> import pickle
    >>> pickle.loads(dumps(lambda: 1 + 1))()
    2

    Args:
        value: Function, or any other value.
        sources: Whether the text of source files travels with code.
    """
    return pack(value, sources=sources)[0]


def pack(value: Any, *, sources: bool = True) -> tuple[bytes, list[str]]:
    """Return a value as :func:`dumps` does, and the types of the random generators that are copied with it.

    >>> pack(random.Random(1))[1]
    ['random.Random']

    Args:
        value: Function, or any other value.
        sources: Whether the text of source files travels with code.
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, sources=sources)
    pickler.dump(value)
    return buffer.getvalue(), sorted(pickler.generators)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, with other rules for some types."""

    def __init__(self, file: io.BytesIO, *, sources: bool) -> None:
        super().__init__(file)
        self._sends_sources = sources
        self._sources: dict[str, bytes | None] = {}
        self.generators: set[str] = set()
        """Types of the random generators that were copied."""

    def reducer_override(self, value: Any) -> Any:
        """Say how a value is rebuilt, or ``NotImplemented`` where nothing is said about its type."""
        if type(value) is CodeType:
            return self._code(value)
        if type(value) is _CachedFunction and not _can_be_imported(value):
            return load_cached_function, (value.__wrapped__, value.cache_parameters())
        if type(value) is functools.cached_property:  # before Python 3.12 it holds a lock
            return load_cached_property, (value.func, value.attrname)
        if isinstance(value, ModuleType) and type(value) is not ModuleType and _is_loaded(value):
            return import_module, (value.__name__,)
        if isinstance(value, BuiltinMethodType | MethodType) and (home := _home_of_draw(value)) is not None:
            return getattr, (home, value.__name__)
        if _is_generator(value):
            self.generators.add(f"{type(value).__module__}.{type(value).__name__}")
        return super().reducer_override(value)

    def _code(self, code: CodeType) -> Any:
        try:
            packed = marshal.dumps(code)
        except ValueError:  # a library has put an object of its own among the constants
            return NotImplemented
        return load_code, (sys.version_info[:2], packed, self._source(code) if self._sends_sources else None)

    def _source(self, code: CodeType) -> bytes | None:
        file = code.co_filename
        if file == _COMMAND:  # also the name of what is run by exec
            return _compressed(_lines_of_command(code))
        if file not in self._sources:
            self._sources[file] = _compressed(linecache.getlines(file)) if is_users_code(file) else None
        return self._sources[file]


def _can_be_imported(function: Any) -> bool:
    """Return whether a worker finds a function by its name."""
    module = function.__module__
    if module == "__main__" or module in cloudpickle.list_registry_pickle_by_value():
        return False
    found: Any = sys.modules.get(module)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def _is_loaded(module: ModuleType) -> bool:
    return sys.modules.get(module.__name__) is module


def _home_of_draw(method: Any) -> ModuleType | None:
    """Return the module of a function that draws from the generator of :mod:`random` or numpy, as ``random.gauss``."""
    for name in ("random", "numpy.random"):
        module = sys.modules.get(name)
        if module is not None and getattr(module, method.__name__, None) == method:
            return module
    return None


def _is_generator(value: Any) -> bool:
    """Return whether a value draws random numbers from a state that a copy repeats."""
    if isinstance(value, random.Random):
        return not isinstance(value, random.SystemRandom)
    if type(value).__module__.startswith("torch"):
        return type(value).__name__ == "Generator"
    numpy = sys.modules.get("numpy.random")
    return numpy is not None and isinstance(value, numpy.Generator | numpy.RandomState)


def _compressed(lines: list[str]) -> bytes | None:
    """The text of a file as it travels; None if it is not known, or too long."""
    if not lines or sum(map(len, lines)) > LONGEST_SOURCE:
        return None
    return zlib.compress("".join(lines).encode(errors="surrogatepass"), 1)


def _lines_of_command(code: CodeType) -> list[str]:
    """The lines of ``python -c``, if the code is of these and not of some ``exec``."""
    from textwrap import dedent

    command = _command(sys.orig_argv)
    for text in (command, dedent(command)):  # Python 3.14 runs the second
        try:
            whole = compile(text, code.co_filename, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
        if any(inner == code for inner in _with_inner(whole)):
            return text.splitlines(keepends=True)
    return []


def _command(words: list[str]) -> str:
    """The text after ``-c`` on a command line of Python; empty if there is none.

    >>> _command(["python", "-X", "utf8", "-Oc", "print(1)", "more"])
    'print(1)'
    """
    following = iter(words[1:])
    for word in following:
        if word == "--check-hash-based-pycs":
            next(following, None)
        elif not word.startswith("-") or word in ("-", "--"):
            return ""
        elif not word.startswith("--"):
            for place, letter in enumerate(word[1:], 2):
                if letter == "c":
                    return word[place:] or next(following, "")
                if letter in "WX":
                    if not word[place:]:
                        next(following, None)
                    break
                if letter == "m":
                    return ""
    return ""


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner(constant)
