"""The plan that `run-all-tasks.py --init` writes: small, runnable, every key explained."""

from __future__ import annotations

INIT_PLAN = """\
# A plan: who does what, and in which order.
#
#   ./run-all-tasks.py THIS-FILE --dry-run          show the schedule, start nothing
#   ./run-all-tasks.py THIS-FILE                    run it, or go on where it stopped
#   ./run-all-tasks.py THIS-FILE --agent offline    rehearse it without any agent or key
#
# Paths are relative to the folder of this file. Durations are seconds, or 90s, 15m, 2h.
# A key that is not explained here does not exist: a misspelt one is an error.

project: example                # a-z, 0-9 and -, at most 64; default: the name of this file
title: Three small steps        # free text, for people
max_parallel: 16                # tasks at the same time, 1 to 256
start_interval: 0.2s            # least time between two starts of the same agent

defaults:                       # for all tasks; a task that sets the same key wins
  cwd: .                        # the working folder of the agent; it must exist
  timeout: 1h                   # longest time of one attempt; 0 = no limit
  idle_timeout: 15m             # longest time without any output; 0 = no limit
  retries: 1                    # further attempts after a failure
  critical: true                # false: the plan goes on when the task fails
  verify_timeout: 10m           # longest time of the checks that `verify` lists
  env: {EXAMPLE: "text"}        # environment variables; a task adds to them

# Who does a task: its role names agents in order of preference, and the first one that is
# installed gets it. These roles exist: implementation (the default), research, documentation,
# testing, and review. A role here is added to them, or replaces the one of that name.
roles:
  writing:
    agents: [claude, codex, gemini]
    alternate: false            # true: the tasks of the role take turns among its agents
    quorum: 0                   # 2: each task is judged by all agents, and two must approve

stages:
  - id: look                    # ids are unique in the whole plan: letters, digits, . _ -
    title: Look around
    barrier: true               # the next stage waits until all tasks here are done (default)
    timeout: 8h                 # for the whole stage; 0 = no limit (default)
    tasks:
      - id: list-files          # also the name of its prompt file and of its run folders
        title: List what is here
        agent: shell            # one agent instead of a role; shell runs the sh block below
        prompt: |
          List the files of the working folder.

          ```sh
          ls -la
          ```
        expect:
          output: "\\\\S"          # a pattern (Python's) that must be found in the answer
          files: []             # must exist: a path, or {path: report.md, changed: true} for
                                # one that must have been written during the run

  - id: work
    title: Do something
    tasks:
      - id: describe
        title: Describe what is here
        role: writing
        depends_on: [list-files]  # tasks of this stage or of one before
        # Exactly one of prompt, prompt_file and template says what to do:
        #   prompt_file: describe.md      the text of a file
        #   template: component           prompts/templates/component.md, where $name is
        #   vars: {name: parser}          filled from vars
        prompt: |
          Read the answer of the task that you depend on, and describe in five sentences what
          this folder is for. Change nothing.
        exclusive: checkout     # tasks with the same name here never run at the same time
        loop: false             # true: the agent is started until it makes $JRUN_TASK_FOLDER/DONE
        # Beside `loop: true` only:
        #   max_restarts: 100     at most so many attempts in all
        #   child_wait: 300s      with DONE, wait at most that long for its child runs

  - id: check
    title: Check it
    tasks:
      - id: check-folder
        title: The folder is still there
        agent: shell
        prompt: |
          ```sh
          echo "checked $(pwd)"
          ```
        verify:                 # run by sh in cwd after the agent; each must end with 0
          - test -d .
"""
