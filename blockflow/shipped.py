"""Loading of code that was sent to this process: file names and source lines stay as they were.

The other half is :mod:`blockflow.launch.pickler`. What a worker loads shows its source in tracebacks, in warnings and
to :func:`inspect.getsource` although this process may not be able to read the file: a notebook cell has none, another
machine has another disk, and a script may have been edited since.
"""

from __future__ import annotations

import functools
import marshal
import sys
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

__all__ = ["load_cached_function", "load_cached_property", "load_code"]

_SHOWN: dict[str, bytes] = {}
"""Sources that are in Python's cache of source lines because of this module, compressed, by file name."""


def load_code(python: tuple[int, int], packed: bytes, source: bytes | None) -> CodeType:
    """Return a code object as it was where it comes from.

    >>> import zlib
    >>> code = compile("1 / 0", "<cell 7>", "eval")
    >>> load_code(sys.version_info[:2], marshal.dumps(code), zlib.compress(b"1 / 0")).co_filename
    '<cell 7>'

    Args:
        python: Version of the Python that it was compiled by, the first two numbers.
        packed: The code, by :mod:`marshal`.
        source: The whole text of its file, UTF-8, compressed; None where it is not known.

    Raises:
        ImportError: This is another version of Python.
    """
    here = sys.version_info[:2]
    if tuple(python) != here:
        raise ImportError(
            f"the function was sent by Python {python[0]}.{python[1]}, and this worker runs Python "
            f"{here[0]}.{here[1]}: compiled code cannot be shared. Start workers with the same version of Python, or "
            "put the function into a module that both can import"
        )
    code: CodeType = marshal.loads(packed)
    if source is not None:
        _show(code.co_filename, source)
    return code


def load_cached_function(function: Callable[..., Any], parameters: dict[str, Any]) -> Callable[..., Any]:
    """Return a function with a cache of its own, which is empty.

    >>> load_cached_function(abs, {"maxsize": 2, "typed": False})(-1)
    1

    Args:
        function: What is cached.
        parameters: Of :func:`functools.lru_cache`.
    """
    cached: Callable[..., Any] = functools.lru_cache(**parameters)(function)
    return cached


def load_cached_property(function: Callable[[Any], Any], name: str | None) -> functools.cached_property[Any]:
    """Return a cached property.

    Args:
        function: Computes it.
        name: The attribute that holds it; None if no class has it yet.
    """
    made = functools.cached_property(function)
    if name is not None:
        made.__set_name__(object, name)
    return made


def _show(file: str, source: bytes) -> None:
    """Let Python's cache of source lines answer for a file with the text that was sent."""
    import linecache

    if _SHOWN.get(file) == source:
        return
    text = zlib.decompress(source).decode(errors="surrogatepass")
    lines = text.splitlines(keepends=True)
    known = linecache.cache.get(file)
    if known is None or len(known) < 4 or known[2] != lines:
        # No time of change: the entry is not replaced by what is in the file by now.
        linecache.cache[file] = (len(text), None, lines, file)
    _SHOWN[file] = source
