#!/usr/bin/env bash
# Builds the examples as a user would, with gcc and with clang, against an installed library, and
# runs them, under valgrind too. check.sh PREFIX: where `cargo cinstall -p softmax-capi --profile
# dist --prefix PREFIX --libdir lib` has put it.
set -euo pipefail
prefix=$(realpath "$1")
cd "$(dirname "$0")"
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig" LD_LIBRARY_PATH="$prefix/lib"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
warnings="-O2 -g -Wall -Wextra -Werror -pedantic"
flags=$(pkg-config --cflags --libs softmax)
for cc in gcc clang; do
  $cc -std=c99 $warnings attention.c $flags -lm -lpthread -o "$out/attention-$cc"
  "$out/attention-$cc"
done
for cxx in g++ clang++; do
  $cxx -std=c++17 $warnings logits.cpp $flags -o "$out/logits-$cxx"
  "$out/logits-$cxx"
done
# The static library, with what it needs of the system.
gcc -std=c99 $warnings attention.c -I"$prefix/include" "$prefix/lib/libsoftmax.a" $(pkg-config --static --libs softmax | sed 's/-lsoftmax//') -o "$out/static"
"$out/static" >/dev/null
# Nothing shared at all: the unwinder has another name then.
gcc -static -std=c99 $warnings attention.c -I"$prefix/include" "$prefix/lib/libsoftmax.a" $(pkg-config --static --libs softmax | sed 's/-lsoftmax//; s/-lgcc_s/-lgcc_eh/') \
  -o "$out/all-static" 2> >(grep -v 'warning: Using .* in statically linked\|in function' >&2)
"$out/all-static" >/dev/null
# Beside a shared copy, which comes and goes; and beside another library with Rust's runtime.
tests=../tests/installed
static=(-I"$prefix/include" "$prefix/lib/libsoftmax.a")
needs=$(pkg-config --static --libs softmax | sed 's/-lsoftmax//')
gcc -std=c99 $warnings $tests/copies.c "${static[@]}" $needs -ldl -o "$out/copies"
"$out/copies" "$prefix/lib/libsoftmax.so"
rustc -O --edition 2024 --crate-type staticlib $tests/other.rs -o "$out/libother.a"
gcc -std=c99 $warnings $tests/two_libraries.c "${static[@]}" "$out/libother.a" $needs -o "$out/two"
"$out/two" 2>/dev/null
# Processes that are forked after calls on several threads.
python3 $tests/fork.py "$prefix/lib/libsoftmax.so"
# Valgrind 3.19 knows no AVX-512.
export SOFTMAX_KERNEL=${SOFTMAX_VALGRIND_KERNEL-avx2}
for program in attention-gcc logits-g++; do
  valgrind -q --error-exitcode=1 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
    "$out/$program" >/dev/null
done
# Nothing but the ABI is exported.
symbols=$(nm -D --defined-only "$prefix/lib/libsoftmax.so" | awk '{print $3}')
others=$(awk '!/^softmax_/' <<<"$symbols")
if [ -n "$others" ]; then echo "exported, too: $others"; exit 1; fi
if [ -z "$symbols" ]; then echo "nothing is exported"; exit 1; fi
echo "exported: $(wc -l <<<"$symbols") functions, all softmax_"
