"""An answer that a program leaves in a file.

The file may have been there before, and whatever the agent started may have put
something else in its place: it counts only if it is another than at the start, and
a plain file, reached without a link.
"""

from __future__ import annotations

import os

from lib import files, redact
from lib.agents import base
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# In the options and in the record: the file's real path, and what it was at the start.
KEYS = ("output_file", "output_file_before")


def before(path: str, cwd: str, run_dir: str) -> dict[str, object]:
    """KEYS of a run that begins; UserError for a path that leads elsewhere.

    It must be below the working folder or the run folder: what is read is shown and
    kept, so that a wrong path would put some other file into the answer.
    """
    folder, name = os.path.split(os.path.join(cwd, path))
    real = os.path.join(os.path.realpath(folder), name)
    inside = [f"{os.path.realpath(top)}{os.sep}".replace("//", "/") for top in (cwd, run_dir)]
    if name in ("", ".", "..") or not real.startswith(tuple(inside)):
        raise UserError(
            f"output_file is not below the working folder: {real}; "
            "name a file there, or {run_dir}/answer.md"
        )
    return dict(zip(KEYS, (real, _state(real)), strict=True))


def _state(path: str) -> str:
    """What is another when the file was written or replaced."""
    return str(files.signature(path) or "")


class FileReader(base.TextReader):
    """What is printed is for the transcript, the answer is in the file; none is no success.

    The `note` of the outcome tells why there is none.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__()
        self._path, self._before = (base.as_text(options.get(key)) for key in KEYS)

    def finish(self) -> str:
        shown = super().finish()
        self.outcome.final_text = None
        fault = self._read()
        if fault:
            self.outcome.success = False
            self.outcome.error = base.EMPTY_ANSWER
            self.outcome.note = f"no answer in {self._path}: {fault}"
        return shown

    def _read(self) -> str:
        """Take the answer; returns why there is none."""
        folder = os.path.dirname(self._path)
        if _state(self._path) == self._before:
            return "it is as it was before" if self._before else "it was not written"
        if os.path.realpath(folder) != folder:
            return "a folder on the way to it is a link now"
        try:
            data = files.read_regular(self._path, base.MAX_TEXT_BYTES + 1)
        except OSError as error:
            return f"it is no plain file that can be read ({error.strerror})"
        text = data[: base.MAX_TEXT_BYTES].decode("utf-8", "replace")
        if not text.strip("\0 \t\r\n"):
            return "it is empty"
        if len(data) > base.MAX_TEXT_BYTES:
            text = f"{redact.before_gap(text)}\n\n[cut here: the whole is in {self._path}]"
        self.outcome.final_text = text
        return ""
