#!/usr/bin/env -S python3 -S -E
"""run-all-tasks - run a plan; the code is in lib/commands/run_all_tasks.py."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from lib.commands.run_all_tasks import main

raise SystemExit(main())
