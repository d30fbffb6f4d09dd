"""What the keys of the monitor do: which list has the focus, what is selected, what is read.

Nothing here touches the terminal or another process: `press` changes the
state, and returns what somebody else has to do.
"""

from __future__ import annotations

import time

from lib import redact, runs
from lib.index_entries import RunEntry
from lib.monitor import keys, text
from lib.monitor.facts import Facts, Observer, name_of
from lib.monitor.reader import Pager, RunReader
from lib.monitor.text import Row

PROBLEMS, RUNS, PLANS, MESSAGES = range(4)
TITLES = ("Problems", "Runs", "Plans", "Messages")
NOTICE_SECONDS = 8.0
PROMPT_LIMIT = 200  # characters of a filter, or of what is searched for
QUIT, STOP = "quit", "stop"

HELP = """\
1 2 3 4, Tab      choose a list: problems, runs, plans, messages
up down, j k      select a line; PageUp and PageDown, g and G: further
Enter             read: the transcript of the run, or the whole message
s                 stop the selected run and all that it started; asks first
f                 show only what holds a text; Esc takes the filter away
r, Ctrl-L         draw the screen anew
h ?               this page
q                 quit; whatever runs goes on

while reading:
up down, j k      a line; PageUp and PageDown or Space: a page; g G: begin, end
F                 follow what comes (the end, G, does that too)
/ n N             search; the next match, the one before
Tab               another file of the run: stderr, stdout, output, prompt
s                 stop the run
Esc, q            back

Should the terminal ever stay odd (after kill -9): reset"""


class Prompt:
    """A line that is being typed at the bottom."""

    def __init__(self, label: str, typed: str = "") -> None:
        self.label = label
        self.typed = typed


class App:
    """The state of the monitor, but for the size of the screen, which `lay_out` is told.

    `rows[pane]` are the lines of each list as they were made last, `tops` the
    first one on the screen; `selected` says by key which one is chosen.
    """

    def __init__(self, observer: Observer, place: str) -> None:
        self.observer = observer
        self.place = place
        self.facts = Facts()
        self.focus = RUNS
        self.selected = [""] * len(TITLES)
        self.numbers = [0] * len(TITLES)  # of the selected lines, for when they are gone
        self._is_chosen = [False] * len(TITLES)  # else it is the first line, whichever that is
        self.tops = [0] * len(TITLES)
        self.rows: list[list[Row]] = [[] for _ in TITLES]
        self.heights = [1] * len(TITLES)  # as the frame has laid them out
        self.filter = ""
        self.pager: Pager | None = None
        self.prompt: Prompt | None = None
        self.stopping: RunEntry | None = None  # that it is asked about
        self.has_asked_to_redraw = False
        self._notice = ("", "", 0.0)
        self._columns = 80
        self._is_arranged = False

    # -- what is there

    def look(self) -> None:
        """Take the facts of this moment."""
        if not self.facts.time:
            self._notice = ("", "", 0.0)  # that it is being read for the first time
        self.facts = self.observer.look()
        self._is_arranged = False

    def arrange(self, columns: int) -> None:
        """Make the rows of the lists, for that many columns, if they are not those already."""
        if self._is_arranged and columns == self._columns:
            return
        self._columns, self._is_arranged = columns, True
        facts = self.facts
        made = [
            text.problem_rows(facts),
            text.run_rows([*facts.live, *facts.ended], columns),
            text.plan_rows(facts.plans, with_tasks=self.focus == PLANS),
            text.message_rows(facts.messages),
        ]
        self.rows = [self._filtered(rows) for rows in made]
        for pane, rows in enumerate(self.rows):
            self._keep_selection(pane, rows)

    def _filtered(self, rows: list[Row]) -> list[Row]:
        if not self.filter:
            return rows
        wanted = self.filter.lower()
        return [row for row in rows if wanted in row.words.lower()]

    def _keep_selection(self, pane: int, rows: list[Row]) -> None:
        if not self._is_chosen[pane]:
            self._select(pane, 0)
            return
        for number, row in enumerate(rows):
            if row.key == self.selected[pane]:
                self.numbers[pane] = number
                return
        self._select(pane, self.numbers[pane])

    def _select(self, pane: int, number: int) -> None:
        rows = self.rows[pane]
        number = max(0, min(number, len(rows) - 1))
        self.numbers[pane] = number
        self.selected[pane] = rows[number].key if rows else ""

    def current(self) -> Row | None:
        """The selected line of the list that has the focus."""
        rows = self.rows[self.focus]
        return rows[self.numbers[self.focus]] if self.numbers[self.focus] < len(rows) else None

    def read_on(self) -> bool:
        """Take in what has come to the file that is read; True when something has."""
        return isinstance(self.pager, RunReader) and self.pager.read()

    # -- notices

    def tell(self, notice: str, colour: str = "") -> None:
        """Show a line at the bottom for a while."""
        self._notice = (redact.one_line(notice), colour, time.monotonic() + NOTICE_SECONDS)

    def notice(self) -> tuple[str, str]:
        """The line and its colour; ("", "") for none."""
        said, colour, until = self._notice
        return (said, colour) if time.monotonic() < until else ("", "")

    # -- keys

    def press(self, key: str) -> tuple[str, str] | None:
        """React to a key; (QUIT, "") or (STOP, run folder) when there is something to be done."""
        if self.stopping is not None:
            return self._answer(key)
        if self.prompt is not None:
            self._type(key)
            return None
        if key.startswith(keys.PASTE):
            self.tell("what was pasted is not taken for keys")
            return None
        self._notice = ("", "", 0.0)
        if key in ("h", "?"):
            self.pager = Pager("help")
            self.pager.add(HELP.split("\n"))
        elif key in ("r", "redraw"):
            self.has_asked_to_redraw = True
        elif self.pager is not None:
            self._press_in_pager(self.pager, key)
        elif key == "q":
            return QUIT, ""
        else:
            self._press_in_lists(key)
        return None

    def _press_in_lists(self, key: str) -> None:
        self.arrange(self._columns)
        height = max(1, self.heights[self.focus] - 1)
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -height, "pagedown": height}
        ends = {
            "home": 0,
            "g": 0,
            "end": len(self.rows[self.focus]),
            "G": len(self.rows[self.focus]),
        }
        if key in steps:
            self._is_chosen[self.focus] = True
            self._select(self.focus, self.numbers[self.focus] + steps[key])
        elif key in ends:
            self._is_chosen[self.focus] = ends[key] > 0
            self._select(self.focus, ends[key])
        elif key in ("1", "2", "3", "4"):
            self._focus_on(int(key) - 1)
        elif key in ("tab", "backtab", "left", "right"):
            step = 1 if key in ("tab", "right") else -1
            self._focus_on((self.focus + step) % len(TITLES))
        elif key == "enter":
            self._read()
        elif key == "s":
            self._ask_to_stop(self._entry_of(self.current()))
        elif key in ("f", "/"):
            self.prompt = Prompt("filter", self.filter)
        elif key == "escape":
            self._set_filter("")

    def _focus_on(self, pane: int) -> None:
        self.focus = pane
        self._is_arranged = False
        self.arrange(self._columns)

    def _press_in_pager(self, pager: Pager, key: str) -> None:
        moves = {"up": -1, "k": -1, "down": 1, "j": 1, "enter": 1}
        if key in moves:
            pager.scroll(moves[key])
        elif key in ("pageup", "pagedown", " ", "b"):
            pager.page(1 if key in ("pagedown", " ") else -1)
        elif key in ("home", "g"):
            pager.home()
        elif key in ("end", "G", "F"):
            pager.end()
        elif key == "/":
            self.prompt = Prompt("search")
        elif key in ("n", "N"):
            if not pager.next_match(1 if key == "n" else -1):
                self.tell(f"nothing found: {pager.needle}" if pager.needle else "search with /")
        elif key in ("tab", "backtab", "right", "left") and isinstance(pager, RunReader):
            pager.turn(1 if key in ("tab", "right") else -1)
        elif key == "s" and isinstance(pager, RunReader):
            self._ask_to_stop(pager.entry)
        elif key in ("q", "escape"):
            self.pager = None

    def _read(self) -> None:
        row = self.current()
        entry = self._entry_of(row)
        if entry is not None:
            self.pager = RunReader(entry)
        elif row is not None and row.message is not None:
            self.pager = Pager("message")
            self.pager.add(text.message_lines(row.message))
        elif row is not None:
            self.tell("there is no run behind this line")

    def _entry_of(self, row: Row | None) -> RunEntry | None:
        return self.observer.index.runs.get(row.run) if row is not None and row.run else None

    def _ask_to_stop(self, entry: RunEntry | None) -> None:
        if entry is None:
            self.tell("select a run first")
        elif not entry.is_live:
            is_unknown = entry.state.status == runs.UNKNOWN
            what = "is not known to run here" if is_unknown else "has ended already"
            self.tell(f"{entry.run.run_id} {what}")
        else:
            self.stopping = entry

    def question(self) -> str:
        """What is asked before a run is stopped."""
        entry = self.stopping
        if entry is None:
            return ""
        name = f"{name_of(entry)} ({entry.agent}, {entry.run.run_id})"
        return f"stop {redact.one_line(name)} and all that it started? y/n"

    def _answer(self, key: str) -> tuple[str, str] | None:
        entry, self.stopping = self.stopping, None
        assert entry is not None
        if key != "y":
            self.tell("not stopped")
            return None
        self.tell(f"stopping {entry.run.run_id} …")
        return STOP, entry.path

    def _type(self, key: str) -> None:
        prompt = self.prompt
        assert prompt is not None
        if key == "enter":
            self.prompt = None
            if prompt.label == "filter":
                self._set_filter(prompt.typed)
            elif self.pager is not None and prompt.typed and not self.pager.search(prompt.typed):
                self.tell(f"nothing found: {prompt.typed}")
        elif key == "escape":
            self.prompt = None
        elif key == "backspace":
            prompt.typed = prompt.typed[:-1]
        elif key == "clear":
            prompt.typed = ""
        elif key.startswith(keys.PASTE):
            prompt.typed += redact.for_terminal(key[len(keys.PASTE) :]).replace("\n", " ")
        elif len(key) == 1:
            prompt.typed += key
        prompt.typed = prompt.typed[:PROMPT_LIMIT]

    def _set_filter(self, wanted: str) -> None:
        self.filter = wanted.strip()
        self._is_arranged = False
        self.arrange(self._columns)
