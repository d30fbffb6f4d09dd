#!/usr/bin/env -S python3 -S -E
"""run-agent - run one agent once and record everything; the code is in lib/commands/run_agent.py."""

import _signal

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # before the slower imports
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # until cli.run can tell it in a line

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from lib.commands.run_agent import main

raise SystemExit(main())
