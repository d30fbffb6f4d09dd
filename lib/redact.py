"""Secrets out of text, and text that a terminal can show without obeying it.

Redacted are the token values this process knows (from its environment, and
what a configuration adds), then what looks like a well-known kind of token.
Each message on the bus goes through here, so `re` (8 ms) is imported only
when a substring test has found something that may be a secret. Time is linear
in the text, whatever it holds: no pattern can be begun again inside its own run.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from re import Match, Pattern

MARK = "[REDACTED]"
LINE_LIMIT = 500  # characters of a line made of somebody else's text
MIN_TOKEN = 8  # characters; a shorter value would redact ordinary words
HOLD_LIMIT = 64 * 1024  # characters of an unfinished line that a Stream keeps at most
MAX_TOKEN = 8 * 1024  # no token is longer

_SURE_SUFFIXES = ("_TOKEN", "_API_KEY", "_SECRET", "_PASSWORD")
_SURE_NAMES = frozenset(["AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "MYSQL_PWD", "OPENAI_KEY"])
_extra: list[str] = []
_passing: tuple[str, ...] = ()
_changes = 0
_own: list[str] | None = None

# -- what this process knows


def known_tokens(environ: Mapping[str, str]) -> list[str]:
    """Token values in `environ` and those made known, the longest first."""
    found = tokens_in(environ).union(_extra, _passing)
    return sorted(found, key=len, reverse=True)


def tokens_in(environ: Mapping[str, str]) -> set[str]:
    """Token values in `environ` alone."""
    found: set[str] = set()
    for name, value in environ.items():
        sure = name in _SURE_NAMES or name.endswith(_SURE_SUFFIXES)
        if sure or (name.endswith("_KEY") and _is_mixed(value)):  # not DEPLOY_KEY=/home/me/.ssh/id
            found.update(_parts(value))
    return found


def add_tokens(values: Iterable[str]) -> None:
    """Redact these values too, from now on (tokens of a configuration)."""
    known = set(_extra)
    new = [part for value in values for part in _parts(value) if part not in known]
    if new:
        _extra.extend(new)
        _note_change()


def set_passing_tokens(tokens: Iterable[str]) -> None:
    """Redact these too, and no more those of the call before.

    Each one costs time with every text: who learns ever more of them has to forget some.
    """
    global _passing
    new = tuple(tokens)
    if new != _passing:
        _passing = new
        _note_change()


def _note_change() -> None:
    global _changes, _own
    _changes += 1
    _own = None


def added() -> int:
    """Another number whenever other values are known: texts that were redacted before are out of date."""
    return _changes


def _parts(value: str) -> list[str]:
    """A token never spans lines here: of a multi-line value each line is one."""
    lines = [line.strip() for line in value.split("\n")]
    return [line for line in lines if len(line) >= MIN_TOKEN and not line.startswith("-----")]


def _is_mixed(value: str) -> bool:
    """Letters and digits and no path: the look of a key, not of a word or a number."""
    return (
        value[:1] not in ("/", "~", ".")
        and any(c.isdigit() for c in value)
        and any(c.isalpha() for c in value)
    )


def _own_tokens() -> list[str]:
    global _own
    own, moment = _own, _changes
    if own is None:
        own = _own = _with_escaped(known_tokens(os.environ))
        if moment != _changes:
            _own = None  # another thread has made a token known: it is not among these
    return own


def _with_escaped(tokens: list[str]) -> list[str]:
    """The tokens, and what they are as a part of JSON, or of JSON in that; the longest first.

    Not among what is known, from which more is made: it would be escaped again and again.
    """
    found = set(tokens)
    for token in tokens:
        if token.isascii() and not set(token) & _ESCAPED:
            continue
        for marks in ('"\\', '"\\/', '"\\<>&', '"\\/<>&'):
            for form in ("", "04x", "04X"):
                once = "".join([_escape(c, marks, form) for c in token])
                found.update((once, once.replace("\\", "\\\\").replace('"', '\\"')))
    return sorted(found, key=len, reverse=True)


_ESCAPED = frozenset('"\\/<>&\t')


def _escape(c: str, marks: str, form: str) -> str:
    """The character as a JSON text has it that escapes `marks`, and in `form` what is not ASCII."""
    if c in '"\\/':
        return f"\\{c}" if c in marks else c
    if c == "\t":
        return "\\t"
    if c not in marks and (c.isascii() or not form):
        return c
    units = c.encode("utf-16-be", "surrogatepass")
    pairs = zip(units[::2], units[1::2], strict=True)
    return "".join([f"\\u{first << 8 | second:{form or '04x'}}" for first, second in pairs])


# -- redaction


def text(s: str, tokens: list[str] | None = None) -> str:
    """`s` with every token replaced by `[REDACTED]`; `tokens` default to this process's own."""
    for token in _own_tokens() if tokens is None else tokens:
        if token in s:
            s = s.replace(token, MARK)
    if "PRIVATE KEY-----" in s:
        s = _without_private_keys(s)
    if "\x1b[" in s and any(prefix in s for prefix in _PREFIXES):
        s = _redact_behind_sequences(s, tokens)
    if _has_prefix(s):
        s = _token_pattern().sub(_replace_token, s)
    if _has_assignment(s):
        s = _assignment_pattern().sub(_replace_value, s)
    return s


def values(value: object) -> object:
    """A JSON value with every text in it redacted, and nothing that JSON has no word for.

    That is infinities, and the halves of characters that stand for bytes of a file name.
    """
    if isinstance(value, str):
        return text(value).encode("utf-8", "replace").decode()
    if isinstance(value, list | tuple):
        return [values(item) for item in value]
    if isinstance(value, dict):
        return {str(values(str(key))): values(item) for key, item in value.items()}
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


_PREFIXES = (
    "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "xox", "xapp-", "AIza", "xai-",
    "pplx-", "AKIA", "ASIA", "glpat-", "hf_", "npm_", "eyJ",
)  # fmt: skip


def _redact_behind_sequences(s: str, tokens: list[str] | None) -> str:
    """What follows on a colour begins anew: the `m` that ends that is no letter of a token."""
    import re

    def redact_piece(match: Match[str]) -> str:
        return match[1] + text(match[2], tokens)

    return re.sub(r"(\x1b\[[0-?]*+[ -/]*+[@-~])([^\x1b]++)", redact_piece, s)


_NAMES = ("key", "token", "secret", "password", "passwd", "authorization", "bearer")
_QUOTES = "\"'`*\\ \t"


def _has_prefix(s: str) -> bool:
    """False when no well-known token can be in `s`; `task-…` holds sk- and must not cost `re`."""
    for prefix in _PREFIXES:
        at = s.find(prefix)
        while at >= 0:
            end = at + len(prefix)
            if at == 0 or not s[at - 1].isalnum():
                follows = s[end : end + 8]
                if len(follows) == 8 and follows.replace("-", "0").replace("_", "0").isalnum():
                    return True
            at = s.find(prefix, end)
    return False


def _has_assignment(s: str) -> bool:
    """False when no `NAME=value` of a secret's name can be in `s`."""
    low = s.lower()
    for name in _NAMES:
        at = low.find(name)
        while at >= 0:
            end = at + len(name)
            if _may_be_value(low, at, end):
                return True
            at = low.find(name, end)
    return False


def _may_be_value(low: str, at: int, end: int) -> bool:
    """Does something like a value of 8 characters stand behind the name at `at`?"""
    rest = low[end : end + 48].lstrip(_QUOTES)
    if rest[:1] in ("=", ":"):
        rest = rest.lstrip(_QUOTES + "=:>")
    elif low[at:end] != "bearer" and "-" not in low[max(0, at - 5) : at]:  # --api-key VALUE
        return False
    value = rest[:8]
    return len(value) == 8 and len(value.split()) == 1


_tokens_re: Pattern[str] | None = None
_assignments_re: Pattern[str] | None = None


def _token_pattern() -> Pattern[str]:
    """Every run is possessive and ends its alternative, or cannot start inside itself: linear."""
    global _tokens_re
    if _tokens_re is None:
        import re

        _tokens_re = re.compile(
            r"(?<![A-Za-z0-9])(?:"
            r"sk-(?:ant|proj|or|svcacct|admin|live|test)-[A-Za-z0-9_-]{8,}+"
            r"|(?P<sk>sk-[A-Za-z0-9_-]{16,}+)"
            r"|gh[pousr]_[A-Za-z0-9]{16,}+"
            r"|github_pat_[A-Za-z0-9_]{16,}+"
            r"|xox[abeoprs][-.][A-Za-z0-9.-]{10,}+"
            r"|xapp-[A-Za-z0-9-]{10,}+"
            r"|AIza[A-Za-z0-9_-]{30,}+"
            r"|xai-[A-Za-z0-9_]{16,}+"
            r"|pplx-[A-Za-z0-9_]{16,}+"
            r"|A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9])"
            r"|glpat-[A-Za-z0-9_-]{16,}+"
            r"|hf_[A-Za-z0-9]{16,}+"
            r"|npm_[A-Za-z0-9]{16,}+"
            r"|(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{4,}+(?:\.[A-Za-z0-9_-]++)?"
            r")"
        )
    return _tokens_re


def _assignment_pattern() -> Pattern[str]:
    global _assignments_re
    if _assignments_re is None:
        import re

        name = r"(?:api|access|secret|private|auth|account)[_-]?key|token|secret|passw(?:or)?d"
        value = r"""[^\s"'`,;&<>(){}\[\]\\|]{8,}+"""
        _assignments_re = re.compile(
            r"""(?i)(?P<header>authorization["'`]{0,2}[ \t]{0,4}[:=][ \t]{0,4}["'`]?[a-z]{0,9}[ \t]+)"""
            rf"(?P<credential>{value})"
            rf"|(?P<bearer>\bbearer[ \t]{{1,4}})(?P<opaque>{value})"
            rf"""|(?P<name>(?:{name})[\\"'`*]{{0,4}}[ \t]{{0,4}}(?:=>|:=|==?|:)[ \t]{{0,4}}[\\"'`]{{0,4}})"""
            rf"(?P<value>{value})"
            rf"|(?P<option>--?(?:[a-z]+-){{0,3}}(?:{name})[ \t]{{1,4}})(?P<argument>{value})"
        )
    return _assignments_re


def _replace_token(match: Match[str]) -> str:
    found = match.group()
    return MARK if match.group("sk") is None or _is_sk_token(found) else found


def _is_sk_token(found: str) -> bool:
    """One part of it is long; sk-learn-based-pipelines stays."""
    return max(len(part) for part in found[3:].replace("_", "-").split("-")) >= 16


def _replace_value(match: Match[str]) -> str:
    kind = match.lastgroup or "value"
    found = match.group(kind)
    lead = match.group()[: -len(found)]
    if kind == "credential":
        secret = True
    elif kind == "opaque":
        secret = _is_mixed(found) or len(found) >= 32
    else:
        secret = _looks_random(found) and not match.string.startswith(("(", "["), match.end())
    return lead + (MARK if secret else found)


def _looks_random(value: str) -> bool:
    """Letters and digits mixed, and neither a variable, a URL, a path nor one of our ids."""
    if len(value) < MIN_TOKEN or value[0] in "$/~." or "://" in value:
        return False
    if value.startswith(("MSG-", "run_", "task-")) or MARK in value:
        return False
    if len(value) < 12 and (value.islower() or value.isupper()) and value.isalnum():
        return False
    return _is_mixed(value)


# -- private keys, the one secret of several lines

_BEGIN, _HEAD_END, _END = "-----BEGIN ", "PRIVATE KEY-----", "-----END "
_KEY_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\\\r")


def _without_private_keys(s: str) -> str:
    pieces: list[str] = []
    position, next_end = 0, -1
    while (begin := s.find(_BEGIN, position)) >= 0:
        head = s.find(_HEAD_END, begin, begin + 64)
        if head < 0:
            pieces.append(s[position : begin + len(_BEGIN)])
            position = begin + len(_BEGIN)
            continue
        head += len(_HEAD_END)
        if next_end < head:
            next_end = s.find(_END, head)
            next_end = len(s) if next_end < 0 else next_end
        pieces += [s[position:begin], MARK]
        if next_end < len(s) and next_end - head < HOLD_LIMIT:
            closing = s.find("-----", next_end + len(_END), next_end + 64)
            position = closing + 5 if closing >= 0 else next_end + len(_END)
        else:
            position = _end_of_key_lines(s, head)
    pieces.append(s[position:])
    return "".join(pieces)


def _end_of_key_lines(s: str, position: int) -> int:
    """Where a key without an end line stops: at the first line that cannot be part of it."""
    while position < len(s):
        end = s.find("\n", position, position + 200)
        line = s[position : position + 200 if end < 0 else end]
        if not _is_key_line(line):
            break
        position += len(line) + (end >= 0)
    return position


def _is_key_line(line: str) -> bool:
    bare = line.lstrip(" \t>|").rstrip()
    return all(c in _KEY_CHARACTERS for c in bare) or bare.startswith(("Proc-Type:", "DEK-Info:"))


# Text that is cut before its redaction; a token has no white space in it.


def before_gap(s: str) -> str:
    """`s`, which was cut at its end, without the word that it ends in: maybe half a token."""
    floor = max(0, len(s) - MAX_TOKEN)
    gap = max(s.rfind(blank, floor) for blank in " \t\n")
    return s[: gap + 1] if gap >= 0 else s[:floor]


def behind_gap(s: str) -> str:
    """`s`, which was cut at its beginning, without the word that it begins with."""
    gaps = [at for at in (s.find(blank, 0, MAX_TOKEN) for blank in "\n \t") if at >= 0]
    return s[min(gaps) + 1 :] if gaps else s[MAX_TOKEN:]


# -- streams


class Stream:
    """Redaction of text that arrives in pieces, wherever the borders fall.

    `feed` returns whole lines and keeps the unfinished one back; no token has
    a line break in it, and a private key over several lines is followed from
    line to line. `finish` returns what is left.
    """

    __slots__ = ("_held", "_in_key", "_tokens")

    def __init__(self, tokens: list[str] | None = None) -> None:
        self._tokens = tokens
        self._held = ""
        self._in_key = False

    def feed(self, piece: str) -> str:
        self._held += piece
        cut = self._held.rfind("\n") + 1 if "\n" in piece else 0
        lines, self._held = self._held[:cut], self._held[cut:]
        result = self._lines(lines) if lines else ""
        if len(self._held) > HOLD_LIMIT:
            cut = self._safe_cut()
            part, self._held = self._held[:cut], self._held[cut:]
            result += self._lines(part)
        return result

    def finish(self) -> str:
        rest, self._held = self._held, ""
        return self._lines(rest) if rest else ""

    @property
    def in_key(self) -> bool:
        """Whether the last line belongs to a private key that may go on."""
        return self._in_key

    def peek(self) -> str:
        """The whole words of the unfinished line, for who cannot wait; `feed` returns them again."""
        begin = self._held.find(_BEGIN)
        words = before_gap(self._held if begin < 0 else self._held[: begin + 1])
        return "" if self._in_key or not words else text(words, self._tokens)

    def _lines(self, lines: str) -> str:
        if not self._in_key and _HEAD_END not in lines:
            return text(lines, self._tokens)
        return "".join([self._line(line) for line in _split_keeping(lines)])

    def _line(self, line: str) -> str:
        if self._in_key:
            end = line.find(_END)
            if end >= 0:
                self._in_key = False
                closing = line.find("-----", end + len(_END))
                return text(line[closing + 5 :], self._tokens) if closing >= 0 else "\n"
            if _is_key_line(line):
                return ""
            self._in_key = False
        begin = line.rfind(_BEGIN)
        head = line.find(_HEAD_END, begin) if begin >= 0 else -1
        if head >= 0 and line.find(_END, head) < 0 and _is_key_line(line[head + len(_HEAD_END) :]):
            self._in_key = True
            return text(line[:begin], self._tokens) + MARK
        return text(line, self._tokens)

    def _safe_cut(self) -> int:
        """A place in the held line, at most MAX_TOKEN from its end, that no token crosses."""
        held = self._held
        cut = len(held) - MAX_TOKEN
        look_from = max(0, cut - 4 * MAX_TOKEN)  # what crosses the cut begins behind that
        spans = [m.span() for m in _token_pattern().finditer(held, look_from)]
        spans += [m.span() for m in _assignment_pattern().finditer(held, look_from)]
        for token in _own_tokens() if self._tokens is None else self._tokens:
            at = held.find(token, look_from)
            while at >= 0:
                spans.append((at, at + len(token)))
                at = held.find(token, at + len(token))
        begin = held.rfind(_BEGIN)
        if begin >= 0:
            spans.append((begin, len(held)))
        # From the right: moving the cut to the left may put it into an earlier span.
        for start, end in sorted(spans, reverse=True):
            if start < cut < end:
                cut = start
        return cut or len(held)  # a run of 64 KiB is no token; it is redacted as one piece


def _split_keeping(lines: str) -> list[str]:
    rows = lines.split("\n")
    last = rows.pop()
    return [row + "\n" for row in rows] + ([last] if last else [])


# -- terminals

_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_harmless: dict[int, str] = {}


def for_terminal(s: str) -> str:
    """`s` without anything that a terminal obeys; what was there stays visible as a symbol.

    Only line feed and tab pass (CR LF becomes LF). An escape sequence becomes
    one symbol as a whole; C1, bidirectional overrides and lone surrogates
    become U+FFFD.
    """
    if s.isprintable() or s.replace("\n", "").replace("\t", "").isprintable():
        return s
    if not _harmless:
        _harmless.update({code: chr(0x2400 + code) for code in range(0x20) if code not in (9, 10)})
        _harmless[0x7F] = "\u2421"
        odd = (*range(0x80, 0xA0), 0x2028, 0x2029, *_BIDI, *range(0xD800, 0xE000))
        _harmless.update(dict.fromkeys(odd, "\ufffd"))
    s = s.replace("\r\n", "\n")
    if "\x1b" in s or "\x9b" in s or "\x9d" in s:
        s = _without_sequences(s)
    return s.translate(_harmless)


def _without_sequences(s: str) -> str:
    """Each escape sequence as one U+241B. Source: ECMA-48 5.3-5.6 (and xterm's BEL for ST)."""
    import re

    string = r"[\]PX^_][^\x07\x1b\x9c\n]*+(?:\x07|\x1b\\|\x9c)?"
    control = r"\[[0-?]*+[ -/]*+[@-~]?"
    other = r"[ -/]*+[0-~]?"
    c1 = r"\x9b[0-?]*+[ -/]*+[@-~]?|\x9d[^\x07\x1b\x9c\n]*+(?:\x07|\x1b\\|\x9c)?"
    return re.sub(rf"\x1b(?:{control}|{string}|{other})|{c1}", "\u241b", s)


def one_line(s: str, limit: int = LINE_LIMIT) -> str:
    """`s` as one redacted line of bounded length that a terminal can show."""
    line = " ".join(for_terminal(text(s)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
