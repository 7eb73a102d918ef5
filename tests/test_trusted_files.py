"""Files of a run: what another user can have made or changed is refused by name, and left alone."""

from __future__ import annotations

import ast
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blockflow import trusted_files
from blockflow.errors import UntrustedFileError
from blockflow.trusted_files import (
    PRIVATE,
    READABLE,
    appended,
    folder_of,
    open_folder,
    path_of_descriptor,
    read_file,
    remove_file,
)
from tests.strangers import STRANGER, needs_two_accounts, open_to_all, stranger_does

if TYPE_CHECKING:
    from collections.abc import Iterator


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def no_umask() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_what_is_made_is_never_writable_by_others(tmp_path: Path) -> None:
    open_folder(tmp_path / "a" / "logs", make=READABLE).close()
    open_folder(tmp_path / "b" / "runs", make=PRIVATE, private=True).close()
    with open_folder(tmp_path / "a" / "logs") as folder:
        os.close(folder.open("log", os.O_WRONLY | os.O_CREAT, 0o666))
        folder.write("note", b"")
        folder.folder("task", make=READABLE).close()
    with appended(tmp_path / "a" / "logs" / "more") as file:
        file.write(b"1")
    made = {path.relative_to(tmp_path).as_posix(): mode(path) for path in tmp_path.rglob("*")}
    assert made == {
        "a": 0o755,
        "a/logs": 0o755,
        "a/logs/log": 0o644,
        "a/logs/more": 0o644,
        "a/logs/note": 0o600,
        "a/logs/task": 0o755,
        "b": 0o700,
        "b/runs": 0o700,
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.write("note", b"a long text", sync=True)
        folder.write("note", b"short")
        assert folder.read("note") == b"short"
        assert folder.read("note", 2) == b"sh"
        assert folder.names() == ["note"]
        folder.rename("note", "other")
        status = folder.status("other")
        assert status is not None
        assert (folder.status("note"), status.st_size) == (None, 5)
        folder.remove("other")
        folder.remove("other")
        assert folder.names() == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd"])
def test_a_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    with open_folder(tmp_path) as folder:
        for use in (folder.read, folder.remove, folder.status, lambda name: folder.rename(name, "x")):
            with pytest.raises(ValueError, match="a name of a file in a folder was expected"):
                use(name)


def test_a_relative_path_begins_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with appended("note") as file:
        file.write(b"x")
    assert read_file("note") == b"x"
    (tmp_path / "a").mkdir()
    monkeypatch.chdir("a")
    assert read_file("../note") == b"x"
    remove_file("../note")
    remove_file("../note")
    remove_file("none/such")
    assert not (tmp_path / "note").exists()


def test_no_draft_is_left_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with open_folder(tmp_path) as folder, pytest.raises(OSError, match="directory"):
        folder.write("taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_open_file_of_this_process_is_read_by_its_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "note"
    path.write_bytes(b"text")
    path.chmod(0o600)
    with path.open("rb") as file:
        assert read_file(path_of_descriptor(file.fileno()), private=True) == b"text"
        path.chmod(0o644)
        with pytest.raises(UntrustedFileError, match="can be read by others"):
            read_file(path_of_descriptor(file.fileno()), private=True)


# ------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("bits", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(tmp_path: Path, bits: int) -> None:
    (tmp_path / "note").touch()
    (tmp_path / "note").chmod(bits)
    with pytest.raises(UntrustedFileError, match=rf"note' can be written by others \(mode {bits:04o}\).*chmod go-w"):
        read_file(tmp_path / "note")


@pytest.mark.parametrize("target", ["there", "missing"])
def test_a_file_is_never_opened_through_a_link(tmp_path: Path, target: str) -> None:
    (tmp_path / "there").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / target)
    with open_folder(tmp_path) as folder:
        for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_APPEND):
            with pytest.raises(UntrustedFileError, match=r"link' is a link.*remove it"):
                folder.open("link", flags)
    assert (tmp_path / "there").read_bytes() == b"mine"
    assert not (tmp_path / "missing").exists()


def test_a_file_of_which_a_backup_has_another_name_is_written(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"mine")
    os.link(tmp_path / "log", tmp_path / "backup")
    with open_folder(tmp_path) as folder:
        os.close(folder.open("log", os.O_WRONLY | os.O_APPEND))


def test_a_file_with_another_name_is_not_written_where_others_can_make_names(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    os.link(tmp_path / "mine", tmp_path / "log")
    tmp_path.chmod(0o1777)
    with open_folder(tmp_path) as folder:
        with pytest.raises(UntrustedFileError, match="has 2 names"):
            folder.open("log", os.O_WRONLY | os.O_TRUNC)
        assert folder.read("log") == b"mine"


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    with socket.socket(socket.AF_UNIX) as listening, open_folder(tmp_path) as folder:
        listening.bind(f"{path_of_descriptor(folder.descriptor)}/socket")
        (tmp_path / "folder").mkdir(mode=0o700)
        for name in ("fifo", "socket", "folder"):
            with pytest.raises(UntrustedFileError, match=f"{name}' is no regular file"):
                folder.open(name, os.O_RDONLY)
        with pytest.raises(UntrustedFileError, match="fifo' is no regular file"):
            folder.open("fifo", os.O_WRONLY | os.O_APPEND)


# ----------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("bits", [0o775, 0o757, 0o777, 0o2775])
def test_a_folder_that_others_can_write_is_refused_with_a_way_out(tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    os.chown(folder, -1, 54321)
    folder.chmod(bits)
    who = "everybody" if bits & 0o002 else "members of group 54321"
    with pytest.raises(
        UntrustedFileError, match=rf"logs' can be written by {who} \(mode {bits:04o}\).*`chmod go-w` it"
    ):
        open_folder(folder)
    assert mode(folder) == bits
    assert list(folder.iterdir()) == []


def test_a_sticky_folder_is_as_good_as_an_own_one(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with open_folder(tmp_path) as folder:
        folder.write("note", b"x")
        assert folder.read("note") == b"x"


def test_a_shared_folder_above_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """Folders of a lab can often be written by its group; what is ours in there is ours."""
    lab = open_to_all(tmp_path / "lab", 0o2777)
    with open_folder(lab / "mine" / "logs", make=READABLE) as folder:
        folder.write("note", b"x")
    assert read_file(lab / "mine" / "logs" / "note") == b"x"
    assert mode(lab) == 0o2777


@pytest.mark.parametrize("bits", [0o750, 0o705, 0o711, 0o1777])
def test_a_private_folder_is_for_its_user_alone(tmp_path: Path, bits: int) -> None:
    tmp_path.chmod(bits)
    with pytest.raises(UntrustedFileError, match=rf"can be read by others \(mode {bits:04o}\).*`chmod 700` it"):
        open_folder(tmp_path, private=True)
    assert mode(tmp_path) == bits


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        open_folder(tmp_path / "file", make=PRIVATE)
    with pytest.raises(FileNotFoundError):
        open_folder(tmp_path / "none")


def test_a_group_of_one_is_its_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many systems give every user a group, and let it write everything."""
    tmp_path.chmod(0o770)
    os.chown(tmp_path, -1, os.getegid())
    monkeypatch.setattr(trusted_files, "_is_own_group", lambda group: group == os.getegid())
    open_folder(tmp_path).close()
    os.chown(tmp_path, -1, 54321)
    with pytest.raises(UntrustedFileError, match="members of group 54321"):
        open_folder(tmp_path)


# ------------------------------------------------------------------------------------------------------------- links


def test_a_home_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "home").mkdir(parents=True)
    (tmp_path / "home").symlink_to("disk/home")
    (tmp_path / "far").symlink_to(tmp_path / "home")
    with open_folder(tmp_path / "far" / "logs", make=READABLE) as folder:
        folder.write("note", b"x")
    assert (tmp_path / "disk" / "home" / "logs" / "note").read_bytes() == b"x"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        open_folder(tmp_path / "a")


def test_a_link_to_nothing_is_not_filled(tmp_path: Path) -> None:
    (tmp_path / "logs").symlink_to(tmp_path / "none" / "such")
    with pytest.raises(FileNotFoundError):
        open_folder(tmp_path / "logs")


def test_an_own_link_in_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    lab = open_to_all(tmp_path / "lab")
    (tmp_path / "mine").mkdir()
    (lab / "mine").symlink_to(tmp_path / "mine")
    with pytest.raises(UntrustedFileError, match=r"lab/mine' is a link in a folder that others can write.*chmod \+t"):
        open_folder(lab / "mine")
    lab.chmod(0o1777)
    open_folder(lab / "mine").close()


def test_a_folder_of_a_run_holds_no_linked_folders(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / ".runs").symlink_to("other")
    with open_folder(tmp_path) as folder, pytest.raises(UntrustedFileError, match=r"\.runs' is a link"):
        folder.folder(".runs", make=PRIVATE)


# ------------------------------------------------------------------------------------------------------ other people


@needs_two_accounts
def test_what_another_user_made_is_refused_by_name_and_left_alone(tmp_path: Path) -> None:
    shared = open_to_all(tmp_path / "shared")
    (tmp_path / "diary").write_bytes(b"mine")
    stranger_does(
        """
        import os, sys
        os.umask(0)
        os.chdir(sys.argv[1])
        os.mkdir("logs", 0o777)
        open("note", "w").close()
        os.symlink(sys.argv[2], "link")
        os.symlink(os.path.dirname(sys.argv[2]), "home")
        """,
        shared,
        tmp_path / "diary",
    )
    theirs = f"belongs to user {STRANGER}, not to you"
    with pytest.raises(UntrustedFileError, match=f"logs' {theirs}"):
        open_folder(shared / "logs", make=READABLE)
    with pytest.raises(UntrustedFileError, match=f"home' is a link that {theirs}"):
        open_folder(shared / "home" / "logs", make=READABLE)
    shared.chmod(0o1777)
    with open_folder(shared) as folder:
        with pytest.raises(UntrustedFileError, match=f"note' {theirs}"):
            folder.open("note", os.O_WRONLY | os.O_TRUNC)
        with pytest.raises(UntrustedFileError, match="link' is a link"):
            folder.open("link", os.O_WRONLY | os.O_TRUNC)
    assert (tmp_path / "diary").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diary", "shared"]
    assert list((shared / "logs").iterdir()) == []


@needs_two_accounts
def test_a_folder_of_another_user_may_lie_above_an_own_one(tmp_path: Path) -> None:
    """As the folder of a group's head often does."""
    head = open_to_all(tmp_path / "head", 0o755)
    (head / "mine").mkdir()
    os.chown(head, STRANGER, STRANGER)
    folder, name = folder_of(head / "mine" / "note")
    with folder:
        folder.write(name, b"x")
    assert read_file(head / "mine" / "note") == b"x"


# ------------------------------------------------------------------------------------------------- nobody else does it

ROOT = Path(trusted_files.__file__).parent
FOREIGN = {"arrays", "demo", "ops", "recipes", "testing", "plan", "trusted_files.py", "scripts.py"}
"""What opens data and programs of users, not files of a run."""

DOES_IT = {"open", "read_bytes", "read_text", "write_bytes", "write_text", "mkdir", "makedirs", "chmod", "unlink"}
DOES_IT |= {"touch", "rename", "renames", "symlink_to", "hardlink_to", "rmdir", "rmtree", "mkstemp", "mknod", "fchmod"}

ALLOWED = {
    "freshness.py": {"os.open", "os.unlink"},  # opened and closed again, which makes caches look; nothing is read
    "launch/local.py": {"os.open"},  # /dev/null
    "ledger/code_digest.py": {"open"},  # sources of the user
    "ledger/disk.py": {"open"},  # of a descriptor that was checked
    "ledger/owner.py": {"self._disk.touch", "_PROCESSES / f'{pid}/stat'.read_text", "_BOOT_ID.read_text"},
    "ledger/snapshot.py": {"disk.rename"},
    "net/connection_file.py": {"os.fchmod"},  # a file in memory
    "net/server.py": {"self._stream.read_bytes"},
    "monitor/guarded.py": {"os.open"},  # /dev/null
    "mounts.py": {"open"},  # files of the kernel
    "place.py": {"open", "os.open"},  # the same, and /dev/null
    "worker.py": {"os.open"},  # /dev/null
}


def calls_of(tree: ast.AST) -> Iterator[str]:
    """What is called that could open or change a file, in words of the source."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "open":
            yield "open"
        elif isinstance(node.func, ast.Attribute) and node.func.attr in DOES_IT:
            how = [each.value for each in node.args[:1] if isinstance(each, ast.Constant)]
            is_path = bool(how) and set(str(how[0])) <= set("rwaxbt+")
            if node.func.attr == "open" and ast.unparse(node.func.value) != "os" and not is_path:
                continue  # of a folder, a disk, a link, a ledger
            yield f"{ast.unparse(node.func.value)}.{node.func.attr}"


def test_no_other_module_opens_files_of_a_run() -> None:
    trusted = {"folder.touch", "folder.rename"}
    for file in sorted(ROOT.rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        if name.partition("/")[0] in FOREIGN:
            continue
        found = set(calls_of(ast.parse(file.read_text()))) - ALLOWED.get(name, set()) - trusted
        assert not found, f"{name} opens or changes files by itself: {found}; use blockflow.trusted_files"
