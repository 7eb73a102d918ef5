"""Digest of user code: equal for code that does the same, different for code that was changed.

What is called is walked through: instructions, constants, defaults, closures, partial arguments, the globals that code
refers to, and functions and classes of the user's own modules that it calls. Left out is what changes nothing: names of
files, line numbers, docstrings, annotations, names of local variables. A module that a function imports when it runs
counts as a whole. Python, and what is installed as a package, counts by name only: :func:`environment` says versions.

The digest is the same in another Python process (sets are sorted, no address and no hash of Python's is used) and after
pickling. Another version of Python may compile the same source into other instructions, so that its minor version is
part of :func:`environment`, and :func:`code_digest` must only be compared where that is the same.

An object may say itself what of it is code: its method ``__blockflow_code__`` returns that. Of instances of installed
classes only public attributes that are plain data count.
"""

from __future__ import annotations

import ast
import dis
import functools
import os
import sys
import sysconfig
from contextlib import suppress
from enum import Enum
from hashlib import blake2b
from importlib.machinery import PathFinder
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

__all__ = ["code_digest", "environment"]

_SIZE = 8
"""Bytes of a digest: with a thousand versions, two are the same by chance once in 10^13 runs."""

_MOST_PARTS = 20_000
"""Parts that are looked at: some tenths of a second. What comes after them is left out."""

_SAMPLE_BYTES = 1 << 20
"""Larger arrays count by a sample of that size."""

_OWN_PACKAGE = "blockflow"

_CLASS_EXTRAS = frozenset(
    {
        "__abstractmethods__",
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__orig_bases__",
        "__parameters__",
        "__qualname__",
        "__static_attributes__",
        "__type_params__",
        "__weakref__",
        "_abc_impl",
        "_cloudpickle_submodules",
    }
)
"""What Python adds to classes, and says nothing about what they do."""

_ATOMS = (bool, int, float, complex, str, range, slice)

_DESCRIPTORS = (GetSetDescriptorType, MemberDescriptorType)


def code_digest(*parts: Any) -> str:
    """Return a digest of functions, and of all that they call, as 16 hexadecimal digits.

    >>> from functools import partial
    >>> code_digest(partial(pow, 2)) == code_digest(partial(pow, 2))
    True
    >>> code_digest(partial(pow, 2)) == code_digest(partial(pow, 3))
    False

    Args:
        parts: Functions or other callables; None stands for one that is not given.
    """
    return _Walk().of(parts).hex()


def environment() -> str:
    """Return the versions of Python and of the libraries that most results depend on, in words."""
    versions = [f"python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"]
    for name in ("numpy", "zarr"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            versions.append(f"{name} {version}")
    return ", ".join(versions)[:255]


class _Walk:
    """One walk through objects that may refer to one another in circles."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, bytes]] = {}
        """By id: objects that are done, which have to live as long as their ids are used, and their digests."""
        self._open: dict[int, int] = {}
        """By id: objects that are under way, and how deep they are."""
        self._parts = 0

    def of(self, value: Any) -> bytes:
        """Return the digest of any value."""
        atom = _atom(value)
        if atom is not None:
            return atom
        key = id(value)
        if key in self._known:
            return self._known[key][1]
        if key in self._open:
            return _hash(b"again", str(len(self._open) - self._open[key]).encode())
        self._parts += 1
        if self._parts > _MOST_PARTS or len(self._open) > sys.getrecursionlimit() // 20:
            return _hash(b"more")
        self._open[key] = len(self._open)
        try:
            digest = self._compound(value)
        except Exception:  # an object that cannot be looked at, as user code may be
            digest = _hash(b"object", _name_of(type(value)))
        finally:
            del self._open[key]
        self._known[key] = value, digest
        return digest

    def _compound(self, value: Any) -> bytes:
        if isinstance(value, tuple | list):
            name = b"tuple" if isinstance(value, tuple) else b"list"
            return _hash(name, *(self.of(part) for part in value))
        if isinstance(value, dict):
            return _hash(b"dict", *sorted(self.of(key) + self.of(part) for key, part in value.items()))
        if isinstance(value, set | frozenset):
            return _hash(b"set", *sorted(_Walk().of(part) for part in value))
        if isinstance(value, functools.partial):
            return _hash(b"partial", self.of(value.func), self.of(value.args), self.of(value.keywords))
        if isinstance(value, MethodType):
            return _hash(b"method", self.of(value.__func__), self.of(value.__self__))
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, CodeType):
            return self._code(value)
        if isinstance(value, ModuleType):
            return _hash(b"module", value.__name__.encode())
        if isinstance(value, type):
            return self._class(value)
        return self._object(value)

    # ------------------------------------------------------------------------------------------------- functions

    def _function(self, function: FunctionType) -> bytes:
        if _is_ours(function.__module__):
            return _OURS
        if not _is_users(function.__module__) and len(self._open) > _CALLED_DEPTH:
            return _hash(b"function", f"{function.__module__}.{function.__qualname__}".encode())
        code = function.__code__
        cells = [self._cell(cell) for cell in function.__closure__ or ()]
        return _hash(
            b"function",
            self.of(code),
            self.of(function.__defaults__),
            self.of(function.__kwdefaults__),
            *cells,
            *self._globals(code, function.__globals__),
        )

    def _cell(self, cell: Any) -> bytes:
        try:
            return self.of(cell.cell_contents)
        except ValueError:
            return _hash(b"empty")

    def _code(self, code: CodeType) -> bytes:
        """The instructions; constants and names by value, as their places in tables depend on docstrings."""
        steps = []
        for step in dis.get_instructions(code):
            if step.opname == "EXTENDED_ARG":
                continue
            if step.opcode in dis.hasconst:
                steps.append(_hash(step.opname.encode(), self.of(step.argval)))
            elif step.opcode in dis.hasname:
                steps.append(_hash(step.opname.encode(), str(step.argval).encode()))
            else:
                steps.append(f"{step.opname} {step.arg}".encode())
        arguments = code.co_argcount + code.co_kwonlyargcount
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS)
        return _hash(
            b"code",
            repr((shape, code.co_varnames[:arguments])).encode(),
            getattr(code, "co_exceptiontable", b""),
            *steps,
        )

    def _globals(self, code: CodeType, values: dict[str, Any]) -> list[bytes]:
        """What a code, and the codes inside it, take from the globals of their module, and import."""
        found: set[str] = set()
        names: set[str] = set()
        imported: set[str] = set()
        _names_of(code, found, names, imported)
        digests = []
        for name in sorted(found & values.keys()):
            value = values[name]
            digests.append(_hash(b"global", name.encode(), self.of(value)))
            if isinstance(value, ModuleType) and _is_users(value.__name__):
                called = sorted(names & vars(value).keys())
                digests += [_hash(b"of", each.encode(), self.of(vars(value)[each])) for each in called]
        for name in sorted(imported):
            digests.append(_hash(b"import", name.encode(), _module_digest(name)))
        return digests

    # --------------------------------------------------------------------------------------- classes and objects

    def _class(self, kind: type) -> bytes:
        if not _is_users(kind.__module__):
            return _hash(b"class", _name_of(kind))
        if issubclass(kind, Enum):
            return _hash(b"enum", *(_hash(each.name.encode(), self.of(each.value)) for each in kind))
        inside = [
            _hash(name.encode(), self._attribute(value))
            for name, value in sorted(vars(kind).items())
            if name not in _CLASS_EXTRAS and not isinstance(value, _DESCRIPTORS)
        ]
        return _hash(b"class", *(self.of(base) for base in kind.__bases__), *inside)

    def _attribute(self, value: Any) -> bytes:
        """An attribute of a class."""
        if isinstance(value, property):
            return _hash(b"property", self.of(value.fget), self.of(value.fset), self.of(value.fdel))
        for name in ("__func__", "__wrapped__", "func", "fget"):
            inner = getattr(value, name, None)
            if isinstance(inner, FunctionType):
                return _hash(type(value).__name__.encode(), self.of(inner))
        return self.of(value)

    def _object(self, value: Any) -> bytes:
        kind = type(value)
        said = getattr(kind, "__blockflow_code__", None)
        if said is not None:
            return _hash(b"says", self.of(said(value)))
        if _is_ours(kind.__module__):
            return _OURS
        for name in ("__wrapped__", "py_func", "pyfunc"):  # as of functools.lru_cache, numba and numpy.vectorize
            inner = getattr(value, name, None)
            if isinstance(inner, FunctionType):
                return _hash(b"wraps", _name_of(kind), self.of(inner))
        if hasattr(kind, "__array_interface__") or hasattr(kind, "__array__"):
            array = _array_digest(value)
            if array is not None:
                return array
        if isinstance(value, Enum):
            return _hash(b"member", self.of(kind), value.name.encode())
        if isinstance(value, BuiltinFunctionType):
            return _hash(b"builtin", f"{value.__module__}.{value.__qualname__}".encode())
        if isinstance(value, os.PathLike):
            return _hash(b"path", os.fsencode(value))
        state = _state_of(value)
        if _is_users(kind.__module__):
            return _hash(b"instance", self.of(kind), self.of(state))
        plain = {name: part for name, part in state.items() if not name.startswith("_") and _is_plain(part)}
        shown = repr(value).encode() if kind.__module__ in _SHOWN_MODULES else b""
        return _hash(b"instance", _name_of(kind), shown, self.of(plain))


_CALLED_DEPTH = 2
"""What is called itself counts, wherever it is defined: the arguments of :func:`code_digest` stand that deep."""

_FLAGS = 0x0F | 0x20 | 0x80 | 0x100 | 0x200
"""Variable arguments, and whether calling it makes a generator or a coroutine; others depend on Python's version."""

_SHOWN_MODULES = frozenset({"datetime", "decimal", "fractions", "re", "uuid", "builtins", "numpy", "funlib.geometry"})
"""Modules of values that show all that they are."""


def _names_of(code: CodeType, found: set[str], names: set[str], imported: set[str]) -> None:
    """Collect the globals, all names and the imports of a code and the codes inside it."""
    names.update(code.co_names)
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found.add(step.argval)
        elif step.opname == "IMPORT_NAME":
            imported.add(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _names_of(constant, found, names, imported)


def _atom(value: Any) -> bytes | None:
    """Digest of a value that refers to no others; None if it may."""
    kind = type(value)
    if value is None or kind in _ATOMS or value is Ellipsis or value is NotImplemented:
        return _hash(kind.__name__.encode(), repr(value).encode(errors="backslashreplace"))
    if kind in (bytes, bytearray):
        return _hash(kind.__name__.encode(), bytes(value))
    return None


def _is_plain(value: Any, depth: int = 3) -> bool:
    """Whether a value is data that has no life of its own."""
    if isinstance(value, list | tuple | set | frozenset | dict):
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)
        return depth > 0 and all(_is_plain(part, depth - 1) for part in parts)
    kind = type(value)
    return kind in (bool, int, float, complex, str, bytes, type(None)) or kind.__module__ == "numpy"


def _state_of(value: Any) -> dict[str, Any]:
    """The attributes of an object."""
    state = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with suppress(AttributeError):
                state[name] = getattr(value, name)
    return state


def _array_digest(value: Any) -> bytes | None:
    """Digest of an array in memory; None if it is none."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic):
        return None
    if value.dtype.hasobject:
        return _hash(b"array", str(value.dtype).encode(), str(value.shape).encode())
    sample = value.ravel()
    if sample.nbytes > _SAMPLE_BYTES:
        sample = sample[:: -(-sample.nbytes // _SAMPLE_BYTES)]
    return _hash(b"array", str(value.dtype).encode(), str(value.shape).encode(), sample.tobytes())


# ------------------------------------------------------------------------------------------------------------ modules


def _is_ours(module: str | None) -> bool:
    """Whether a module is blockflow's: what it does with a function is not the user's code."""
    return module is not None and module.partition(".")[0] == _OWN_PACKAGE


def _is_users(module: str | None) -> bool:
    """Whether a module is the user's own: neither Python's, nor blockflow's, nor of an installed package."""
    if module is None or module in ("__main__", "__mp_main__"):
        return True
    top = module.partition(".")[0]
    if top == _OWN_PACKAGE or top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return False
    found = sys.modules.get(module)
    if found is None:
        return True  # made by hand, as by unpickling
    return _is_users_file(getattr(found, "__file__", None))


def _is_users_file(file: str | None) -> bool:
    if file is None:
        return True
    real = os.path.realpath(file)
    parts = real.split(os.sep)
    return "site-packages" not in parts and "dist-packages" not in parts and not _in_library(real)


def _in_library(file: str) -> bool:
    library = {os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib")}
    return file.startswith(tuple(library))


def _module_digest(name: str) -> bytes:
    """Digest of the source of a module that is imported when a function runs, and of the user's modules it imports."""
    return _hash(b"modules", *(digest for _, digest in sorted(_sources(name, {}).items())))


def _sources(name: str, known: dict[str, bytes]) -> dict[str, bytes]:
    file = _users_source(name)
    if file is None or file in known or len(known) > _MOST_MODULES:
        return known
    known[file] = b""
    try:
        with open(file, "rb") as opened:
            tree = ast.parse(opened.read())
    except (OSError, SyntaxError, ValueError):
        return known
    known[file] = _hash(ast.dump(_Bare().visit(tree)).encode(errors="backslashreplace"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                _sources(alias.name, known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            _sources(node.module, known)
    return known


_MOST_MODULES = 200


class _Bare(ast.NodeTransformer):
    """Takes out docstrings and annotations."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Take out the docstring of a module, class or function."""
        super().generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(node, ast.Module | ast.ClassDef | _DEFS):
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                del body[0]
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None and not isinstance(node, ast.AnnAssign):
                setattr(node, name, None)
        return node


_DEFS = ast.FunctionDef | ast.AsyncFunctionDef


def _users_source(name: str) -> str | None:
    """The source file of a module of the user's; None for others. Nothing is imported to find it."""
    if not name or name.partition(".")[0] in (_OWN_PACKAGE, *sys.builtin_module_names, *sys.stdlib_module_names):
        return None
    path, found = None, None
    for depth, _ in enumerate(parts := name.split("."), 1):
        with suppress(Exception):
            found = PathFinder.find_spec(".".join(parts[:depth]), path)
        if found is None:
            return None
        path = found.submodule_search_locations
    origin = None if found is None else found.origin
    return origin if origin and origin.endswith(".py") and _is_users_file(origin) else None


def _name_of(kind: type) -> bytes:
    return f"{kind.__module__}.{kind.__qualname__}".encode()


def _hash(*parts: bytes) -> bytes:
    digest = blake2b(digest_size=_SIZE)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


_OURS = _hash(_OWN_PACKAGE.encode())
