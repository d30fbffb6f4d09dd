"""A process that posts to a bus until it is killed, and notes each id that it was given.

    writer.py BUS FOLDER NAME COUNT

Posts COUNT bodies, `NAME/0` to `NAME/COUNT-1`; the line `posted ID NAME/N` is in
FOLDER/ledger after the append has returned, and never before.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))

from lib import bus, faults
from tests.torture.agent import write
from tests.torture.bodies import body_of


def main(path: str, folder: str, name: str, count: int) -> None:
    faults.enter_part("script")
    for n in range(count):
        key = f"{name}/{n}"
        msg_id = bus.append(path, type_="FACT", body=body_of(key), project="torture")
        write(folder, f"posted {msg_id} {key}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
