#!/usr/bin/env bash
# Builds the examples, and runs each: candle, tract, attention, and MPI with 1, 2 and 4 processes on
# this machine. Every step checks its results; one that fails, or cannot run, fails the script.
# Needs an MPI library and libclang:
# apt-get install libopenmpi-dev openmpi-bin libclang-dev clang pkg-config
# With --full: larger shapes and more rounds, for the numbers in docs/.
set -euo pipefail
cd "$(dirname "$0")"

quick=(--quick)
case "${1-}" in
  '') ;;
  --full) quick=() ;;
  *) echo "$1: the only option is --full" >&2; exit 2 ;;
esac

for program in mpicc mpirun clang; do
  command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 1; }
done

cargo build --release --locked --features mpi
bin=${CARGO_TARGET_DIR:-target}/release

"$bin/candle" "${quick[@]}"
"$bin/tract" "${quick[@]}"
"$bin/attention" "${quick[@]}"

# Processes of one machine use shared memory, and are started without a network.
mpi=(mpirun --oversubscribe --mca btl self,vader --mca btl_vader_single_copy_mechanism none
     --mca plm isolated --mca oob_tcp_if_include lo)
if [ "$(id -u)" = 0 ]; then mpi+=(--allow-run-as-root); fi
for ranks in 1 2 4; do
  "${mpi[@]}" -n "$ranks" "$bin/mpi_vocab" "${quick[@]}"
done
