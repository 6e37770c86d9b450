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
