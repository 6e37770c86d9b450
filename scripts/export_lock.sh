#!/usr/bin/env bash
# Print what uv.lock pins, with hashes and without download addresses: the content of requirements.lock. The group
# peers, which only comparisons need, is left out.
set -euo pipefail
cd "$(dirname "$0")/.."
uv lock --quiet
uv export --quiet --frozen --all-groups --no-group peers --no-emit-project --no-header --no-annotate
