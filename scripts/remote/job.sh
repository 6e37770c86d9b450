#!/usr/bin/env bash
# One training job, started by tmux in the checkout: job.sh JOB. In runs/.jobs/JOB it reads argv, writes log and pid,
# and the state at the end.
set -uo pipefail
REMOTE_ROOT=$PWD
job=$REMOTE_ROOT/runs/.jobs/$1
# shellcheck source-path=SCRIPTDIR source=host.sh
. "$job/host.sh"
set +e
load_env
export PYTHONUNBUFFERED=1

echo "$$" >"$job/runner"
mv "$job/state.running" "$job/state" # from here on this is a job
mapfile -d '' -t argv <"$job/argv"
exec 3>&1
# tee has to outlive the signals that end the job: the last lines are the ones that matter.
exec > >(trap '' TERM INT HUP && exec tee -a "$job/log") 2>&1
tee=$!
child=
trap '[ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM HUP INT
"${argv[@]}" </dev/null 3>&- &
child=$!
echo "$child" >"$job/pid"
while :; do # a trapped signal ends wait early
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done
exec >&3 2>&3 3>&-
wait "$tee"
# The file has its size already, so this needs no room on a full disk.
printf '%-8s\n' "exit $code" 1<>"$job/state"
