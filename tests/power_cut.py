"""A power cut, thought through: what a disk may hold when it comes at any moment of a piece of work.

Watches what this process does to the files of some folders, and knows what is
certain: a file's content once it was fsynced, a folder's names once the folder
was.  Of everything since then a cut may leave the old, the new, or, of what
was being written, a part.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import pytest

Names = dict[str, int]  # name -> number of the file
Tree = dict[Path, bytes]


class Cut:
    """What a cut may leave: the files, and what had been promised by then."""

    def __init__(self, after: str, promised: Any, tree: Tree) -> None:
        self.after = after  # the call that was the last
        self.promised = promised
        self.tree = tree

    def restore(self, old: Path, new: Path) -> Path:
        """Write those files that were below `old` to `new`, which is made; returns that."""
        new.mkdir(parents=True)
        for path, data in self.tree.items():
            there = new / path.relative_to(old)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(data)
        return new


class Disk:
    """The folders `watched` (not those below them), from now to the end of the test.

    `calls` are the names of what was done, in order: `write NAME`, `sync NAME`,
    `rename NAME NAME`, `unlink NAME`.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *watched: Path, ignored: Container[str] = ()
    ) -> None:
        self._ignored = ignored  # names of files that nothing hangs on
        self.calls: list[str] = []
        self.cuts: list[Cut] = []
        self._promised: Any = None
        self._folders = {os.stat(path).st_ino: path for path in watched}
        self._numbers: dict[int, int] = {}  # of a file by its inode, which is used again
        self._next = itertools.count()
        self._contents: dict[int, list[bytes]] = {}  # what may be there, the newest last
        self._names: dict[Path, list[Names]] = {}
        self._seen: set[object] = set()
        self._install(monkeypatch)
        for path in watched:
            self._names[path] = [self._look(path)]

    def promise(self, what: Any) -> None:
        """From now on a cut must leave that."""
        self._promised = what
        self._think("a promise")

    # -- what is done

    def _install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def wrap(name: str, note: Callable[..., None]) -> None:
            real = getattr(os, name)

            def call(*args: Any, **keywords: Any) -> Any:
                known = {fd: self._place(fd) for fd in args[:1] if isinstance(fd, int)}
                result = real(*args, **keywords)
                note(known.get(args[0]), *args)
                return result

            monkeypatch.setattr(os, name, call)

        for name in ("write", "pwrite", "ftruncate", "posix_fallocate"):
            wrap(name, self._on_write)
        wrap("fsync", self._on_sync)
        for name in ("open", "rename", "replace", "unlink", "remove", "link"):
            wrap(name, lambda _place, *args, what=name: self._on_name(what, args))

    def _place(self, fd: int) -> tuple[int, Path] | None:
        """The number and path of a watched file or folder that is open there."""
        try:
            status = os.fstat(fd)
        except OSError:
            return None
        if stat.S_ISDIR(status.st_mode):
            path = self._folders.get(status.st_ino)
            return (-1, path) if path else None
        for folder, versions in self._names.items():
            for name, number in versions[-1].items():
                if number == self._numbers.get(status.st_ino):
                    return number, folder / name
        return None

    def _on_write(self, place: tuple[int, Path] | None, *_: Any) -> None:
        if place is not None:
            number, path = place
            self._grow(number, path.read_bytes())
            self._think(f"write {path.name}")

    def _grow(self, number: int, new: bytes) -> None:
        versions = self._contents[number]
        old = versions[-1]
        if new.startswith(old) and len(new) > len(old):
            half = (len(old) + len(new)) // 2
            versions += [new[:half], old + b"\0" * (len(new) - len(old))]
        versions.append(new)

    def _on_sync(self, place: tuple[int, Path] | None, *_: Any) -> None:
        if place is None:
            return
        number, path = place
        if number < 0:
            self._names[path] = self._names[path][-1:]
        else:
            self._contents[number] = self._contents[number][-1:]
        self._think(f"sync {path.name}")

    def _on_name(self, what: str, args: tuple[Any, ...]) -> None:
        paths = [Path(str(arg)) for arg in args[:2] if isinstance(arg, str | Path)]
        changed = False
        if what == "open" and (place := self._named(paths[0])) is not None:
            now_there = paths[0].read_bytes()
            if now_there != self._contents[place][-1]:  # O_TRUNC
                self._grow(place, now_there)
                changed = True
        for folder in {path.parent for path in paths} & set(self._names):
            now = self._look(folder)
            if now != self._names[folder][-1]:
                self._names[folder].append(now)
                changed = True
        if changed:
            self._think(" ".join([what, *(path.name for path in paths)]))

    def _named(self, path: Path) -> int | None:
        return self._names[path.parent][-1].get(path.name) if path.parent in self._names else None

    def _look(self, folder: Path) -> Names:
        found = {}
        for entry in os.scandir(folder):
            if entry.is_file(follow_symlinks=False):
                known = [v[-1].get(entry.name) for p, v in self._names.items() if p == folder]
                inode = entry.inode()
                if inode not in self._numbers or self._is_new(inode, known):
                    self._numbers[inode] = next(self._next)
                    data = Path(entry.path).read_bytes()
                    self._contents[self._numbers[inode]] = [data]
                found[entry.name] = self._numbers[inode]
        return found

    def _is_new(self, inode: int, known: list[int | None]) -> bool:
        """Whether no name led to that inode a moment ago: then it is another file by now."""
        number = self._numbers[inode]
        return number not in known and not any(
            number in versions[-1].values() for versions in self._names.values()
        )

    # -- what that leaves

    def _think(self, after: str) -> None:
        self.calls.append(after)
        folders = list(self._names)
        for names in itertools.product(*(self._names[folder] for folder in folders)):
            places = [
                (folder / name, number)
                for folder, found in zip(folders, names, strict=True)
                for name, number in found.items()
                if name not in self._ignored
            ]
            for data in itertools.product(*(self._contents[number] for _, number in places)):
                tree = {path: content for (path, _), content in zip(places, data, strict=True)}
                key = (repr(self._promised), tuple(sorted(tree.items())))
                if key not in self._seen:
                    self._seen.add(key)
                    self.cuts.append(Cut(after, self._promised, tree))

    def each(self) -> Iterator[Cut]:
        """Every cut that was possible, and none before anything was done."""
        assert self.calls, "nothing was watched"
        yield from self.cuts
