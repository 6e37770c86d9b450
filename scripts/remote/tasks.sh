# shellcheck shell=bash disable=SC2153,SC2154
# What the host can do: the functions that recipes call by name. Sent after host.sh.

# --- source -----------------------------------------------------------------------------------------------------------

host_root() { printf '%s\n' "$REMOTE_ROOT"; }

own_address() { { hostname -I 2>/dev/null || true; } | cut -d ' ' -f 1; }

is_training() { is_running && echo yes || echo no; }

# update_source COMMIT FORCE: check out what was pushed (or fetched) before.
update_source() {
    local commit=$1 force=$2
    enter_root
    take_lock
    if [ -e "$UPDATING" ]; then
        rm -f .git/index.lock # of an update that was cut off; nobody else is at work, we hold the lock
    elif git rev-parse -q --verify HEAD >/dev/null; then
        if [ -n "$(git status --porcelain)" ] && [ "$force" != 1 ]; then
            git status --short >&2
            die "the files above were changed on the host. Fetch what you need of them, or overwrite them with: just bootstrap-remote force=1"
        fi
        if [ "$(git rev-parse HEAD)" = "$commit" ] && [ -z "$(git status --porcelain)" ]; then
            say "source: up to date ($(git log -1 --format=%s))"
            make_folders
            return
        fi
    fi
    if is_running && [ "$force" != 1 ]; then
        die "training runs from this checkout, and another source would change it under its feet. Wait for it (just wait-train), end it (just kill-train), or pass force=1"
    fi
    : >"$UPDATING"
    git checkout -q --force --detach "$commit"
    git clean -fdq # files of an update that was cut off; what git ignores (data, runs, env, .venv) stays
    rm -f "$UPDATING"
    make_folders
    say "source: $(git log -1 --format=%s)"
}

make_folders() {
    mkdir -p data runs env
    chmod 700 env
}

# fetch_source URL REF FORCE: take the source from a git server instead of the local checkout.
fetch_source() {
    local url=$1 ref=$2 force=$3
    enter_root
    GIT_TERMINAL_PROMPT=0 git fetch -q --depth 1 -- "$url" "$ref" ||
        die "$url cannot be read from this host; unset REPO_URL to send the local checkout instead"
    update_source "$(git rev-parse FETCH_HEAD)" "$force"
}

# Prints the tree that is checked out, to be compared with the local one.
source_tree() {
    need_source
    git rev-parse 'HEAD^{tree}'
}

# Without the list of a hundred packages, each on its line.
sync_packages() { uv sync "$@" 2>&1 | sed '/^ [-+~] /d' >&2; }

build_remote() {
    need_source
    take_lock
    command -v uv >/dev/null || die "uv is missing on this host; run: just bootstrap-remote"
    local status=0
    if [ -f uv.lock ] && uv lock --check --quiet 2>/dev/null; then
        sync_packages --frozen || status=$?
    else
        sync_packages || status=$?
    fi
    [ "$status" -eq 0 ] || die "uv sync failed (above); mend that and run: just build-remote"
    scripts/export_lock.sh 2>/dev/null | cmp -s - requirements.lock ||
        say "note: the versions installed here are not quite those of requirements.lock"
    say "build: $("$PYTHON" --version), .venv is as uv.lock says"
}

fetch_data() {
    need_source
    take_lock
    bash scripts/fetch_data.sh "$1" || die "the data did not come whole (above). Run just data-remote again, it goes on where it stopped; a configuration that needs none of it trains without: just train"
}

# put_env NAME CONTENT: the content came on standard input, as all arguments do; only builtins touch it.
put_env() {
    enter_root
    make_folders
    umask 077
    printf '%s' "$2" >"env/.$1.partial" || die "env/$1 cannot be written on this host: is its disk full?"
    mv -f "env/.$1.partial" "env/$1"
    say "env: $1 is on the host, readable by its owner only"
}

# --- jobs -------------------------------------------------------------------------------------------------------------

# await_start JOB SECONDS: show how the log begins; a job that ends at once gives its exit code.
await_start() {
    local job=$JOBS/$1 state code deadline=$((SECONDS + $2))
    while read -r state code <"$job/state"; do
        if [ "$state" = exit ]; then
            cat "$job/log" || true
            [ "$code" -eq 0 ] || say "error: training ended at once with exit code $code"
            exit "$code"
        fi
        if [ -n "$(job_run "$job")" ] || [ "$SECONDS" -ge "$deadline" ] || ! is_running; then break; fi
        sleep 0.2
    done
    cat "$job/log"
    [ -n "$(job_run "$job")" ] || say "it is still starting"
    say "training runs in tmux session $SESSION on the host: just logs-train follows it, just attach-train shows it, just kill-train ends it"
}

need_training() { is_running || die "no training is running; just status-train tells how the last one ended"; }

status_train() {
    local job run
    job=$(newest_job)
    run=$(job_run "$job")
    printf 'job       %s\n' "${job##*/}"
    printf 'state     %s\n' "$(job_state "$job")"
    printf 'command   %s\n' "$(cat "$job/command")"
    printf 'source    %s\n' "$(cat "$job/source")"
    printf 'run       %s\n' "${run:-not begun}"
    printf 'log       %s\n' "$(tail -n 1 "$job/log" 2>/dev/null)"
    printf 'disk      %s free\n' "$(df -hP "$REMOTE_ROOT" | awk 'NR == 2 { print $4 }')"
    if command -v nvidia-smi >/dev/null; then
        nvidia-smi --query-gpu=index,name,utilization.gpu,memory.used,memory.total --format=csv,noheader |
            sed 's/^/gpu       /' || true
    fi
}

# logs_train LINES FOLLOW
logs_train() {
    local job state code
    job=$(newest_job)
    read -r state code <"$job/state"
    if [ "$2" = 1 ] && [ "$state" = running ] && is_running; then
        tail -n "$1" -f --pid="$(cat "$job/runner")" "$job/log"
    else
        tail -n "$1" "$job/log"
    fi
}

# wait_train EVERY: prints how the job ended, and exits with its code.
wait_train() {
    local job state code
    job=$(newest_job)
    while read -r state code <"$job/state" && [ "$state" = running ]; do
        is_running || { sleep 1 && read -r state code <"$job/state" && [ "$state" = exit ] && break; } ||
            die "training $(job_state "$job"); just logs-train shows how far it came, just resume-train continues"
        sleep "$1"
    done
    say "training ended with exit code $code"
    exit "$code"
}

# Which processes to ask: torchrun gives its workers 30 seconds and then kills them, so they are asked directly.
trainer_pids() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) || return 0
    local workers=''
    if [ -e "$1/torchrun" ]; then workers=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true); fi
    printf '%s\n' "${workers:-$pid}" # torchrun without workers is still waiting for the other nodes
}

# ask_to_stop: SIGTERM, once: training finishes its step and saves, and takes a second signal for "abort". Prints the job.
ask_to_stop() {
    is_running || return 0
    local job pid
    job=$(newest_job)
    printf '%s\n' "${job##*/}"
    if [ -e "$job/stopping" ]; then
        say "it was asked to stop already; waiting for it"
        return
    fi
    : >"$job/stopping" || true # a full disk must not keep it from being stopped
    for pid in $(trainer_pids "$job"); do kill -TERM "$pid" 2>/dev/null || true; done
}

# await_stop JOB GRACE_S: wait for the end, then insist.
await_stop() {
    local job=$JOBS/$1 deadline=$((SECONDS + $2)) state code
    while is_running && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.2; done
    if is_running; then
        say "still running after $2 s: killing it; the newest checkpoint that it saved stays"
        kill -KILL -- "-$(cat "$job/runner")" 2>/dev/null || true
        tmux kill-session -t "=$SESSION" 2>/dev/null || true
        printf '%-8s\n' 'exit 137' 1<>"$job/state"
    fi
    tail -n 3 "$job/log" >&2
    read -r state code <"$job/state"
    say "training ended with $state code $code"
    [ -z "$(job_run "$job")" ] || say "just resume-train run=$(basename "$(job_run "$job")") continues it"
}

nvitop_once() { exec nvitop -1 "$@"; }

# run_name NAME: the run's real name; "latest" is looked up, so that everything after speaks of one run.
run_name() {
    local run=$1
    enter_root
    if [ "$run" = latest ]; then
        run=$(readlink runs/latest) || die "no run on this host has a checkpoint yet; run: just train"
    fi
    [ -f "runs/$run/config.toml" ] || die "there is no run \"$run\" on this host; just list-runs shows those there are"
    printf '%s\n' "$run"
}

# --- files ------------------------------------------------------------------------------------------------------------

list_runs() {
    enter_root
    local run checkpoint
    for run in runs/*/; do
        run=${run%/}
        if [ ! -d "$run" ] || [ -L "$run" ]; then continue; fi
        checkpoint=$(readlink "$run/checkpoints/latest") || checkpoint='no checkpoint'
        printf '%-40s  %-14s  %6s\n' "${run#runs/}" "$checkpoint" "$(du -sh "$run" | cut -f 1)"
    done
}

# locate PATH: check that it exists inside the root; prints the absolute path, and whether rsync is here.
locate() {
    enter_root
    [ -e "$1" ] || [ -L "$1" ] || die "there is no $REMOTE_ROOT/$1 on the host"
    printf '%s\n' "$REMOTE_ROOT/$1"
    command -v rsync >/dev/null && printf 'rsync\n' || printf 'no rsync\n'
}

locate_runs() {
    enter_root
    [ ! -d runs ] || printf '%s/runs\n' "$REMOTE_ROOT"
}

pack() { tar -C "$(dirname -- "$1")" -cf - -- "$(basename -- "$1")"; }
