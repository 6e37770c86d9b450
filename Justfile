set positional-arguments

# List the recipes.
default:
    @just --list

# Install everything that uv.lock pins.
sync:
    uv sync

# Run the tests; `just test -m "not slow"` passes arguments on.
test *arguments:
    uv run pytest "$@"

# Check style as CI does.
lint:
    uv run ruff check .
    uv run ruff format --check .

# Refresh uv.lock and requirements.lock after a change of dependencies.
lock:
    uv lock
    scripts/export_lock.sh > requirements.lock

# Regenerate the reference of all configuration keys.
reference:
    uv run python -m config.reference > docs/config.md

# Recipes for a rented host. Each hands its words, unread by any shell, to scripts/remote: key=value as shown below,
# in this order without the key, or --key value; words after -- go on to the command as they are.

export PRIME_HOST := env("PRIME_HOST", "")
export REMOTE_ROOT := env("REMOTE_ROOT", "")
export REMOTE_CALLER := invocation_directory()

# Everything in one: bootstrap, data, credentials, training; config=<toml> extra="<args>".
[group('remote'), no-exit-message]
auto-train *arguments:
    @python3 scripts/remote auto-train "$@"

# Install uv, just, tmux, rsync and nvitop, send this checkout, install packages; force=1 overwrites edits made there.
[group('remote'), no-exit-message]
bootstrap-remote *arguments:
    @python3 scripts/remote bootstrap-remote "$@"

# Run uv sync in the checkout on the host.
[group('remote'), no-exit-message]
build-remote *arguments:
    @python3 scripts/remote build-remote "$@"

# Run scripts/fetch_data.sh on the host; dest=data/fetched.
[group('remote'), no-exit-message]
data-remote *arguments:
    @python3 scripts/remote data-remote "$@"

# Send env/*.env to the host, readable by its owner only; env/wandb.env.example is a template.
[group('remote'), no-exit-message]
sync-env *arguments:
    @python3 scripts/remote sync-env "$@"

# Start training in tmux: config=<toml> extra="<args>" gpus=<number> nodes="<host> <host>" force=1.
[group('remote'), no-exit-message]
train *arguments:
    @python3 scripts/remote train "$@"

# Continue a run from its newest checkpoint: run=<name> extra="<args>"; without run= the latest.
[group('remote'), no-exit-message]
resume-train *arguments:
    @python3 scripts/remote resume-train "$@"

# Follow the log: lines=50 follow=1.
[group('remote'), no-exit-message]
logs-train *arguments:
    @python3 scripts/remote logs-train "$@"

# Tell how the newest job is doing.
[group('remote'), no-exit-message]
status-train *arguments:
    @python3 scripts/remote status-train "$@"

# Wait for the end of training and exit with its code.
[group('remote'), no-exit-message]
wait-train *arguments:
    @python3 scripts/remote wait-train "$@"

# Show the terminal that training runs in; Ctrl-b d leaves it running.
[group('remote'), no-exit-message]
attach-train *arguments:
    @python3 scripts/remote attach-train "$@"

# Let training finish its step, save and end; kill it after grace=120 seconds.
[group('remote'), no-exit-message]
kill-train *arguments:
    @python3 scripts/remote kill-train "$@"

# Run a command on the host: command="<cmd>" args="<extra>"; without command= that in CMD_INFER, or the benchmark.
[group('remote'), no-exit-message]
infer *arguments:
    @python3 scripts/remote infer "$@"

# Watch the host's GPUs.
[group('remote'), no-exit-message]
nvitop *arguments:
    @python3 scripts/remote nvitop "$@"

# Name the runs on the host, with their newest checkpoints and sizes.
[group('remote'), no-exit-message]
list-runs *arguments:
    @python3 scripts/remote list-runs "$@"

# Copy a file or folder of the host's checkout into the current folder: any_file=<path>.
[group('remote'), no-exit-message]
fetch *arguments:
    @python3 scripts/remote fetch "$@"

# Copy a run of the host into runs/: run=<name>; without run= the latest.
[group('remote'), no-exit-message]
fetch-run *arguments:
    @python3 scripts/remote fetch-run "$@"

# Rent the cheapest machine that fits, after showing its price and asking: gpu_type=H100_80GB gpus=1 name=<name> spot=1.
[group('rent'), no-exit-message]
pod-up *arguments:
    @python3 scripts/remote pod-up "$@"

# Write env/ssh_config, in which the pod is called prime-node: pod=<id> wait=<seconds>.
[group('rent'), no-exit-message]
pod-config *arguments:
    @python3 scripts/remote pod-config "$@"

# Tell what the rented pods cost.
[group('rent'), no-exit-message]
pod-cost *arguments:
    @python3 scripts/remote pod-cost "$@"

# Give a pod back: pod=<id>. Refuses while training runs or runs are not fetched; force=1 does not.
[group('rent'), no-exit-message]
pod-down *arguments:
    @python3 scripts/remote pod-down "$@"

# auto-train, wait for the end, fetch all runs, give the pod back: config=<toml> extra="<args>" pod=<id>.
[group('rent'), no-exit-message]
train-then-down *arguments:
    @python3 scripts/remote train-then-down "$@"
