"""Messages out of the bytes of a bus: what a message is, and where it begins and ends.

Pure: no file is opened here. The model is a line machine. A line `---` is a
*marker*; every marker either opens a header or closes one, and none is ever
jumped over: a counted body that would hold a marker is torn, since the writer
stuffs such lines. Three facts follow, which all readers here build on:

* after a torn or damaged record the next marker is simply tried as an opening;
* two readers that agree about one marker agree about all that follows;
* so a reader that starts in the middle can prove where it is in step (`sync`).

Text between messages is free: ignored, but for the one-line form
`[YYYY-MM-DD HH:MM:SS] TYPE: body`, which is a message too.
"""

from __future__ import annotations

from lib import ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FENCE = b"@ fence at byte "
_FENCE_ROOM = 120  # bytes before a marker within which a fence line must begin
_TYPE_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/-")
_KEYS = frozenset(
    b"msg_id ts type project_id task_id run_id issue_id parents links meta body_bytes".split()
)
_NULLS = ("null", "Null", "NULL")
_ODD_BYTES = bytes(c for c in range(0x20) if c not in b"\t\n\r\x1b") + b"\x7f"


class Message:
    """One message. `offset` and `end` are its bytes in the file; `body` is as it was posted.

    `parents` are mappings with `msg_id` and perhaps `kind` and `meta`; bytes
    that are not UTF-8 appear as U+FFFD.
    """

    __slots__ = (
        "body", "end", "issue_id", "links", "meta", "msg_id", "offset", "parents",
        "project_id", "run_id", "task_id", "ts", "type",
    )  # fmt: skip

    def __init__(self, msg_id: str, ts: str, type_: str, body: str = "") -> None:
        self.msg_id = msg_id
        self.ts = ts
        self.type = type_
        self.project_id = self.task_id = self.run_id = self.issue_id = ""
        self.parents: list[dict[str, object]] = []
        self.links: list[dict[str, str]] = []
        self.meta: dict[str, str] = {}
        self.body = body
        self.offset = self.end = 0

    def as_dict(self) -> dict[str, object]:
        """All fields of the header that are set, in the order of the file, then the body."""
        fields: dict[str, object] = {
            "msg_id": self.msg_id, "ts": self.ts, "type": self.type, "project_id": self.project_id,
            "task_id": self.task_id, "run_id": self.run_id,
        }  # fmt: skip
        for name in ("issue_id", "parents", "links", "meta"):
            if value := getattr(self, name):
                fields[name] = value
        fields["body"] = self.body
        return fields


# -- lines


def stuff(body: bytes) -> bytes:
    """`body` with one more space before each line that could be taken for a marker."""
    if b"---" not in body:
        return body
    return b"\n".join([b" " + row if _is_rule(row) else row for row in body.split(b"\n")])


def unstuff(body: bytes) -> bytes:
    """What `stuff` was given."""
    if b" ---" not in body:
        return body
    rows = body.split(b"\n")
    return b"\n".join([row[1:] if row[:1] == b" " and _is_rule(row) else row for row in rows])


def _is_rule(row: bytes) -> bool:
    return b"---" in row and row.rstrip(b"\r").lstrip(b" ") == b"---"


def _find_line(data: bytes, what: bytes, position: int, end: int) -> int:
    """The first line at or after `position`, itself a line's start, that begins so; or -1."""
    if data.startswith(what, position):
        return position
    before = data.find(b"\n" + what, position, end)
    return before + 1 if before >= 0 else -1


def find_marker(data: bytes, position: int) -> tuple[int, int] | None:
    """Start of the next whole line `---` at or after `position`, a line's start, and its end."""
    at = _find_line(data, b"---", position, len(data))
    while at >= 0:
        end = at + 3
        while data.startswith(b"\r", end):
            end += 1
        if data.startswith(b"\n", end):
            return at, end + 1
        at = data.find(b"\n---", at) + 1 or -1
    return None


def _fence_before(data: bytes, base: int, start: int, stop: int) -> int:
    """Where the file ended when a fence was put before `stop`; -1 without a fence.

    A fence counts only where it names its own place: text that quotes one does not.
    """
    line = data.rfind(FENCE, max(start, stop - _FENCE_ROOM), stop)
    if line < 0 or (line > 0 and data[line - 1] != 0x0A):
        return -1
    number = data[line + len(FENCE) : line + len(FENCE) + 20].partition(b":")[0]
    if not number.isdigit():
        return -1
    ended = int(number) - base
    return ended if ended in (line, line - 1) and ended >= start - 1 else -1


def _is_text(data: bytes) -> bool:
    """False for bytes that no person typed: not UTF-8, or with control characters."""
    if data.translate(None, _ODD_BYTES) != data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.end == len(data) and error.reason == "unexpected end of data"
    return True


# -- headers


def parse_header(chunk: bytes) -> dict[str, object] | None:
    """The fields of a header with a msg_id; None for anything that is no readable header."""
    if FENCE in chunk:
        return None
    fields = _flat_fields(chunk)
    if fields is None:
        fields = _any_fields(chunk)
    if fields is None or not _text(fields.get("msg_id")).strip():
        return None
    return fields


def _flat_fields(chunk: bytes) -> dict[str, object] | None:
    """Fields of `key: value` lines, where no doubt is possible; plain values stay as written."""
    fields: dict[str, object] = {}
    for row in chunk.decode("utf-8", "replace").split("\n"):
        key, colon, value = row.rstrip("\r ").partition(": ")
        if not colon:
            if key:
                return None
            continue
        first = value[:1]
        if not key.isidentifier() or key in fields:
            return None
        if first == '"':
            if len(value) < 2 or value[-1] != '"' or "\\" in value or '"' in value[1:-1]:
                return None
            fields[key] = value[1:-1]
        elif first.isalnum() and ": " not in value and " #" not in value and value[-1] != ":":
            fields[key] = "" if value in _NULLS else value
        else:
            return None
    return fields


def _any_fields(chunk: bytes) -> dict[str, object] | None:
    from lib import yamlio
    from lib.errors import UserError

    try:
        return yamlio.load_mapping(chunk.decode("utf-8", "replace"), source="header")
    except UserError:  # also where it would need PyYAML: the record is reported as unreadable
        return None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else ""


def _text_map(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {str(key): _text(item) for key, item in value.items()}


def _is_usable(fields: Mapping[str, object]) -> bool:
    """Collections only where they belong, else the entry is unreadable for everybody."""
    for key in ("msg_id", "ts", "type", "project_id", "task_id", "run_id", "issue_id"):
        if isinstance(fields.get(key), dict | list):
            return False
    meta = fields.get("meta")
    return not isinstance(meta, dict) or not any(
        isinstance(item, dict | list) for item in meta.values()
    )


def _parents(value: object) -> list[dict[str, object]]:
    """Plain ids or mappings; the first item decides which."""
    items = value if isinstance(value, list) else []
    if not items or not isinstance(items[0], dict):
        plain = [_text(item).strip() for item in items]
        return [{"msg_id": item} for item in plain if item]
    found: list[dict[str, object]] = []
    for item in items:
        parent: dict[str, object] = {"msg_id": _text(item.get("msg_id")).strip()} if isinstance(
            item, dict
        ) else {}  # fmt: skip
        if not parent.get("msg_id"):
            continue
        if kind := _text(item.get("kind")):
            parent["kind"] = kind
        if meta := _text_map(item.get("meta")):
            parent["meta"] = meta
        found.append(parent)
    return found


def _message(fields: Mapping[str, object], body: bytes) -> Message:
    message = Message(
        _text(fields.get("msg_id")), _text(fields.get("ts")), _text(fields.get("type"))
    )
    message.body = body.decode("utf-8", "replace")
    message.project_id = _text(fields.get("project_id"))
    message.task_id = _text(fields.get("task_id"))
    message.run_id = _text(fields.get("run_id"))
    message.issue_id = _text(fields.get("issue_id"))
    if "parents" in fields:
        message.parents = _parents(fields["parents"])
    if isinstance(links := fields.get("links"), list):
        message.links = [link for link in map(_text_map, links) if link]
    if "meta" in fields:
        message.meta = _text_map(fields["meta"])
    return message


def _body_bytes(fields: Mapping[str, object]) -> int | None:
    count = _text(fields.get("body_bytes"))
    return int(count) if count.isdigit() and count.isascii() and len(count) < 16 else None


# -- one-line messages


def parse_legacy(row: bytes) -> Message | None:
    """The message in a line `[time] TYPE: body` or `[time] body`; without an id yet."""
    if row[:1] != b"[" or (close := row.find(b"]", 0, 64)) < 0:
        return None
    time_text = row[1:close].decode("utf-8", "replace")
    rest = row[close + 1 :].decode("utf-8", "replace").strip()
    nanoseconds = ids.parse_rfc3339(time_text) if time_text[4:5] == "-" else None
    if nanoseconds is None or not rest:
        return None
    kind, colon, body = rest.partition(":")
    if not (colon and kind and _TYPE_CHARACTERS.issuperset(kind)):
        kind, body = "INFO", rest
    return Message("", ids.rfc3339(nanoseconds), kind.upper(), body.strip() or rest)


# -- the machine


class Parser:
    """Messages of a file whose bytes arrive in order; begins at `offset`, in free text.

    `torn` collects the offsets of records that were begun and never finished,
    and were followed by another.
    """

    __slots__ = (
        "_data",
        "_free",
        "_lines",
        "_marked",
        "_reported",
        "_resumed",
        "base",
        "loose",
        "torn",
    )

    def __init__(self, offset: int = 0) -> None:
        self.base = offset  # of the first byte that is not consumed yet
        self.torn: list[int] = []
        self.loose = False  # the last marker opened nothing
        self._data = b""
        self._free = True
        self._marked = offset > 0
        self._lines = 1
        self._resumed = -1  # where the last torn record was given up
        self._reported = False  # the damage above the coming free text is in `torn` already

    @property
    def pending(self) -> bytes:
        """What is not consumed: an unfinished record, or an unfinished line."""
        return self._data

    def drop_pending(self) -> None:
        """Forget what is not consumed; its bytes, or others from `base` on, come again."""
        self._data = b""

    def feed(self, data: bytes, at_end: bool) -> list[Message]:
        """Messages that are complete now; `at_end`: the file ends here for the moment."""
        data = self._data + data if self._data else data
        found: list[Message] = []
        position = 0
        while position < len(data):
            marker = find_marker(data, position)
            text_end = marker[0] if marker else max(position, data.rfind(b"\n") + 1)
            if text_end > position:
                self._take_text(data, position, text_end, found)
                position = text_end
            if marker is None:
                break
            self._marked = True
            after = self._take_entry(data, marker, at_end, found)
            if after < 0:
                break
            position = after
        self._data = data[position:]
        self.base += position
        return found

    def _take_text(self, data: bytes, start: int, end: int, found: list[Message]) -> None:
        """One-line messages and fences in free text; in the rest of a body there are none."""
        at = _find_line(data, b"[", start, end) if self._free else -1
        counted = start
        while at >= 0:
            stop = data.find(b"\n", at, end)
            message = parse_legacy(data[at:stop].rstrip(b"\r"))
            if message is not None:
                self._lines += data.count(b"\n", counted, at)
                counted = at
                message.msg_id = self._legacy_id(at)
                message.offset, message.end = self.base + at, self.base + stop + 1
                found.append(message)
            at = data.find(b"\n[", stop, end) + 1 or -1
        self._lines += data.count(b"\n", counted, end)
        if self._free:
            self._take_fence(data, start, end)

    def _legacy_id(self, at: int) -> str:
        """By line number, as all readers have it; further down, where that would cost, by byte."""
        if self._marked:
            return f"LEGACY-BYTE-{self.base + at:012d}"
        return f"LEGACY-LINE-{self._lines:09d}"

    def _take_fence(self, data: bytes, start: int, end: int) -> None:
        """A fence in free text stands behind a record torn before its header was readable."""
        ended = _fence_before(data, self.base, start, end)
        if ended >= 0 and not self._reported:
            self.torn.append(self.base + ended)
        self._reported = False

    def _take_entry(
        self, data: bytes, marker: tuple[int, int], at_end: bool, found: list[Message]
    ) -> int:
        """Where to go on after the entry at `marker`; -1: it is not complete yet."""
        start, header = marker
        first_end = data.find(b"\n", header)
        if first_end < 0:
            return -1
        if not opens_header(data, header, first_end):
            return self._not_a_header(header)
        close = find_marker(data, header)
        if close is None:
            return -1
        fields = parse_header(data[header : close[0]])
        if fields is None or not _is_usable(fields):
            if data.startswith(b"msg_id:", header):
                if self.base + start != self._resumed:
                    self._report(start)
                self._reported = True
            return self._not_a_header(header)
        self.loose = False
        following = find_marker(data, close[1])
        count = _body_bytes(fields)
        if count is None:
            taken = self._foreign_body(data, close, following, at_end)
        else:
            taken = self._counted_body(data, close, following, at_end, count)
        if taken is None:
            return -1
        body, after = taken
        if body is None:
            self._report(start)
            self._resumed = self.base + after
            return after
        message = _message(fields, body)
        message.offset, message.end = self.base + start, self.base + after
        found.append(message)
        return after

    def _not_a_header(self, position: int) -> int:
        """The marker was a rule in a text, or its record is damaged: what follows is free."""
        self._free = self.loose = True
        return position

    def _report(self, start: int) -> None:
        self.torn.append(self.base + start)

    def _counted_body(
        self,
        data: bytes,
        close: tuple[int, int],
        following: tuple[int, int] | None,
        at_end: bool,
        count: int,
    ) -> tuple[bytes | None, int] | None:
        """Body and where to go on; body None: torn; None: not complete yet."""
        start, end = close[1], close[1] + count
        self._free = True
        stop = following[0] if following else len(data)
        ended = _fence_before(data, self.base, start, stop) if following else -1
        if following and end > (ended if ended >= 0 else stop - 1):
            if data.startswith(b"msg_id:", start):  # torn within the digits of body_bytes
                return None, close[0]
            return None, stop
        if end >= len(data):
            return None
        if end == ended:
            return unstuff(data[start:end]), stop
        if data[end] == 0x0A:
            fits = _fits_behind(data, end + 1, at_end)
            if fits is None:
                return None
            # Junk behind it, or a line still being typed: nobody lengthened the body by hand.
            unfinished = at_end and following is None and not data.endswith(b"\n")
            if fits or unfinished or not _is_text(data[end + 1 : stop]):
                return unstuff(data[start:end]), end + 1
        taken = self._foreign_body(data, close, following, at_end)
        return taken and (None if taken[0] is None else unstuff(taken[0]), taken[1])

    def _foreign_body(
        self, data: bytes, close: tuple[int, int], following: tuple[int, int] | None, at_end: bool
    ) -> tuple[bytes | None, int] | None:
        """The body by its delimiters, without framing and separator; results as above."""
        start = close[1]
        self._free = following is not None
        if following is not None:
            stop = following[0]
            if data.startswith(b"msg_id:", start) and _is_whole_header(data[start:stop]):
                return None, close[0]  # a header without an end, then the next message
            ended = _fence_before(data, self.base, start, stop)
            if ended >= 0:
                self.torn.append(self.base + ended)
                return _without_newline(_without_torn_marker(data[start:ended])), stop
            return _without_newline(_without_newline(data[start:stop])), stop
        if not at_end:
            return None
        whole = data.rfind(b"\n") + 1
        if whole <= start:
            return None
        if whole < len(data) and _is_text(data[whole:]) and _is_text(data[start:whole]):
            return None
        return _without_newline(_before_junk(data[start:whole])), whole


def opens_header(data: bytes, start: int, end: int) -> bool:
    """Does the line from `start` to `end` begin with a key of ours? Not so behind a mere rule."""
    key, colon, _ = data[start : min(end, start + 80)].partition(b":")
    return bool(colon) and key.strip(b"\"' ") in _KEYS


def _is_whole_header(chunk: bytes) -> bool:
    fields = parse_header(chunk)
    return fields is not None and bool(_text(fields.get("ts")) and _text(fields.get("type")))


def _fits_behind(data: bytes, position: int, at_end: bool) -> bool | None:
    """May a counted body end before `position`? None: more bytes decide."""
    end = data.find(b"\n", position)
    if end < 0:
        return True if at_end else None
    row = data[position:end].rstrip(b"\r")
    return row in (b"", b"---") or row.startswith(FENCE) or parse_legacy(row) is not None


def _without_newline(body: bytes) -> bytes:
    if body.endswith(b"\n"):
        body = body[:-1]
        if body.endswith(b"\r"):
            body = body[:-1]
    return body


def _without_torn_marker(body: bytes) -> bytes:
    """Without the separator and the first dashes of a record that was torn there."""
    for torn in (b"\n\n-", b"\n\n--"):
        if body.endswith(torn):
            return body[: 1 - len(torn)]
    return body


def _before_junk(body: bytes) -> bytes:
    """The lines of a body before the first that nobody typed, if there are any."""
    if _is_text(body):
        return body
    position = 0
    while (end := body.find(b"\n", position) + 1) and _is_text(body[position:end]):
        position = end
    return body[:position] if position else body


def sync(data: bytes) -> int | None:
    """A marker in `data`, a piece from the middle of a file, that surely opens a header.

    The first marker M of the piece opens or closes a header. If it closes one,
    the next marker opens one. If it opens one, and what follows is no valid
    header, then the next marker is tried as an opening too. So the first marker
    behind such a text opens in both cases, and from there on a parser does
    exactly what one from the beginning of the file does. None: no such place.
    """
    marker = find_marker(data, data.find(b"\n") + 1)
    while marker is not None:
        start = marker[1]
        following = find_marker(data, start)
        if following is None:
            return None
        first_end = data.find(b"\n", start)
        is_header = opens_header(data, start, first_end)
        if not is_header or not _is_readable(data[start : following[0]]):
            return following[0]
        marker = following
    return None


def _is_readable(chunk: bytes) -> bool:
    fields = parse_header(chunk)
    return fields is not None and _is_usable(fields)
