"""When a limit ends, out of the words of who tells it.

Source, for the words:
    claude  anthropics/claude-code issues 4375 ("limit reached|1753441200"), 52575
            ("resets 4:50am (Europe/Rome)"), 25583 ("resets Feb 16, 11am (Europe/Berlin)"),
            74751 ("Resets Jul 11 at 12pm (Asia/Singapore)")
    codex   openai/codex issues 3899 ("try again in 5 days 22 hours 11 minutes"), 26668
            ("try again at Jul 5th, 2026 8:19 PM"), 39603 ("try again at Aug 20, 2026, 7:38 AM"),
            2255 ("try again in 28ms"); its times are those of the machine's zone
    gemini  google-gemini/gemini-cli issue 13004 ("quota will reset after 8h44m7s"), and
            ai.google.dev, "RetryInfo" ("retryDelay": "34s", "Please retry in 34.07s")
"""

from __future__ import annotations

import datetime
import re

from lib import ids

MAX_SECONDS = 8 * 86400.0  # a week and a day: beyond that no limit is known, and a date is misread
_JUST_ENDED_SECONDS = 600.0  # what "3am" may be past without meaning that of tomorrow
_MAX_CHARACTERS = 4000

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = r"(\d{1,9}(?:\.\d{1,9})?)\s?(ms|milliseconds?|[wdhms]|weeks?|days?|hours?|hrs?|minutes?|mins?|seconds?|secs?)(?![a-z])"
_DURATION = re.compile(
    r"(?:again|retry|retrying|resets?|wait|available)(?: again)? (?:in|after|for) "
    rf"(?:about |approximately )?((?:{_PART}[\s,]{{0,2}}(?:and )?){{1,6}})",
    re.IGNORECASE,
)
_SHORT = re.compile(r"again in (?:less than|about|under) a minute", re.IGNORECASE)
_EPOCH = re.compile(
    r"(?:limit reached\s?\|\s?|reset(?:s|_)?_?at\\?[\"']?\s?[:=]\s?)(\d{10})(?:\d{3})?(?!\d)",
    re.IGNORECASE,
)
_FIELD = re.compile(
    r"(?:resets?_in_seconds|retry[_-]?after|retry_?delay)\\?[\"']?\s?[:=]\s?\\?[\"']?(\d{1,9}(?:\.\d+)?)",
    re.IGNORECASE,
)
_STAMP = re.compile(
    r"(?:reset|again|until|available)[^\n]{0,40}?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d))",
    re.IGNORECASE,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK = re.compile(
    r"(?:resets?|again|until|available)(?: again)?(?: (?:at|on))? "
    rf"(?:({'|'.join(_MONTHS)})[a-z]{{0,6}}\.? (\d{{1,2}})(?:st|nd|rd|th)?,?(?: (\d{{4}}),?)?(?: at)? )?"
    r"(\d{1,2})(?::(\d\d))?(?::\d\d)?(?:\s?(am|pm))?+(?![\w:]|\.\d)(?:\s?\(([^()\n]{1,60})\))?",
    re.IGNORECASE,
)


def told(text: str, at: float, now: float) -> float:
    """The time that the text tells, in seconds since the epoch; 0.0 for none that can be.

    `at` is when it was said. A time that is past by now, or more than 8 days ahead, is none.
    """
    text = text[:_MAX_CHARACTERS]
    for find in (_epoch, _field, _duration, _stamp, _clock):
        found = find(text, at)
        if found:
            return sensible(found, now)
    return 0.0


def sensible(seconds: float, now: float) -> float:
    """The time, if a limit may end then; else 0.0."""
    return seconds if now < seconds <= now + MAX_SECONDS else 0.0


def _epoch(text: str, at: float) -> float:
    match = _EPOCH.search(text)
    return float(match[1]) if match else 0.0


def _field(text: str, at: float) -> float:
    match = _FIELD.search(text)
    return at + float(match[1]) if match else 0.0


def _duration(text: str, at: float) -> float:
    match = _DURATION.search(text)
    if not match:
        return at + 60 if _SHORT.search(text) else 0.0
    parts = re.findall(_PART, match[1], re.IGNORECASE)
    return at + sum(float(number) * _SECONDS[_unit(name)] for number, name in parts)


def _unit(name: str) -> str:
    name = name.lower()
    return "ms" if name == "ms" or name.startswith("milli") else name[0]


def _stamp(text: str, at: float) -> float:
    match = _STAMP.search(text)
    return (ids.parse_rfc3339(match[1]) or 0) / 1e9 if match else 0.0


def _clock(text: str, at: float) -> float:
    """A time of day, and perhaps a date, in the zone that is named, else in this machine's."""
    match = _CLOCK.search(text)
    if not match:
        return 0.0
    month, day, year, hour, minute, half, zone_name = match.groups()
    if not (half or minute):  # "resets 3 times"
        return 0.0
    try:
        zone = _zone(zone_name) if zone_name else None
        here = datetime.datetime.fromtimestamp(at, zone)
        time_of_day = datetime.time(_hour(int(hour), half), int(minute or 0))
        if month:
            return _on_date(here, time_of_day, _MONTHS.index(month[:3].lower()) + 1, int(day), year)
        moment = datetime.datetime.combine(here.date(), time_of_day, zone)
        if moment.timestamp() + _JUST_ENDED_SECONDS < at:
            # By the calendar, not by 24 hours: the clocks may be changed in that night.
            next_day = here.date() + datetime.timedelta(days=1)
            moment = datetime.datetime.combine(next_day, time_of_day, zone)
        return moment.timestamp()
    except (ValueError, OverflowError, LookupError, OSError):
        return 0.0  # no such hour, day or zone


def _hour(hour: int, half: str | None) -> int:
    if half is None:
        return hour
    if not 1 <= hour <= 12:
        raise ValueError(hour)
    return hour % 12 + (12 if half.lower() == "pm" else 0)


def _on_date(
    here: datetime.datetime, time_of_day: datetime.time, month: int, day: int, year: str | None
) -> float:
    """Without a year it is the next such day: in December, one in January is of next year."""
    number = int(year) if year else here.year
    if not year and month < here.month:
        number += 1
    date = datetime.date(number, month, day)
    return datetime.datetime.combine(date, time_of_day, here.tzinfo).timestamp()


def _zone(name: str) -> datetime.tzinfo:
    """The zone of that name. ValueError, LookupError or OSError for one that there is not."""
    if name.upper() in ("UTC", "GMT", "Z"):
        return datetime.UTC
    import zoneinfo

    return zoneinfo.ZoneInfo(name)
