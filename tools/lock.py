"""Renew the exact versions in ``requirements/``, by uv.

    python3 -m tools.lock

- ``uv.txt`` pins uv itself, by the uv that was pinned before.
- ``locked.txt`` has the newest versions for all extras and developers' tools, for each Python from the oldest that
  pyproject.toml allows. Where the newest release of a library needs a newer Python, a marker chooses between two.
- ``oldest.txt`` has the lowest versions that pyproject.toml allows for what it names itself, and the newest of the
  rest.

All have hashes, and none names a package index: uv asks the index that pip is configured for. Further indexes
(``extra-index-url``) and folders of wheels are left out, as they may have some files of a release only, and so some
of its hashes. Needs Python's standard library alone, and pip's configuration.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tools.pip_settings import pip_settings

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "requirements"
OLDEST_PYTHON = "3.11"

_FROM_PIP = {
    "index-url": "UV_DEFAULT_INDEX",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
}
"""Settings of pip, and the variables by which uv takes them."""

_COMMON = ("--quiet", "--no-config", "--upgrade", "--generate-hashes", "--python-version", OLDEST_PYTHON)


def main() -> None:
    """Renew all files."""
    settings = uv_settings(pip_settings())
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder, "bin", "python"))
        call([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", f"{FOLDER}/uv.txt"], {})
        compile_ = [
            str(Path(folder, "bin", "uv")),
            "pip",
            "compile",
            *_COMMON,
            "--custom-compile-command",
            "make update",
        ]
        everything = ["pyproject.toml", "--all-extras"]
        lowest = ["--resolution", "lowest-direct"]
        call([*compile_, "--universal", *everything, "--group", "dev", "-o", f"{FOLDER}/locked.txt"], settings)
        call([*compile_, *lowest, *everything, "--group", "test", "-o", f"{FOLDER}/oldest.txt"], settings)
        call([*compile_, "--universal", f"{FOLDER}/uv.in", "-o", f"{FOLDER}/uv.txt"], settings)


def uv_settings(pip: dict[str, str]) -> dict[str, str]:
    """Return variables by which uv does as pip does; those that are set already stay.

    >>> uv_settings({"timeout": "60", "no-cache-dir": "true"}) if "UV_HTTP_TIMEOUT" not in os.environ else {}
    {'UV_HTTP_TIMEOUT': '60'}
    """
    return {name: pip[key] for key, name in _FROM_PIP.items() if key in pip and name not in os.environ}


def call(command: list[str], settings: dict[str, str]) -> None:
    """Run a command at the root of the project; end with a message if it fails."""
    code = subprocess.run(command, cwd=ROOT, env=os.environ | settings, check=False).returncode
    if code:
        sys.exit(f"this command ended with code {code}: {' '.join(command)}")


if __name__ == "__main__":
    main()
