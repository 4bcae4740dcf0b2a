#!/usr/bin/env bash
# One load run from a bare machine to a verdict, for example:
#
#   GATEWAY_PORT=4001 BUDGET_STRATEGY=disabled LOG_WRITER_STRATEGY=batch ./load/run_load_test.sh async-batch-disabled
#
# Builds .venv where there is none, starts the fake provider, the sink's server and the gateway, makes users and
# keys, runs k6, stops all of it, and compares every id with the rows. load/harness/README.md lists the variables.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export RESULTS_DIR="${RESULTS_DIR:-$root/.load/results}"
make --silent --no-print-directory -C "$root" .venv/.installed-load
exec "$root/.venv/bin/python" "$root/load/load_once.py" "${1:-load}"
