#!/usr/bin/env bash
# cargo with the toolchains that setup.sh found:
#
#   cargo.sh SUBCOMMAND ..           for this machine
#   cargo.sh --wasm SUBCOMMAND ..    for wasm32-wasip1, in a target directory of its own
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

choice() { sed -n "s/^$1=//p" "$root/.tools/toolchain.env" 2>/dev/null || true; }

pinned=$(choice RUSTUP_TOOLCHAIN)
[[ -n $pinned ]] && export RUSTUP_TOOLCHAIN=$pinned

if [[ ${1:-} != --wasm ]]; then
    exec cargo "$@"
fi
subcommand=$2
shift 2

toolchain=${WASM_TOOLCHAIN:-$(choice WASM_TOOLCHAIN)}
target=(--target wasm32-wasip1 --target-dir "${CARGO_TARGET_DIR:-$root/target}/wasm-build")
case $toolchain in
rustup) exec cargo "$subcommand" "${target[@]}" "$@" ;;
debian)
    # Debian has no std for this target, but its sources; building them is what
    # RUSTC_BOOTSTRAP allows. Its clippy belongs to its rustc.
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
    CARGO_TARGET_WASM32_WASIP1_LINKER=$(choice WASM_LINKER)
    export CARGO_TARGET_WASM32_WASIP1_LINKER
    export CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS=-Lnative=/usr/lib/wasm32-wasi
    # Flags of a release (setup/release.sh) replace those of the target.
    [[ -n ${CARGO_ENCODED_RUSTFLAGS:-} ]] && CARGO_ENCODED_RUSTFLAGS+=$'\x1f-Lnative=/usr/lib/wasm32-wasi'
    cargo=(cargo "$subcommand")
    [[ $subcommand == clippy ]] && cargo=(/usr/bin/cargo-clippy clippy)
    exec "${cargo[@]}" -Zbuild-std=std,panic_abort "${target[@]}" "$@"
    ;;
*)
    echo "no wasm toolchain is configured: run \`make setup\`" >&2
    exit 1
    ;;
esac
