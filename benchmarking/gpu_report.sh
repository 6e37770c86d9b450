#!/usr/bin/env bash
# Write benchmarking/results/<device>.md: everything about speed that needs a GPU, in less than eight minutes.
#
#     benchmarking/gpu_report.sh                 on a machine with a GPU and torch, numpy, pydantic, tomli; no network
#     benchmarking/gpu_report.sh --cpu-dry-run   the same on a CPU, with a tiny model: shows that everything runs
#
# PYTHON names another interpreter than python3. Everything else is passed on to benchmarking/gpu_report.py.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" -m benchmarking.gpu_report "$@"
