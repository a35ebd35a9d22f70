#!/bin/sh
# run.sh [SECONDS [capi|readers]]: fuzzes the C ABI and then the command's readers of files, or only
# the one that is named, for SECONDS each (60 by default). Fails if there is a finding. See
# docs/fuzzing.md.
set -eu

seconds=${1:-60}
targets=${2:-capi readers}
cd "$(dirname "$0")/.."
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is needed: cargo install cargo-fuzz --locked" >&2
    exit 1
fi

# Seeds for each function, which the first byte chooses: the plainest call and a few with other
# bytes, the same every time.
functions=$(sed -n 's/.*match input.byte() % \([0-9]*\).*/\1/p' fuzz/fuzz_targets/capi/calls.rs)
[ "$functions" -gt 0 ]
all=$(mktemp -d)
trap 'rm -rf "$all"' EXIT
seeds=$all/capi
mkdir -p "$all/capi" "$all/readers"
awk -v dir="$seeds" -v functions="$functions" 'BEGIN {
    x = 1
    for (f = 0; f < functions; f++) for (k = 0; k < 4; k++) {
        s = sprintf("\\%03o", f)
        for (i = 0; k > 0 && i < 400; i++) {
            x = (x * 69069 + 1) % 4294967296
            s = s sprintf("\\%03o", int(x / 16777216))
        }
        print s > (dir "/" f "-" k ".octal")
    }
}'
for octal in "$seeds"/*.octal; do
    # The format consists of escapes only.
    printf "$(cat "$octal")" >"${octal%.octal}"
    rm "$octal"
done

# Seeds for each format, which the first byte chooses: a small file.
npy() {
    # The header has 118 bytes.
    printf '\223NUMPY\001\000v\000%-117s\n' "{'descr': '$1', 'fortran_order': $2, 'shape': $3}"
    printf 'elements'
    printf 'elements'
}
seeds=$all/readers
npy '<f4' False '(2, 2)' >"$all/plain.npy"
{ printf '\000' && cat "$all/plain.npy"; } >"$seeds/plain"
{ printf '\000' && npy '>i4' True '(2L, 2L)'; } >"$seeds/fortran"
{ printf '\000' && npy '|b1' False '(16,)' && cat "$all/plain.npy"; } >"$seeds/several"
python3 - "$all" <<'END'
import sys, zipfile
for name, method in ("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(f"{sys.argv[1]}/zip", "w", method) as archive:
        archive.write(f"{sys.argv[1]}/plain.npy", "a.npy")
        archive.writestr("b.npy", open(f"{sys.argv[1]}/plain.npy", "rb").read())
    with open(f"{sys.argv[1]}/readers/{name}", "wb") as seed:
        seed.write(b"\1" + open(f"{sys.argv[1]}/zip", "rb").read())
END
header='{"__metadata__":{"a":"b"},"x":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},"y":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}}'
length=$(printf '\\%03o' ${#header})
{ printf "\\002$length"'\000\000\000\000\000\000\000'; printf '%selementselements' "$header"; } >"$seeds/tensors"
printf '\003a,b\n1,"2.5"\n-inf,4e-5\n' >"$seeds/csv"
printf '\0041\t2\n3\t4\n' >"$seeds/tsv"
printf '\005# 1\n 1 2  3\n\n4 5 nan' >"$seeds/txt"

# Sanitizers are unstable options of the stable compiler. Several codegen units, and no traces of
# comparisons, which the shapes of calls do not need: otherwise the large kernels would take a
# quarter of an hour to build.
for target in $targets; do
    mkdir -p "fuzz/corpus/$target"
    RUSTC_BOOTSTRAP=1 cargo fuzz run --codegen-units 16 --no-trace-compares "$target" \
        "fuzz/corpus/$target" "$all/$target" -- \
        -max_total_time="$seconds" -timeout=30 -max_len=4096 -print_final_stats=1
done
