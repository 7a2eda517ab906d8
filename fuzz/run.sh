#!/usr/bin/env bash
# Fuzzes every target for a bounded time: fuzz/run.sh [SECONDS] [TARGET..]. What it finds is kept under
# fuzz/artifacts/; a finding becomes a test beside the code it broke.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-60}
shift || true
targets=("$@")
((${#targets[@]})) || targets=(form signature config replies exchange)

export PATH="$PWD/.tools/cargo-fuzz/bin:$PATH"
rustup run nightly rustc --version >/dev/null 2>&1 ||
    { echo "libFuzzer needs a nightly compiler: rustup toolchain install nightly" >&2; exit 1; }
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --version 0.13.2 --root .tools/cargo-fuzz cargo-fuzz

for target in "${targets[@]}"; do
    printf '\n=== %s for %d s\n' "$target" "$seconds"
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target" "fuzz/artifacts/$target"
    log="fuzz/artifacts/$target/log"
    if ! cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -max_len=8192 >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "$target: a finding, or no build; all of it in $log" >&2
        exit 1
    fi
    grep '^Done' "$log"
done
