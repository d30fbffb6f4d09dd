"""What large files say to clients: few answers are made at once, and the last ones are kept.

To redact 8 MiB takes about a second, in which other threads go slowly, and a
page that shows such a file, or the end of a bus, asks for it every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence

from lib import files, redact
from lib.api.exchange import Refusal

LARGE_BYTES = 64 << 10  # what a smaller file costs is not worth keeping
KEPT_BYTES = 32 << 20
AT_ONCE = 4
WAIT_SECONDS = 10.0

_Signature = tuple[int, int, int] | None
_State = tuple[list[_Signature], int]  # of the files, and of what is redacted


class Contents:
    """Answers, each good for as long as its files and the known tokens stay as they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._kept: dict[Hashable, tuple[_State, bytes]] = {}  # what was asked for last, last
        self._size = 0

    def of(self, key: Hashable, paths: Sequence[str], make: Callable[[], bytes]) -> bytes:
        """What `make` makes of the files at these paths, or made of them before.

        `key` tells what is asked, besides.  Refusal 503 while too many others
        wait for theirs.
        """
        sizes = [found[1] for path in paths if (found := files.signature(path)) is not None]
        if sum(sizes) < LARGE_BYTES:
            return make()
        known = self._find(key, paths)
        if known is not None:
            return known
        if not self._places.acquire(timeout=WAIT_SECONDS):
            raise Refusal(503, "too many large files are asked for at once; ask again later")
        try:
            known = self._find(key, paths)  # somebody else may have made it meanwhile
            return self._make(key, paths, make) if known is None else known
        finally:
            self._places.release()

    def _make(self, key: Hashable, paths: Sequence[str], make: Callable[[], bytes]) -> bytes:
        began_ns, state = time.time_ns(), _state(paths)
        data = make()
        newest = max((found[2] for found in state[0] if found is not None), default=0)
        if newest < began_ns - files.CLOCK_NS:
            self._keep(key, state, data)  # of what changed meanwhile the state is another
        return data

    def _find(self, key: Hashable, paths: Sequence[str]) -> bytes | None:
        state = _state(paths)
        with self._lock:
            known = self._kept.pop(key, None)
            if known is None:
                return None
            if known[0] == state:
                self._kept[key] = known
                return known[1]
            self._size -= len(known[1])
            return None

    def _keep(self, key: Hashable, state: _State, data: bytes) -> None:
        with self._lock:
            before = self._kept.pop(key, None)
            self._size += len(data) - (0 if before is None else len(before[1]))
            self._kept[key] = (state, data)
            while self._size > KEPT_BYTES:
                _, oldest = self._kept.pop(next(iter(self._kept)))
                self._size -= len(oldest)


def _state(paths: Sequence[str]) -> _State:
    return [files.signature(path) for path in paths], redact.added()
