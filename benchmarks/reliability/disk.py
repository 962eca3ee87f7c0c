"""
A disk that loses what was not synced: the system calls of a real process, replayed up to a power cut.

`strace` records what the process asked of the kernel. Of a file, what was written since its last fsync stays or goes sector
by sector (512 B); of a folder, names made, moved or removed since its last fsync stay or go. This is more than a journaling
file system loses: there, names keep their order, and syncing a file keeps its name.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
CALLS = (
    "open,openat,creat,close,write,pwrite64,writev,pwritev,fsync,fdatasync,sync_file_range,ftruncate,truncate,fallocate,rename,"
    "renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,sendfile,copy_file_range,dup,dup2,dup3,"
    "lseek,fcntl,clone,clone3,fork,vfork,execve,sendto"
)
FORKS = ("clone", "clone3", "fork", "vfork")
_CALL = re.compile(r"^(\d+)\s+(\w+)\((.*)\)\s+=\s+(-?\d+|\?)")
_UNFINISHED = re.compile(r"^(\d+)\s+(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)\)\s+=\s+(-?\d+|\?)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
Op = tuple[object, ...]


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Offset and bytes, or a new size and None."""
    size: int = 0


@dataclass
class _Folder:
    durable: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[str, int | None]] = field(default_factory=list)
    live: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """How one power cut went."""

    at: int
    """Operations before it."""
    keep: float
    """Chance of each unsynced sector to be on the disk."""
    names: str
    """"ordered": of unsynced names a first part stays; "any": each stays or goes by itself."""
    garbage: bool
    """Whether holes hold what lay there before, not zeros."""


class Disk:
    """
    What is on the disk after each operation of a recording.

    Args:
        ops: see `record`.
    """

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops, self.at = ops, 0
        self.said: list[str] = []
        """What the process had acknowledged by now."""
        self._nodes: dict[int, _File | _Folder] = {0: _Folder()}

    def advance(self, to: int) -> None:
        """Go on to just after operation `to`."""
        for op in self.ops[self.at : to]:
            getattr(self, f"_{op[0]}")(*op[1:])
        self.at = max(self.at, to)

    def cut(self, rng: random.Random, into: Path) -> Cut:
        """Write what a power cut at this moment leaves."""
        how = Cut(
            at=self.at, keep=rng.choice((0.0, 0.1, 0.5, 0.9, 1.0)), names=rng.choice(("ordered", "any")), garbage=rng.random() < 0.3
        )
        self._write(0, into, how, rng)
        return how

    def whole(self, into: Path) -> None:
        """Write everything, as if all of it had been synced."""
        self._write(0, into, Cut(at=self.at, keep=1.0, names="all", garbage=False), random.Random(0))

    def _write(self, number: int, into: Path, how: Cut, rng: random.Random) -> None:
        node = self._nodes[number]
        if isinstance(node, _File):
            into.write_bytes(_after(node, how, rng))
            return
        into.mkdir(exist_ok=True)
        for name, inner in sorted(_names(node, how, rng).items()):
            self._write(inner, into / name, how, rng)

    def _say(self, text: str) -> None:
        self.said.append(text)

    def _make(self, folder: int, name: str, number: int, kind: str) -> None:
        self._nodes[number] = _File() if kind == "file" else _Folder()
        self._name(folder, name, number)

    def _name(self, folder: int, name: str, number: int | None) -> None:
        node = self._nodes[folder]
        assert isinstance(node, _Folder)
        node.pending.append((name, number))

    def _put(self, number: int, offset: int, data: bytes | None) -> None:
        node = self._nodes[number]
        assert isinstance(node, _File)
        node.pending.append((offset, data))

    def _sync(self, number: int) -> None:
        node = self._nodes[number]
        if isinstance(node, _Folder):
            for name, inner in node.pending:
                _set(node.durable, name, inner)
        else:
            for offset, data in node.pending:
                _apply(node.durable, offset, data)
        node.pending.clear()


def _set(names: dict[str, int], name: str, number: int | None) -> None:
    if number is None:
        names.pop(name, None)
    else:
        names[name] = number


def _apply(held: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del held[offset:]
        held.extend(bytes(offset - len(held)))
        return
    if len(held) < offset:
        held.extend(bytes(offset - len(held)))
    held[offset : offset + len(data)] = data


def _after(node: _File, how: Cut, rng: random.Random) -> bytes:
    held = bytearray(node.durable)
    for offset, data in node.pending:
        if data is None:
            if rng.random() < how.keep:
                _apply(held, offset, None)
            continue
        place = offset
        while place < offset + len(data):
            end = min(offset + len(data), (place // SECTOR + 1) * SECTOR)
            if rng.random() < how.keep:
                if how.garbage and len(held) < place:
                    held.extend(rng.randbytes(place - len(held)))
                _apply(held, place, data[place - offset : end - offset])
            place = end
    return bytes(held)


def _names(node: _Folder, how: Cut, rng: random.Random) -> dict[str, int]:
    held = dict(node.durable)
    if how.names == "any":
        by_name: dict[str, list[int | None]] = {}
        for name, number in node.pending:
            by_name.setdefault(name, []).append(number)
        for name, later in by_name.items():
            if (stays := rng.randrange(len(later) + 1)) > 0:
                _set(held, name, later[stays - 1])
        return held
    stays = len(node.pending) if how.names == "all" else rng.randrange(len(node.pending) + 1)
    for name, number in node.pending[:stays]:
        _set(held, name, number)
    return held


class Recording(list[Op]):
    """The operations, in order; `ends` has how many of them each call that changed a file left behind it."""

    def __init__(self, ops: Sequence[Op] = (), ends: Sequence[int] = ()) -> None:
        super().__init__(ops)
        self.ends = list(ends)


def record(
    command: Sequence[str], root: Path, *, typed: str = "", codes: Sequence[int] = (0,), during: Callable[[subprocess.Popen[str]], None] | None = None
) -> Recording:
    """
    Run a process and write down what it does below a folder.

    Args:
        command: what to run; each line on its standard output is an acknowledgement, and so are each HTTP POST that it
            sends ("wire") and each answer that it gives ("answered").
        root: a folder, where it starts; what lies there counts as synced.
        typed: what it reads from its standard input.
        codes: exit codes with which it may end.
        during: for a server: called with strace's process; it asks and ends what is traced.

    Returns: the operations; those that make what lay there come first.
    """
    reader = _Reader(root)
    reader.take_up(root, 0)
    with tempfile.NamedTemporaryFile(suffix=".strace") as log:
        line = ["strace", "-f", "-qq", "-xx", "-s", str(1 << 26), "--seccomp-bpf", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", log.name]
        found = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))  # it imports us, from another folder
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([*line, *command], text=True, cwd=root, env={**os.environ, "PYTHONPATH": found}, **pipes) as process:  # type: ignore[call-overload]
            if during is not None:
                during(process)
            out, told = process.communicate(typed)
        if process.returncode not in codes:
            raise RuntimeError(f"the recorded process ended with {process.returncode}: {out[-1000:]} {told[-2000:]}")
        with Path(log.name).open(encoding="ascii") as lines:
            reader.meet(lines)
        with Path(log.name).open(encoding="ascii") as lines:
            return reader.read(lines)


class _Reader:
    """From lines of strace to operations on numbered files."""

    def __init__(self, root: Path) -> None:
        self.root = os.fsencode(root.resolve())
        self.ops: list[Op] = []
        self.ends: list[int] = []
        self._folders: dict[int, dict[str, int]] = {0: {}}
        self._sizes: dict[int, int] = {}
        self._parents: dict[str, tuple[str, bool]] = {}  # thread: who made it, and whether the two share descriptors
        self._tables: dict[str, tuple[dict[int, tuple[int, bool]], dict[int, list[int]], dict[int, bytes]]] = {}  # of each thread
        self._open: dict[int, tuple[int, bool]] = {}  # descriptor: number, whether it appends
        self._place: dict[int, list[int]] = {}  # one cell for all descriptors of one opening
        self._paths: dict[int, bytes] = {}  # of open folders
        self._next = 1
        self._half = b""
        self._heads: frozenset[int] = frozenset()  # sockets that have sent a head and no body

    def take_up(self, folder: Path, number: int) -> None:
        """What is there already, and synced."""
        for path in sorted(folder.iterdir()):
            inner = self._made(number, path.name, "folder" if path.is_dir() else "file")
            if path.is_dir():
                self.take_up(path, inner)
            else:
                data = path.read_bytes()
                self._sizes[inner] = len(data)
                self.ops.append(("put", inner, 0, data))
                self.ops.append(("sync", inner))
        self.ops.append(("sync", number))

    def meet(self, lines: Iterator[str]) -> None:
        """Who makes whom: a child's first call may stand before the call that made it has returned."""
        waiting: dict[str, str] = {}
        for line in lines:
            if (found := _UNFINISHED.match(line)) and found[2] in FORKS:
                waiting[found[1]] = found[3]
            elif (found := _RESUMED.match(line) or _CALL.match(line)) and found[2] in FORKS and found[4].isdigit():
                self._parents[found[4]] = (found[1], "CLONE_FILES" in waiting.pop(found[1], "") + found[3])

    def read(self, lines: Iterator[str]) -> Recording:
        waiting: dict[str, str] = {}
        for line in lines:
            before = len(self.ops)
            if found := _UNFINISHED.match(line):
                waiting[found[1]] = found[3]
            elif found := _RESUMED.match(line):
                self._turn(found[1])
                self._call(found[2], waiting.pop(found[1]) + found[3], found[4])
            elif found := _CALL.match(line):
                self._turn(found[1])
                self._call(found[2], found[3], found[4])
            if any(op[0] in ("make", "name", "put") for op in self.ops[before:]):
                self.ends.append(len(self.ops))
        return Recording(self.ops, self.ends)

    def _turn(self, thread: str) -> None:
        """Descriptors of the thread that calls: a child process starts with a copy of its parent's."""
        if thread not in self._tables:
            parent, shared = self._parents.get(thread, ("", False))
            held = self._tables.get(parent)
            self._tables[thread] = ({}, {}, {}) if held is None else held if shared else (dict(held[0]), dict(held[1]), dict(held[2]))
        self._open, self._place, self._paths = self._tables[thread]

    def _call(self, name: str, args: str, result: str) -> None:
        if result == "?" or int(result) < 0:
            return
        handler: Callable[..., None] | None = getattr(self, f"on_{name}", None)
        if handler is None:
            raise RuntimeError(f"{name} is not modelled")
        handler([_plain(one) for one in args.split(", ")], int(result))

    def _path(self, path: bytes, folder: int | None = None) -> bytes:
        if not path.startswith(b"/"):
            base = self._paths.get(folder) if folder is not None else None
            path = (base if base is not None else self.root) + b"/" + path
        return os.path.normpath(path)

    def _find(self, path: bytes) -> tuple[int, str] | None:
        """(folder, name) of a path below the root; None elsewhere, ("", 0) for the root itself."""
        if path == self.root:
            return (0, "")
        if not path.startswith(self.root + b"/"):
            return None
        *way, name = os.fsdecode(path[len(self.root) + 1 :]).split("/")
        folder = 0
        for part in way:
            folder = self._folders[folder][part]
        return folder, name

    def _do_open(self, path: bytes, flags: str, result: int) -> None:
        self._open.pop(result, None)
        self._paths.pop(result, None)
        if path != b"":
            self._paths[result] = path
        place = self._find(path)
        if place is None:
            return
        folder, name = place
        number = self._folders[folder].get(name) if name else 0
        if number is None:
            number = self._made(folder, name, "file")
        elif "O_TRUNC" in flags and self._sizes.get(number):
            self._resize(number, 0)
        self._open[result], self._place[result] = (number, "O_APPEND" in flags), [0]

    def _made(self, folder: int, name: str, kind: str) -> int:
        number, self._next = self._next, self._next + 1
        self._folders[folder][name] = number
        if kind == "file":
            self._sizes[number] = 0
        else:
            self._folders[number] = {}
        self.ops.append(("make", folder, name, number, kind))
        return number

    def _resize(self, number: int, size: int) -> None:
        self._sizes[number] = size
        self.ops.append(("put", number, size, None))

    def _answered(self, handle: int, data: bytes) -> None:
        """An answer may leave as a head and, later, a body: it is given with the body."""
        begun = data.startswith(b"HTTP/1.1 200 ")
        body = data.partition(b"\r\n\r\n")[2] if begun else data
        if body and (begun or handle in self._heads):
            self.ops.append(("say", "answered"))
        self._heads = self._heads | {handle} if begun and not body else self._heads - {handle}

    def _do_write(self, handle: int, data: bytes, offset: int | None) -> None:
        if handle not in self._open:
            self._answered(handle, data)
            if handle == 1:
                *whole, self._half = (self._half + data).split(b"\n")
                self.ops.extend(("say", one.decode()) for one in whole)
            return
        number, appends = self._open[handle]
        place = self._sizes[number] if appends else self._place[handle][0] if offset is None else offset
        if offset is None:
            self._place[handle][0] = place + len(data)
        self._sizes[number] = max(self._sizes[number], place + len(data))
        self.ops.append(("put", number, place, data))

    def _do_rename(self, old: bytes, new: bytes) -> None:
        one, two = self._find(old), self._find(new)
        if one is None and two is None:
            return
        assert one is not None
        assert two is not None
        number = self._folders[one[0]].pop(one[1])
        self._folders[two[0]][two[1]] = number
        self.ops.append(("name", two[0], two[1], number))
        self.ops.append(("name", one[0], one[1], None))

    def _do_unlink(self, path: bytes) -> None:
        if (place := self._find(path)) is not None:
            del self._folders[place[0]][place[1]]
            self.ops.append(("name", place[0], place[1], None))

    def on_open(self, args: list[bytes], result: int) -> None:
        self._do_open(self._path(args[0]), args[1].decode(), result)

    def on_openat(self, args: list[bytes], result: int) -> None:
        self._do_open(self._path(args[1], _number(args[0])), args[2].decode(), result)

    def on_close(self, args: list[bytes], result: int) -> None:
        del result
        for known in (self._open, self._paths, self._place):
            known.pop(int(args[0]), None)

    def on_write(self, args: list[bytes], result: int) -> None:
        self._do_write(int(args[0]), args[1][:result], None)

    def on_pwrite64(self, args: list[bytes], result: int) -> None:
        self._do_write(int(args[0]), args[1][:result], int(args[3]))

    def on_fsync(self, args: list[bytes], result: int) -> None:
        del result
        if (held := self._open.get(int(args[0]))) is not None:
            self.ops.append(("sync", held[0]))

    on_fdatasync = on_fsync

    def on_ftruncate(self, args: list[bytes], result: int) -> None:
        del result
        if (held := self._open.get(int(args[0]))) is not None:
            self._resize(held[0], int(args[1]))

    def on_fallocate(self, args: list[bytes], result: int) -> None:
        del result
        if int(args[0]) in self._open:
            raise RuntimeError("fallocate is not modelled")

    def on_rename(self, args: list[bytes], result: int) -> None:
        del result
        self._do_rename(self._path(args[0]), self._path(args[1]))

    def on_renameat(self, args: list[bytes], result: int) -> None:
        del result
        self._do_rename(self._path(args[1], _number(args[0])), self._path(args[3], _number(args[2])))

    on_renameat2 = on_renameat

    def on_mkdir(self, args: list[bytes], result: int) -> None:
        del result
        if (place := self._find(self._path(args[0]))) is not None:
            self._made(*place, "folder")

    def on_unlink(self, args: list[bytes], result: int) -> None:
        del result
        self._do_unlink(self._path(args[0]))

    on_rmdir = on_unlink

    def on_unlinkat(self, args: list[bytes], result: int) -> None:
        del result
        self._do_unlink(self._path(args[1], _number(args[0])))

    def on_link(self, args: list[bytes], result: int) -> None:
        del result
        one, two = self._find(self._path(args[0])), self._find(self._path(args[1]))
        if one is not None and two is not None:
            number = self._folders[one[0]][one[1]]
            self._folders[two[0]][two[1]] = number
            self.ops.append(("name", two[0], two[1], number))

    def on_linkat(self, args: list[bytes], result: int) -> None:
        self.on_link([self._path(args[1], _number(args[0])), self._path(args[3], _number(args[2]))], result)

    def on_execve(self, args: list[bytes], result: int) -> None:
        del args, result
        for known in (self._open, self._place, self._paths):
            known.clear()  # all of ours are closed by it

    def on_clone(self, args: list[bytes], result: int) -> None:
        """See `meet`."""

    on_clone3 = on_fork = on_vfork = on_clone

    def on_sendto(self, args: list[bytes], result: int) -> None:
        del result
        if args[1].startswith(b"POST "):
            self.ops.append(("say", "wire"))
        self._answered(int(args[0]), args[1])

    def on_lseek(self, args: list[bytes], result: int) -> None:
        if int(args[0]) in self._open:
            self._place[int(args[0])][0] = result

    def on_sendfile(self, args: list[bytes], result: int) -> None:
        del result
        if int(args[0]) in self._open:
            raise RuntimeError("sendfile is not modelled: set shutil._USE_CP_SENDFILE = False in the recorded process")

    def on_dup(self, args: list[bytes], result: int) -> None:
        old = int(args[0])
        if old == result:
            return
        for known in (self._open, self._paths, self._place):
            known.pop(result, None)
            if old in known:
                known[result] = known[old]  # type: ignore[index]

    on_dup2 = on_dup3 = on_dup

    def on_fcntl(self, args: list[bytes], result: int) -> None:
        if args[1].startswith(b"F_DUPFD"):
            self.on_dup(args, result)


def _plain(text: str) -> bytes:
    if found := _TEXT.match(text):
        return bytes.fromhex(found[1].replace("\\x", ""))
    return text.encode()


def _number(text: bytes) -> int | None:
    return int(text) if text.lstrip(b"-").isdigit() else None
