"""Which changes of user code are seen, and which make no difference?"""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import pytest

from blockflow.ledger.code_digest import code_digest, environment

if TYPE_CHECKING:
    from pathlib import Path


def function_of(source: str, name: str = "f") -> Any:
    """A function of a script."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(textwrap.dedent(source), f"<{abs(hash(source))}>", "exec"), space)
    return space[name]


SAME = {
    "comments and lines": ("def f(b): return b + 1", "\n\n# more\ndef f(b):\n    # why\n    return b + 1"),
    "a docstring": ("def f(b): return b + 1", "def f(b):\n    'Says.'\n    return b + 1"),
    "another docstring": ("def f(b):\n    'A.'\n    return b + 1", "def f(b):\n    'B.'\n    return b + 1"),
    "annotations": ("def f(b): return b + 1", "def f(b: int) -> int: return b + 1"),
    "names of variables": ("def f(b):\n    x = b\n    return x", "def f(b):\n    y = b\n    return y"),
    "another name": ("def f(b): return b", "def g(b): return b\nf = g"),
    "what is not used": ("def f(b): return b", "K = 3\ndef h(): pass\ndef f(b): return b"),
    "order of definitions": ("K = 1\nL = 2\ndef f(b): return K + L", "L = 2\nK = 1\ndef f(b): return K + L"),
    "order of a set": ("def f(b): return b in {'a', 'b', 'c'}", "def f(b): return b in {'c', 'b', 'a'}"),
    "order of a dict": ("D = {'a': 1, 'b': 2}\ndef f(b): return D[b]", "D = {'b': 2, 'a': 1}\ndef f(b): return D[b]"),
    "docstring of a helper": (
        "def h(b): return b\ndef f(b): return h(b)",
        "def h(b):\n    'A.'\n    return b\ndef f(b): return h(b)",
    ),
}

OTHER = {
    "a constant": ("def f(b): return b + 1", "def f(b): return b + 2"),
    "the kind of a constant": ("def f(b): return b + 1", "def f(b): return b + 1.0"),
    "true and one": ("def f(b): return True", "def f(b): return 1"),
    "zeros": ("def f(b): return 0.0", "def f(b): return -0.0"),
    "an operator": ("def f(b): return b + 1", "def f(b): return b - 1"),
    "an attribute": ("def f(b): return b.min()", "def f(b): return b.max()"),
    "a default": ("def f(b, k=1): return b + k", "def f(b, k=2): return b + k"),
    "a keyword's default": ("def f(b, *, k=1): return b + k", "def f(b, *, k=2): return b + k"),
    "a global": ("K = 1\ndef f(b): return b + K", "K = 2\ndef f(b): return b + K"),
    "a helper": ("def h(b): return b\ndef f(b): return h(b)", "def h(b): return -b\ndef f(b): return h(b)"),
    "a helper of a helper": (
        "def i(b): return b\ndef h(b): return i(b)\ndef f(b): return h(b)",
        "def i(b): return -b\ndef h(b): return i(b)\ndef f(b): return h(b)",
    ),
    "an inner function": (
        "def f(b):\n    def g(): return 1\n    return g()",
        "def f(b):\n    def g(): return 2\n    return g()",
    ),
    "a global of an inner function": (
        "K = 1\ndef f(b):\n    return [x + K for x in b]",
        "K = 2\ndef f(b):\n    return [x + K for x in b]",
    ),
    "a closure": (
        "def m(k):\n    return lambda b: b + k\nf = m(1)",
        "def m(k):\n    return lambda b: b + k\nf = m(2)",
    ),
    "a partial's argument": (
        "import functools\nf = functools.partial(lambda k, b: b + k, 1)",
        "import functools\nf = functools.partial(lambda k, b: b + k, 2)",
    ),
    "a partial's keyword": (
        "import functools\nf = functools.partial(lambda b, k: b + k, k=1)",
        "import functools\nf = functools.partial(lambda b, k: b + k, k=2)",
    ),
    "a method of an object": (
        "class C:\n    def __call__(self, b): return b\nf = C()",
        "class C:\n    def __call__(self, b): return -b\nf = C()",
    ),
    "an attribute of an object": (
        "class C:\n    def __init__(self, k): self.k = k\n    def __call__(self, b): return self.k\nf = C(1)",
        "class C:\n    def __init__(self, k): self.k = k\n    def __call__(self, b): return self.k\nf = C(2)",
    ),
    "a slot of an object": (
        "class C:\n    __slots__ = ('k',)\n    def __call__(self, b): return self.k\nf = C()\nf.k = 1",
        "class C:\n    __slots__ = ('k',)\n    def __call__(self, b): return self.k\nf = C()\nf.k = 2",
    ),
    "a bound method's object": (
        "class C:\n    def __init__(self, k): self.k = k\n    def run(self, b): return self.k\nf = C(1).run",
        "class C:\n    def __init__(self, k): self.k = k\n    def run(self, b): return self.k\nf = C(2).run",
    ),
    "a base class": (
        "class A:\n    def go(self): return 1\nclass C(A):\n    def __call__(self, b): return self.go()\nf = C()",
        "class A:\n    def go(self): return 2\nclass C(A):\n    def __call__(self, b): return self.go()\nf = C()",
    ),
    "a property": (
        "class C:\n    @property\n    def k(self): return 1\n    def __call__(self, b): return self.k\nf = C()",
        "class C:\n    @property\n    def k(self): return 2\n    def __call__(self, b): return self.k\nf = C()",
    ),
    "a static method": (
        "class C:\n    @staticmethod\n    def k(): return 1\ndef f(b): return C.k()",
        "class C:\n    @staticmethod\n    def k(): return 2\ndef f(b): return C.k()",
    ),
    "what is decorated": (
        "import functools\n@functools.lru_cache\ndef h(b): return 1\ndef f(b): return h(b)",
        "import functools\n@functools.lru_cache\ndef h(b): return 2\ndef f(b): return h(b)",
    ),
    "an enum": (
        "import enum\nclass E(enum.Enum):\n    A = 1\ndef f(b): return E.A",
        "import enum\nclass E(enum.Enum):\n    A = 2\ndef f(b): return E.A",
    ),
    "a dataclass's default": (
        "import dataclasses\n@dataclasses.dataclass\nclass D:\n    k: int = 1\ndef f(b): return D()",
        "import dataclasses\n@dataclasses.dataclass\nclass D:\n    k: int = 2\ndef f(b): return D()",
    ),
    "a set": ("def f(b): return b in {1, 2}", "def f(b): return b in {1, 3}"),
    "an exception that is caught": (
        "def f(b):\n    try: return b()\n    except ValueError: return 1",
        "def f(b):\n    try: return b()\n    except TypeError: return 1",
    ),
    "a function in a dict": (
        "D = {'a': lambda b: 1}\ndef f(b): return D['a'](b)",
        "D = {'a': lambda b: 2}\ndef f(b): return D['a'](b)",
    ),
    "an array": (
        "import numpy\nA = numpy.array([1, 2])\ndef f(b): return A",
        "import numpy\nA = numpy.array([1, 3])\ndef f(b): return A",
    ),
    "a path": (
        "import pathlib\nP = pathlib.Path('a')\ndef f(b): return P",
        "import pathlib\nP = pathlib.Path('b')\ndef f(b): return P",
    ),
    "a pattern": (
        "import re\nP = re.compile('a')\ndef f(b): return P",
        "import re\nP = re.compile('b')\ndef f(b): return P",
    ),
    "what is imported": (
        "def f(b):\n    import json\n    return json",
        "def f(b):\n    import pickle\n    return pickle",
    ),
    "a generator": ("def f(b): return 1", "def f(b): yield 1"),
    "names of arguments": ("def f(b, k=1): return b", "def f(b, m=1): return b"),
}


@pytest.mark.parametrize("name", SAME)
def test_what_changes_nothing_is_not_seen(name: str) -> None:
    before, after = SAME[name]
    assert code_digest(function_of(before)) == code_digest(function_of(after))


@pytest.mark.parametrize("name", OTHER)
def test_a_change_is_seen(name: str) -> None:
    before, after = OTHER[name]
    assert code_digest(function_of(before)) != code_digest(function_of(after))


ALL = sorted({source for pair in [*SAME.values(), *OTHER.values()] for source in pair})


def test_pickling_changes_nothing() -> None:
    for source in ALL:
        function = function_of(source)
        if "lru_cache" in source:
            continue  # its wrapper cannot be pickled by value
        assert code_digest(pickle.loads(cloudpickle.dumps(function))) == code_digest(function), source


def test_another_process_comes_to_the_same(tmp_path: Path) -> None:
    (tmp_path / "sources").write_bytes(pickle.dumps(ALL))
    script = tmp_path / "script.py"
    script.write_text(
        "import pickle, pathlib\n"
        "from blockflow.ledger.code_digest import code_digest\n"
        "for number, source in enumerate(pickle.loads(pathlib.Path('sources').read_bytes())):\n"
        "    space = {'__name__': '__main__'}\n"
        "    exec(compile(source, str(number), 'exec'), space)\n"
        "    print(code_digest(space['f']))\n"
    )
    said = [
        subprocess.run(
            [sys.executable, script],
            cwd=tmp_path,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] == [code_digest(function_of(source)) for source in ALL]


# ---------------------------------------------------------------------------------------------------------- modules


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module of the user's, and gives a function of a script that uses it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(text: str, script: str) -> Any:
        for name in ("helpers_of_mine", "deeper_of_mine"):
            sys.modules.pop(name, None)
        (tmp_path / "helpers_of_mine.py").write_text(text)
        (tmp_path / "deeper_of_mine.py").write_text("def deep(): return 1\n")
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return code_digest(function_of(script))
        finally:
            sys.dont_write_bytecode = before

    yield make
    for name in ("helpers_of_mine", "deeper_of_mine"):
        sys.modules.pop(name, None)


SCRIPTS = {
    "a module": "import helpers_of_mine\ndef f(b): return helpers_of_mine.smooth(b)",
    "a name": "from helpers_of_mine import smooth\ndef f(b): return smooth(b)",
    "inside": "def f(b):\n    from helpers_of_mine import smooth\n    return smooth(b)",
    "a module inside": "def f(b):\n    import helpers_of_mine\n    return helpers_of_mine.smooth(b)",
    "as another name": "import helpers_of_mine as h\ndef f(b): return h.smooth(b)",
}


@pytest.mark.parametrize("way", SCRIPTS)
def test_modules_of_the_user_are_looked_into(own: Any, way: str) -> None:
    first = own("K = 1\ndef smooth(b): return b + K\n", SCRIPTS[way])
    assert own("# same\nK = 1\ndef smooth(b):\n    'Doc.'\n    return b + K\n", SCRIPTS[way]) == first
    assert own("K = 1\ndef smooth(b): return b - K\n", SCRIPTS[way]) != first
    assert own("K = 2\ndef smooth(b): return b + K\n", SCRIPTS[way]) != first


def test_other_functions_of_a_module_do_not_matter(own: Any) -> None:
    first = own("def smooth(b): return b\ndef other(): return 1\n", SCRIPTS["a module"])
    assert own("def smooth(b): return b\ndef other(): return 2\n", SCRIPTS["a module"]) == first


def test_a_function_that_imports_is_the_same_whether_its_module_is_loaded(own: Any) -> None:
    first = own("def smooth(b): return b\n", SCRIPTS["inside"])
    importlib.import_module("helpers_of_mine")
    assert code_digest(function_of(SCRIPTS["inside"])) == first


# ------------------------------------------------------------------------------------------------------ odd things


def test_objects_of_libraries_count_by_their_public_data() -> None:
    import fractions
    import logging

    logger = logging.getLogger("of a test")
    before = code_digest(logger)
    logger.isEnabledFor(logging.INFO)
    assert code_digest(logger) == before, "a cache of its own"
    assert code_digest(fractions.Fraction(1, 2)) != code_digest(fractions.Fraction(1, 3))
    assert code_digest(np.sum) != code_digest(np.min)
    assert code_digest(np.dtype("u1")) != code_digest(np.dtype("u2"))
    assert code_digest(np.vectorize(lambda b: b)) != code_digest(np.vectorize(lambda b: -b))


def test_large_arrays_are_sampled() -> None:
    assert code_digest(np.zeros(10**7)) == code_digest(np.zeros(10**7))
    assert code_digest(np.zeros(10**7)) != code_digest(np.ones(10**7))
    assert code_digest(np.zeros(4, dtype=object)) == code_digest(np.zeros(4, dtype=object))


def test_circles_and_depths_come_to_an_end() -> None:
    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    ring: list[Any] = [1]
    ring.append(ring)
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    assert len({code_digest(each) for each in (even, ring, deep, list(map(str, range(50_000))))}) == 4


class Hostile:
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError


class Says:
    def __init__(self, code: Any, cache: Any) -> None:
        self.code, self.cache = code, cache

    def __blockflow_code__(self) -> Any:
        return self.code


def test_objects_may_say_what_of_them_is_code() -> None:
    assert code_digest(Says(1, cache=1)) == code_digest(Says(1, cache=2)) != code_digest(Says(2, cache=1))


def test_what_cannot_be_looked_at_counts_by_its_class() -> None:
    assert code_digest(Hostile()) == code_digest(Hostile())
    assert code_digest(functools.partial(id, Hostile())) != code_digest(id)


def test_the_environment_is_told() -> None:
    assert environment().startswith(f"python {sys.version_info.major}.{sys.version_info.minor}.")
    assert f"numpy {np.__version__}" in environment()
