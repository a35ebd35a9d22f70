#!/bin/sh
# Fuzzes the C ABI for so many seconds (60 if none are given): docs/fuzzing.md. Fails if there is a
# finding.
set -eu

seconds=${1:-60}
cd "$(dirname "$0")/.."
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is needed: cargo install cargo-fuzz --locked" >&2
    exit 1
fi

# Seeds: of each function, which the first byte chooses, the plainest call and a few of other bytes,
# the same every time.
seeds=$(mktemp -d)
trap 'rm -rf "$seeds"' EXIT
awk -v dir="$seeds" 'BEGIN {
    x = 1
    for (f = 0; f < 36; f++) for (k = 0; k < 4; k++) {
        s = sprintf("\\%03o", f)
        for (i = 0; k > 0 && i < 400; i++) {
            x = (x * 69069 + 1) % 4294967296
            s = s sprintf("\\%03o", int(x / 16777216))
        }
        print s > (dir "/" f "-" k ".octal")
    }
}'
for octal in "$seeds"/*.octal; do
    # The format is all escapes.
    printf "$(cat "$octal")" >"${octal%.octal}"
    rm "$octal"
done

# Sanitizers are unstable options of the stable compiler. Several units, and no traces of
# comparisons, which the shapes of calls do not need: the kernels are large, and would take a
# quarter of an hour to build.
mkdir -p fuzz/corpus/capi
RUSTC_BOOTSTRAP=1 cargo fuzz run --codegen-units 16 --no-trace-compares capi fuzz/corpus/capi "$seeds" -- \
    -max_total_time="$seconds" -timeout=30 -max_len=4096 -print_final_stats=1
