#!/usr/bin/env bash
# Builds all files of a release into dist/. The result is reproducible: the same bytes on every machine (docs/RELEASING.md).
#
#   release.sh               everything
#   release.sh filter        the filter and its package; likewise `native`, `sidecar`, `files`, `packages`
#   release.sh share FILE    only completions and man pages, of the built program FILE
#   release.sh check [PART]  builds twice, in two folders with different names, and compares
#
# DIST is another output folder. SOURCE_DATE_EPOCH is the time of all files in it; the default is the time of the last commit.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

stop() {
    printf 'release: %s\n' "$1" >&2
    exit 1
}

version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || stop "version '$version' of Cargo.toml is not SemVer"
triple=x86_64-unknown-linux-gnu

# In two folders, from committed files only.
check() {
    [[ -z $(git status --porcelain) ]] || stop "there are changes that are not committed"
    local work
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    export SOURCE_DATE_EPOCH
    local folder
    for folder in "$work/one" "$work/another/and-deeper"; do
        mkdir -p "$folder/.tools"
        git archive HEAD | tar --extract --directory "$folder"
        cp .tools/toolchain.env "$folder/.tools" 2>/dev/null || true
        (cd "$folder" && env -u CARGO_TARGET_DIR setup/release.sh "$@")
    done
    diff "$work/one/dist/SHA256SUMS" "$work/another/and-deeper/dist/SHA256SUMS" ||
        stop "the two differ"
    cat "$work/one/dist/SHA256SUMS"
    echo "both builds are identical"
}

if [[ ${1:-} == check ]]; then
    shift
    check "$@"
    exit
fi

grep -qE "^## (\[)?$version" CHANGELOG.md || [[ -n ${SNAPSHOT:-} ]] ||
    stop "CHANGELOG.md has no section for $version (SNAPSHOT=1: to try it out)"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
export TZ=UTC LC_ALL=C
umask 022

setup/setup.sh release

[[ $root$HOME != *[[:space:]]* ]] || stop "compilers are given this folder's name, which must have no blanks"
# The result must not contain paths of the build: folders of this checkout, of cargo and of build scripts.
export CARGO_TARGET_DIR=$root/target/release-build
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$root=/twilio-edge"$'\x1f'"--remap-path-prefix=$cargo_home=/cargo"
export CFLAGS="-ffile-prefix-map=$root=/twilio-edge -ffile-prefix-map=$cargo_home=/cargo"
export CARGO_PROFILE_DIST_STRIP=symbols CARGO_INCREMENTAL=0

dist=${DIST:-$root/dist}
rm -rf "$dist"
mkdir -p "$dist"

filter() {
    setup/cargo.sh --wasm build --locked --profile wasm --package twilio-edge-filter --lib
    local module=$dist/twilio-edge-filter-$version.wasm
    cp "$CARGO_TARGET_DIR/wasm-build/wasm32-wasip1/wasm/twilio_edge_filter.wasm" "$module"
    setup/artifacts.py oci "$dist/twilio-edge-filter-$version.oci.tar" --module "$module" --version "$version"
    setup/artifacts.py sbom "$dist/twilio-edge-filter-$version.cdx.json" --package twilio-edge-filter --target wasm32-wasip1
}

# For the architecture of this machine, and a C library that is at least as old as that of the users' Envoys.
native() {
    local architecture
    architecture=$(uname -m)
    setup/cargo.sh build --locked --profile native --package twilio-edge-native --target "$architecture-unknown-linux-gnu"
    install -m 0644 "$CARGO_TARGET_DIR/$architecture-unknown-linux-gnu/native/libtwilio_edge_native.so" \
        "$dist/libtwilio_edge_native-$version-$architecture.so"
    setup/artifacts.py sbom "$dist/twilio-edge-native-$version-$architecture.cdx.json" --package twilio-edge-native \
        --target "$architecture-unknown-linux-gnu"
}

# Completions and man pages of a program, where shells and man look for them below a prefix such as /usr/local.
share() {
    local program=$1 into=$2
    rm -rf "$into"
    mkdir -p "$into"/{man/man1,bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
    "$program" reference man --folder "$into/man/man1"
    "$program" reference completions bash >"$into/bash-completion/completions/twilio-edge"
    "$program" reference completions zsh >"$into/zsh/site-functions/_twilio-edge"
    "$program" reference completions fish >"$into/fish/vendor_completions.d/twilio-edge.fish"
}

sidecar() {
    setup/cargo.sh build --locked --profile dist --package twilio-edge --bin twilio-edge --target $triple
    local program=$CARGO_TARGET_DIR/$triple/dist/twilio-edge shared=$CARGO_TARGET_DIR/share
    share "$program" "$shared"
    setup/artifacts.py tar "$dist/twilio-edge-$version-$triple.tar.gz" --folder "twilio-edge-$version" \
        "$program=twilio-edge" "$shared=share" LICENSE README.md CHANGELOG.md crates/platform/defaults.toml=defaults.toml
    setup/artifacts.py sbom "$dist/twilio-edge-$version.cdx.json" --package twilio-edge --target $triple
}

files() {
    local parts=(envoy docs LICENSE CHANGELOG.md)
    [[ -d deploy ]] && parts+=(deploy)
    [[ -f docker-compose.yml ]] && parts+=(docker-compose.yml)
    setup/artifacts.py tar "$dist/twilio-edge-files-$version.tar.gz" --folder "twilio-edge-files-$version" "${parts[@]}"
    if [[ -f deploy/helm/twilio-edge/Chart.yaml ]]; then
        grep -q "^version: \"\?$version\"\?$" deploy/helm/twilio-edge/Chart.yaml ||
            stop "the chart's version is not $version"
        # Name and content as of `helm package`.
        setup/artifacts.py tar "$dist/twilio-edge-chart-$version.tgz" --folder . deploy/helm/twilio-edge=twilio-edge
    fi
}

# The packages for PyPI and npm. Their generated code follows from docs/openapi, which belongs to this version.
packages() {
    setup/setup.sh packages
    local document package
    for document in docs/openapi/app.json docs/openapi/admin.json; do
        grep -q "^  \"version\": \"$version\"" $document || stop "$document is of another version: run \`make openapi\`"
    done
    for package in python node; do
        .tools/packages/bin/python packages/build.py "$package" --into "$dist"
    done
}

case ${1:-all} in
all)
    filter
    native
    sidecar
    files
    packages
    ;;
filter | native | sidecar | files | packages) "$1" ;;
share)
    share "${2:?the program is missing}" "$dist/share"
    exit
    ;;
*) stop "release.sh [filter|native|sidecar|files|packages] | share FILE | check [..]" ;;
esac
setup/artifacts.py sums "$dist"
(cd "$dist" && sha256sum --check --quiet SHA256SUMS)
ls -l "$dist"
