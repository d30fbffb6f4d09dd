#!/usr/bin/env bash
# The baseline: one run of an agent as a plain shell script does it, step for
# step what the shell ancestor of run-agent.py did, with two lines of log as its
# plan script wrote them.  No lock, no fsync, no limits, no repair.
#
# Usage: RUNS_DIR=… MESSAGE_BUS=… shell_original.sh AGENT CWD PROMPT_FILE

set -uo pipefail # without -e: under it a failing agent would end the script at `wait`

here="$(cd "$(dirname "$0")" && pwd)"
export RUNS_DIR="${RUNS_DIR:-$here/runs}"
export MESSAGE_BUS="${MESSAGE_BUS:-$here/MESSAGE-BUS.md}"
unset CLAUDECODE

agent="${1:-sh}"
cwd="${2:-$here}"
prompt="${3:-$here/prompt.md}"

if [ ! -f "$prompt" ]; then
  echo "no prompt file $prompt" >&2
  exit 1
fi
prompt="$(cd "$(dirname "$prompt")" && pwd)/$(basename "$prompt")"

log() {
  printf '[%s] %s: %s\n' "$(date -u '+%Y-%m-%d %H:%M:%S')" "$1" "$2" >>"$MESSAGE_BUS"
}

# -- the run folder

run_id="run_$(date -u +%Y%m%d-%H%M%S)-$$"
run_dir="$RUNS_DIR/$run_id"
mkdir -p "$run_dir"
cp "$here/shell_original.sh" "$run_dir/run-agent.sh"
cp "$prompt" "$run_dir/prompt.md"

stdout="$run_dir/agent-stdout.txt"
stderr="$run_dir/agent-stderr.txt"

printf 'RUN_ID=%s\nRUN_DIR=%s\n' "$run_id" "$run_dir"
log RUN_START "$run_id $agent $cwd"

# -- the agent

case "$agent" in
  sh) # the prompt is the script
    line="/bin/sh < $run_dir/prompt.md"
    (
      cd "$cwd" || exit
      /bin/sh <"$run_dir/prompt.md" >"$stdout" 2>"$stderr"
    ) &
    ;;
  true)
    line="/bin/true < $run_dir/prompt.md"
    (
      cd "$cwd" || exit
      /bin/true <"$run_dir/prompt.md" >"$stdout" 2>"$stderr"
    ) &
    ;;
  *)
    echo "unknown agent $agent" >&2
    exit 2
    ;;
esac

pid=$!
echo "$pid" >"$run_dir/pid.txt"
echo "PID=$pid"

cat >"$run_dir/cwd.txt" <<END
RUN_ID=$run_id
CWD=$cwd
AGENT=$agent
CMD=$line
PROMPT=$run_dir/prompt.md
STDOUT=$stdout
STDERR=$stderr
PID=$pid
END

# -- its end

wait "$pid"
code=$?
rm -f "$run_dir/pid.txt"
echo "EXIT_CODE=$code" >>"$run_dir/cwd.txt"
log RUN_STOP "$run_id exit code $code"
exit "$code"
