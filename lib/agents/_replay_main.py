"""Plays a recorded run folder: writes what that run wrote, when it did, and ends as it ended.

    _replay_main.py RUN_FOLDER --kind TYPE[:OUTPUT] --speed N
                    [--fault NAME --at SHARE --reset SECONDS --flood BYTES]

The prompt on stdin is not read. Without a `timing.txt` the lines are spread evenly
over the time that the run took. An output.md that the recorded agent wrote itself
is written to $JRUN_RUN_FOLDER.

What goes wrong on purpose:

    crash     dies by SIGKILL
    flood     prints as fast as it can, then goes on
    hang      does nothing any more, until it is stopped
    login     says that the key is wrong, as that agent does, and ends as it does
    overload  the same for a service that is overloaded
    quota     the same for a limit that has been reached
    silence   prints nothing from the very beginning, until it is stopped
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lib.timing import Point

WHOLE_BYTES = 16 << 20  # of output whose lines are counted; above it is cut anywhere
PIECE_BYTES = 256 << 10
FLOOD_LINE = b"flood: " + b"All work and no play makes a rehearsal. " * 25 + b"\n"
SAY_BYTES = 16 << 20
LONGEST_SLEEP_SECONDS = 3600.0  # at a speed near 0 a pause is more than a sleep can be
# The signals that end a process which does not catch them, and do nothing else.
DEADLY = (1, 2, 3, 4, 6, 7, 8, 9, 11, 13, 14, 15, 24, 25)


def main(argv: list[str]) -> int:
    options = dict(zip(argv[1::2], argv[2::2], strict=False))
    from lib import runs
    from lib.errors import UserError

    recording = runs.read(argv[0])
    try:
        return Player(recording, options).play()
    except (UserError, OSError) as error:
        sys.stderr.write(f"replay: {argv[0]} cannot be played: {error}\n")
        return 1


class Player:
    """One replay."""

    def __init__(self, recording: Run, options: dict[str, str]) -> None:
        from lib import files, runs

        self.recording = recording
        self.kind = options["--kind"]
        self.speed = float(options["--speed"])
        self.fault = options.get("--fault", "")
        self.share = float(options.get("--at", 1.0))
        self.reset_seconds = float(options.get("--reset", 0))
        self.flood_bytes = int(options.get("--flood", 0))
        self.sources = [files.open_regular(recording.file(n)) for n in (runs.STDOUT, runs.STDERR)]
        self.sizes = [os.fstat(fd).st_size for fd in self.sources]
        self.done = [0, 0]
        self.code = recorded_code(recording)
        self.signal = self.deadly_signal()
        self.started = time.monotonic()

    def play(self) -> int:
        """Play all of it; returns the exit code, unless a signal ends this."""
        if self.fault == "silence":
            wait_for_the_end()
        points = scaled(self.points(), self.speed)
        if not self.fault:
            self.follow(points)
            return self.end()
        before, after = divided(points, self.limits())
        self.follow(before)
        if self.fault == "hang":
            wait_for_the_end()
        if self.fault == "crash":
            os.kill(os.getpid(), 9)
        if self.fault == "flood":
            self.flood()
            self.follow(after)
            return self.end()
        return self.complain()

    def end(self) -> int:
        """End as the recorded agent did; returns where no signal is to end this process."""
        self.write_output()
        if self.signal:
            import resource
            import signal

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if self.signal != signal.SIGKILL:
                signal.signal(self.signal, signal.SIG_DFL)
            os.kill(os.getpid(), self.signal)
        return self.code

    def deadly_signal(self) -> int:
        """The signal that ended the recorded agent, or 0.

        Its guard, a shell, has said so as the last line of stderr; that of this process
        will say it again. Without that line it was an exit with such a number.
        """
        number = self.code - 128
        if number not in DEADLY:
            return 0
        import signal

        said = f"{signal.strsignal(number)}\n".encode()
        last = max(0, self.sizes[1] - len(said) - 1)
        if not (b"\n" + os.pread(self.sources[1], len(said) + 1, last)).endswith(b"\n" + said):
            return 0
        self.sizes[1] -= len(said)
        return number

    def points(self) -> list[Point]:
        """When how much of stdout and stderr is to be there."""
        from lib import runs, timing

        try:
            points = timing.parse(self.recording.read_text(runs.TIMING, 1 << 20))
        except OSError:
            points = []
        if not points:
            points = spread([self.line_ends(n) for n in (0, 1)], self.recording.seconds())
        return completed(points, self.sizes[0], self.sizes[1])

    def line_ends(self, number: int) -> list[int]:
        """Where the output may be cut: behind its lines; of very much, in equal pieces."""
        from lib import timing

        fd, size, most = self.sources[number], self.sizes[number], timing.MOST_POINTS
        if size > WHOLE_BYTES:
            return [size * number // most for number in range(1, most + 1)]
        return line_ends(os.pread(fd, size, 0), most)

    def limits(self) -> tuple[int, int]:
        """How much of stdout and stderr comes before the fault: whole lines."""
        found = []
        for fd, size in zip(self.sources, self.sizes, strict=True):
            wanted = int(size * self.share)
            if wanted < size:
                start = max(0, wanted - WHOLE_BYTES)
                wanted = start + os.pread(fd, wanted - start, start).rfind(b"\n") + 1
            found.append(wanted)
        return found[0], found[1]

    def follow(self, points: list[Point]) -> None:
        """Write what is to be there at each moment, at that moment."""
        for seconds, *sizes in points:
            while (pause := self.started + seconds - time.monotonic()) > 0:
                time.sleep(min(pause, LONGEST_SLEEP_SECONDS))
            for number, size in enumerate(sizes):
                self.copy(number, size)

    def copy(self, number: int, end: int) -> None:
        while self.done[number] < end:
            piece = min(end - self.done[number], PIECE_BYTES)
            data = os.pread(self.sources[number], piece, self.done[number])
            if not data:
                return  # it has become shorter
            self.done[number] += len(data)
            write(1 + number, data)

    def flood(self) -> None:
        begun = time.monotonic()
        lines = FLOOD_LINE * (PIECE_BYTES // len(FLOOD_LINE))
        left = self.flood_bytes
        while left > 0:
            write(1, lines[:left] if left >= len(lines) else lines[: left - 1] + b"\n")
            left -= len(lines)
        self.started += time.monotonic() - begun  # what follows keeps its distance

    def complain(self) -> int:
        """Say what that kind of agent says of such a trouble, and end as it does."""
        from lib.agents import _replay_faults

        said = _replay_faults.complaint(self.kind, self.fault, self.reset_seconds)
        write(1, said.stdout)
        write(2, said.stderr)
        return said.code

    def write_output(self) -> None:
        """Write output.md as the recorded agent did; what the toolkit makes of the rest is not copied."""
        from lib import files, runs

        folder = os.environ.get("JRUN_RUN_FOLDER")
        try:
            own = files.read_regular(self.recording.file(runs.OUTPUT), SAY_BYTES)
        except OSError:
            return  # nothing was written, or what is there is none
        if folder and own and own.strip() != self.derived().strip():
            files.replace_file(os.path.join(folder, runs.OUTPUT), own, 0o600, durable=False)

    def derived(self) -> bytes:
        """The answer that the output itself tells."""
        from lib import files, runs
        from lib.agents import replay

        reader = replay.reader({"output": self.kind})
        at = 0
        while data := os.pread(self.sources[0], PIECE_BYTES, at):
            reader.feed(data)
            at += len(data)
        reader.finish()
        answer = reader.outcome.final_text
        if answer is None:
            return files.read_regular(self.recording.file(runs.STDOUT), SAY_BYTES)
        return answer.encode("utf-8", "replace")


def line_ends(data: bytes, most: int) -> list[int]:
    """The offsets behind the lines, the end of the data included; at most about so many."""
    ends = []
    at = data.find(b"\n") + 1
    while at:
        ends.append(at)
        at = data.find(b"\n", at) + 1
    if data and (not ends or ends[-1] < len(data)):
        ends.append(len(data))
    step = -(-len(ends) // most) if ends else 1
    return ends[::-1][::step][::-1]  # counted from the end, which must stay


def spread(ends: list[list[int]], seconds: float) -> list[Point]:
    """The lines of stdout, and of stderr, each evenly over the time that the run took."""
    moments = []
    for which, offsets in enumerate(ends):
        for number, end in enumerate(offsets, 1):
            moments.append((number * seconds / len(offsets), which, end))
    sizes = [0, 0]
    points = []
    for at, which, end in sorted(moments):
        sizes[which] = end
        points.append((at, sizes[0], sizes[1]))
    return points or [(seconds, 0, 0)]


def completed(points: list[Point], out: int, err: int) -> list[Point]:
    """The points of files of that size: none beyond it, and in the end all of it."""
    within = [(at, min(first, out), min(second, err)) for at, first, second in points]
    last = within[-1][0] if within else 0.0
    return [*within, (last, out, err)]


def scaled(points: list[Point], speed: float) -> list[Point]:
    """The points in the time of the replay; a speed of 0 means without waiting."""
    return [(at / speed if speed else 0.0, out, err) for at, out, err in points]


def divided(points: list[Point], limits: tuple[int, int]) -> tuple[list[Point], list[Point]]:
    """What comes before a fault that happens when so much has been written, and the rest."""
    before: list[Point] = []
    for number, (at, out, err) in enumerate(points):
        before.append((at, min(out, limits[0]), min(err, limits[1])))
        if out >= limits[0] and err >= limits[1]:
            return before, points[number:]
    return before, []


def recorded_code(recording: Run) -> int:
    """The exit code of the recorded run; what its status says where nobody knew it."""
    from lib import runs

    code = recording.record.get("exit_code")
    if isinstance(code, int) and 0 <= code < 256:
        return int(code)
    return 0 if recording.text("status") == runs.COMPLETED else 1


def wait_for_the_end() -> None:
    while True:
        time.sleep(LONGEST_SLEEP_SECONDS)


def write(fd: int, data: bytes) -> None:
    from lib import files

    if data:
        files.write_all(fd, data)


if TYPE_CHECKING:
    from lib.runs import Run

if __name__ == "__main__":
    # In place of this folder, whose files would hide modules of the same name.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        status = main(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 1
    sys.exit(status)
