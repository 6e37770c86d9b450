# shellcheck shell=bash disable=SC2154
# The host's half of `just train`: check the configuration and the credentials, then start one job in tmux. Sent after
# remote/host.sh.

# make_job JOB ARGUMENT...: all that job.sh needs, in a folder of its own, since the checkout may change meanwhile.
make_job() {
    local job=$1
    shift
    mkdir -p "$job"
    chmod 700 "$JOBS"
    printf '%s\0' "$@" >"$job/argv"
    printf '%q ' "${@/#"$REMOTE_ROOT/"/}" >"$job/command"
    git log -1 --format='%s (tree %T)' >"$job/source"
    printf '%s' "$HOST_SH" >"$job/host.sh"
    printf '%s' "$JOB_SH" >"$job/job.sh"
    : >"$job/log"
    printf '%-8s\n' running >"$job/state.running"
}

# check_configuration OUTPUT CONFIG ARGUMENT...: what is wrong with it is told here, not in a log.
check_configuration() {
    local output=$1 config=$2
    shift 2
    "$PYTHON" -m cli.train --config "$config" "$@" --print-config >"$output" || return
    (load_env && "$PYTHON" - "$output" <<<"$CHECK_WANDB")
}

# torchrun_words NODES RANK GPUS MASTER: how one of several nodes begins; rank 0 of node 0 writes the run.
torchrun_words() {
    local gpus=$3
    [ -n "$gpus" ] || gpus=$(nvidia-smi -L 2>/dev/null | grep -c ^GPU) || gpus=1
    words=("$PYTHON" -m torch.distributed.run --nnodes "$1" --node-rank "$2" --nproc-per-node "$gpus"
        --master-addr "${4%:*}" --master-port "${4##*:}" -m cli.train)
}

# run_train_remote JOB FORCE NODES RANK GPUS MASTER CONFIG ARGUMENT...
run_train_remote() {
    local job=$JOBS/$1 force=$2 nodes=$3 rank=$4 gpus=$5 master=$6 config=$7
    shift 7
    need_build
    command -v tmux >/dev/null || die "tmux is missing on this host; run: just bootstrap-remote"
    [ -f "$config" ] || die "there is no configuration $REMOTE_ROOT/$config on the host; just bootstrap-remote sends what is new here"
    take_lock
    if is_running; then
        [ "$force" = 1 ] || die "training is running already: just attach-train shows it, just kill-train ends it, force=1 does so before it begins"
        await_stop "$(ask_to_stop)" 120
    fi
    local resolved words=("$PYTHON" -m cli.train)
    resolved=$(mktemp)
    # shellcheck disable=SC2064
    trap "rm -f '$resolved'" EXIT
    check_configuration "$resolved" "$config" "$@"
    if [ "$nodes" -gt 1 ]; then
        torchrun_words "$nodes" "$rank" "$gpus" "$master"
    elif [ -n "$gpus" ]; then
        set -- --set "ddp.nproc_per_node=$gpus" "$@"
    fi
    make_job "$job" "${words[@]}" --config "$config" "$@" || { rm -rf "$job"; die "the job cannot be written to $JOBS: is the host's disk full?"; }
    [ "$nodes" -eq 1 ] || : >"$job/torchrun"
    # Several words, so that tmux runs them with no shell between, and none of them the user's: it reads a ; at the end
    # of a word, and #( ) in a path. It starts in this folder. Of two launches at once, it refuses the second.
    tmux -u new-session -d -s "$SESSION" -x 200 -y 50 bash "runs/.jobs/${job##*/}/job.sh" "${job##*/}" 3>&- 9>&- ||
        { rm -rf "$job"; die "tmux could not start the session $SESSION (above)"; }
    local attempt
    for attempt in $(seq 50); do
        [ ! -e "$job/state" ] || return 0
        sleep 0.1
    done
    die "the job did not start within ${attempt}00 ms; see just attach-train"
}
