#!/usr/bin/env bash
# run.sh PREFIX [ROUNDS]: builds ggml from the sources in the crate llama-cpp-sys-2, and the example
# with it and an installed library; then runs the example. PREFIX is where `cargo cinstall -p
# softmax-capi --profile dist --prefix PREFIX --libdir lib` has put the library.
set -euo pipefail
prefix=$(realpath "$1")
rounds=${2:-31}
cd "$(dirname "$0")"
cargo fetch --locked
manifest=$(cargo metadata --locked --format-version 1 | python3 -c '
import json, sys
packages = json.load(sys.stdin)["packages"]
print(next(p["manifest_path"] for p in packages if p["name"] == "llama-cpp-sys-2"))')
build=${SOFTMAX_GGML_BUILD:-$PWD/target/ggml}
sources=$build/sources
mkdir -p "$build"
rm -rf "$sources"
cp -Rp "$(dirname "$manifest")/llama.cpp/ggml" "$sources"
# The crate does not contain this file, which is only for an installation.
touch "$sources/ggml.pc.in"
cmake -S "$sources" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON \
  -DGGML_OPENMP=OFF -DGGML_CCACHE=OFF -DGGML_BUILD_TESTS=OFF -DGGML_BUILD_EXAMPLES=OFF \
  -DCMAKE_C_FLAGS=-w -DCMAKE_CXX_FLAGS=-w >/dev/null
cmake --build "$build" --target ggml-cpu --parallel 2 >/dev/null
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig" LD_LIBRARY_PATH="$prefix/lib"
# ggml's headers are not C99 without extensions.
gcc -std=gnu11 -O2 -Wall -Wextra -Werror softmax.c -isystem "$sources/include" $(pkg-config --cflags softmax) \
  -L"$build/src" -lggml-cpu -lggml-base $(pkg-config --libs softmax) -lstdc++ -lm -lpthread -o "$build/softmax"
for threads in 1 2; do "$build/softmax" "$rounds" $threads; done
