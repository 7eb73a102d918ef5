"""Run a command with another Python, in a small Debian that has it.

    python3 -m tools.other_python {3.13,3.14} COMMAND [ARGUMENT ...]

The Debian is made by debootstrap under ``.pythons`` at the first time, and used again. The command runs in a copy of
the project in it (files that git knows or could add), with a clean environment, an empty home and the network and pip
index of this machine; virtual environments in that copy are kept. Mounts are private to the command, and gone with it.

Needs root, and apt with a Debian mirror. Exits with 77, and says why, where this machine cannot do that; with the
exit code of the command otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.pip_settings import pip_settings

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".pythons"
SKIPPED = 77
"""Exit code that says "skipped", as in Automake."""

RELEASES = {"3.13": "trixie", "3.14": "sid"}
"""Release of Debian by its Python."""

PACKAGES = "python3,python3-venv,make,ca-certificates"

_PREPARE = """
set -e
for place in proc sys dev; do mount --rbind "/$place" "$1/$place"; done
mkdir -p "$1/root/.cache/pip"
if [ -n "$2" ]; then mount --bind "$2" "$1/root/.cache/pip"; fi
directory=$1
shift 2
exec chroot "$directory" "$@"
"""
"""Shell script: mounts what a system needs into a directory, and runs a command in it."""


def main() -> None:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("python", choices=RELEASES)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("which command?")
    system = HOME / RELEASES[arguments.python]
    if not system.exists():
        make(system, arguments.python)
    copy_project(system / "root" / "blockflow")
    variables = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        **{name: os.environ[name] for name in ("CI", "HYPOTHESIS_PROFILE") if name in os.environ},
        **network(system),
    }
    inside = [
        *("/usr/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items())),
        *("/bin/sh", "-c", 'cd /root/blockflow && exec "$@"', "sh", *arguments.command),
    ]
    cache = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False)
    folder = cache.stdout.strip()
    kept = folder if Path(folder).is_dir() else ""
    private = ["unshare", "--mount", "--propagation", "private"]
    os.execvp(private[0], [*private, "/bin/sh", "-c", _PREPARE, "sh", str(system), kept, *inside])


def make(system: Path, python: str) -> None:
    """Make a small Debian.

    Args:
        system: Its root directory.
        python: The Python that it must have.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        skip("only root can make it, on Linux")
    if not shutil.which("apt-get"):
        skip("there is no apt, which knows a Debian mirror")
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True, check=False
    )
    mirrors = [site for site in targets.stdout.split() if site.rstrip("/").endswith("/debian")]
    if not mirrors:
        skip("apt is configured for no Debian mirror")
    if not shutil.which("debootstrap"):
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "debootstrap", "gpgv"]):
            subprocess.run(["apt-get", "-o", "DPkg::Lock::Timeout=120", *command], stdout=sys.stderr, check=False)
        if not shutil.which("debootstrap"):
            skip("apt cannot install debootstrap")
    sys.stderr.write(f"making {system}: Debian {system.name} with Python {python}\n")
    unfinished = system.with_name(f"{system.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", system.name, str(unfinished), mirrors[0]]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if made.returncode:
        sys.stderr.write("".join(made.stdout.splitlines(keepends=True)[-5:]))
        skip(f"debootstrap ended with code {made.returncode}")
    have = subprocess.run(
        ["chroot", unfinished, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    )
    if have.stdout.strip() != python:
        skip(f"Debian {system.name} has Python {have.stdout.strip() or have.stderr.strip()} by now")
    unfinished.rename(system)


def copy_project(target: Path) -> None:
    """Replace the copy of the project in a system; its virtual environments stay.

    Args:
        target: Where it is.
    """
    target.mkdir(exist_ok=True)
    for old in target.iterdir():
        if old.is_dir() and not old.is_symlink():
            if not old.name.startswith(".venv"):
                shutil.rmtree(old)
        else:
            old.unlink()
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0")
    for name in sorted(set(filter(None, names))):
        source, copy = ROOT / name, target / name
        if os.path.lexists(source):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def network(system: Path) -> dict[str, str]:
    """Give a system this machine's ways into the network.

    Args:
        system: Its root directory; addresses of name servers, and certificates, are copied into it.

    Returns:
        Variables for commands in it.
    """
    for name in ("etc/resolv.conf", "etc/hosts"):
        if Path("/", name).exists():
            shutil.copyfile(Path("/", name), system / name)
    settings = pip_settings()
    variables = {f"PIP_{key.upper().replace('-', '_')}": settings[key] for key in _OF_PIP if key in settings}
    variables |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    certificates = settings.get("cert") or os.environ.get("SSL_CERT_FILE")
    if certificates and Path(certificates).is_file():
        shutil.copyfile(certificates, system / "etc" / "ssl" / "of-this-machine.pem")
        variables |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE"), "/etc/ssl/of-this-machine.pem")
    return variables


_OF_PIP = ("index-url", "proxy", "timeout", "trusted-host")
"""Settings of pip that are also good elsewhere; folders of packages are not."""


def skip(reason: str) -> None:
    """End with the exit code that says "skipped".

    Args:
        reason: Why, as a clause.
    """
    sys.stderr.write(f"SKIPPED: no other Python on this machine: {reason}\n")
    sys.exit(SKIPPED)


if __name__ == "__main__":
    main()
