# shellcheck shell=bash disable=SC2034
# What everything on the host begins with. hosts.py sends this file and tasks.sh on standard input to `bash -s`, after
# REMOTE_ROOT and before one call of a function, so nothing of ours has to be on the host beforehand and nobody's login
# shell parses anything.
set -euo pipefail

# A shell that is not a login shell reads no profile: the folders that uv installs into may be missing from PATH.
export PATH="$HOME/.local/bin:$HOME/.cargo/bin:$PATH"

case "${REMOTE_ROOT:?}" in
    \~) REMOTE_ROOT=$HOME ;;
    \~/*) REMOTE_ROOT=$HOME/${REMOTE_ROOT#\~/} ;;
    /*) ;;
    *) REMOTE_ROOT=$HOME/$REMOTE_ROOT ;;
esac
SESSION=transformerlm-train
JOBS=$REMOTE_ROOT/runs/.jobs
PYTHON=$REMOTE_ROOT/.venv/bin/python
UPDATING=$REMOTE_ROOT/.git/transformerlm-updating

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# Run a function; end it, with all it started, once the other end of our standard input is gone: a recipe whose
# connection was lost leaves nothing running.
attached() {
    exec 3<&0
    set -m # each background job is a process group of its own
    "$@" </dev/null 3<&- &
    local body=$! watcher status=0
    { cat <&3; kill -TERM -- "-$body"; } >/dev/null 2>&1 &
    watcher=$!
    wait "$body" || status=$?
    kill -KILL -- "-$watcher" 2>/dev/null || true
    exit "$status"
}

# One recipe at a time changes the tree. What a lost connection left running still holds the lock.
take_lock() {
    mkdir -p "$HOME/.cache/transformerlm"
    exec 9>"$HOME/.cache/transformerlm/remote.lock"
    flock -n 9 && return
    say "another recipe is changing things on this host; waiting for it"
    flock -w "${REMOTE_LOCK_WAIT_S:-600}" 9 || die "it is still at work; try again later"
}

enter_root() {
    [ -e "$REMOTE_ROOT/.git" ] || die "there is no checkout in $REMOTE_ROOT on this host; run: just bootstrap-remote"
    cd "$REMOTE_ROOT"
}

need_source() {
    enter_root
    [ -f pyproject.toml ] || die "the checkout in $REMOTE_ROOT on this host is not complete; run: just bootstrap-remote"
}

need_build() {
    need_source
    [ -x "$PYTHON" ] || die "nothing is installed on this host yet; run: just build-remote"
}

is_running() { tmux has-session -t "=$SESSION" 2>/dev/null; }

# A launch that was cut off leaves a folder without a state; that is no job.
newest_job() {
    local job newest=''
    for job in "$JOBS"/*/state; do [ ! -e "$job" ] || newest=${job%/state}; done
    [ -n "$newest" ] || die "there has been no training on this host yet; run: just train"
    printf '%s\n' "$newest"
}

job_state() {
    local state code
    read -r state code <"$1/state"
    if [ "$state" != running ]; then
        printf 'exit %s\n' "$code"
    elif is_running; then
        printf 'running\n'
    else
        printf 'lost (it ended without a record: was the host restarted?)\n'
    fi
}

# The folder in which a job's run keeps its files, as the log names it; nothing while it is not known.
job_run() { sed -n 's/^run folder: //p' "$1/log" 2>/dev/null | tail -n 1; }

# Read NAME=value lines as data: nothing in them is expanded or run.
load_env() {
    local file line name value
    for file in "$REMOTE_ROOT"/env/*.env; do
        [ -f "$file" ] || continue
        while IFS= read -r line || [ -n "$line" ]; do
            name=${line%%=*}
            value=${line#*=}
            if [[ $line == *=* && $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]]; then export "$name=$value"; fi
        done <"$file"
    done
}
