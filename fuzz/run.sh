#!/usr/bin/env bash
# Fuzzes every target for a bounded time: fuzz/run.sh [SECONDS] [TARGET..]. Each starts from fuzz/seeds/ and from the
# inputs of earlier runs (fuzz/corpus/). Findings are stored in fuzz/artifacts/; add a test for each beside the code
# that failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-60}
shift || true
targets=("$@")
((${#targets[@]})) || targets=(form signature config replies exchange recut capture)

export PATH="$PWD/.tools/cargo-fuzz/bin:$PATH"
# libFuzzer needs unstable compiler flags. Without a nightly compiler, RUSTC_BOOTSTRAP makes the pinned one accept them.
cargo_fuzz() { cargo +nightly fuzz "$@"; }
rustup run nightly rustc --version >/dev/null 2>&1 || cargo_fuzz() { RUSTC_BOOTSTRAP=1 cargo fuzz "$@"; }
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --version 0.13.2 --root .tools/cargo-fuzz cargo-fuzz
cargo_fuzz build

summary=$(printf '%-10s %6s %12s %9s' target seeds runs findings)
found=0
for target in "${targets[@]}"; do
    seeds=fuzz/seeds/$target corpus=fuzz/corpus/$target artifacts=fuzz/artifacts/$target
    mkdir -p "$corpus" "$artifacts"
    log=$artifacts/log
    printf '=== %s for %d s\n' "$target" "$seconds"
    before=$(find "$artifacts" -type f ! -name log | wc -l)
    cargo_fuzz run "$target" "$corpus" "$seeds" -- \
        -max_total_time="$seconds" -timeout=10 -max_len=8192 -print_final_stats=1 >"$log" 2>&1 ||
        { tail -n 40 "$log" >&2; echo "$target: full output in $log" >&2; found=1; }
    runs=$(awk '/^stat::number_of_executed_units:/ { print $2 }' "$log")
    findings=$(($(find "$artifacts" -type f ! -name log | wc -l) - before))
    summary+=$(printf '\n%-10s %6d %12s %9d' "$target" "$(find "$seeds" -type f | wc -l)" "${runs:-?}" "$findings")
done
printf '\n%s\n' "$summary"
exit "$found"
