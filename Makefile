# `make` lists all targets. The scripts in setup/ find or install missing tools, so
# no target needs manual preparation.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

CARGO := setup/cargo.sh
STAGE := setup/stage.sh
TARGET := $(or $(CARGO_TARGET_DIR),target)
WASM := target/wasm/twilio_edge_filter.wasm
WASM_BUILT := $(TARGET)/wasm-build/wasm32-wasip1/wasm/twilio_edge_filter.wasm
NATIVE_MODULE := target/native/libtwilio_edge_native.so

.PHONY: help setup setup-test build wasm wasm-build native native-build native-test run test test-fast e2e differential never-twice plans-killed burst chaos fuzz bench images-dry manifests openapi packages example release release-check lint fmt clean

help: ## Lists the targets
	@echo "make run     Envoy, sidecar and a demo backend on this machine"
	@echo "make test    all tests, on real Envoys, databases and brokers"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Finds or installs the tools of `make run` (Rust, std for wasm, Envoy)
	@setup/setup.sh run

setup-test: ## Finds or installs the tools of `make test` (also the oldest Envoy, Redis, PostgreSQL, Twilio's SDKs)
	@setup/setup.sh test

# One profile for running and testing, so that both use the same build. The sidecar waits for
# disks and sockets; an optimized build would not make a demo or a test faster.
build: setup ## Builds the sidecar and command line: target/debug/twilio-edge
	@$(CARGO) build --workspace --bin twilio-edge

wasm: setup ## Builds the filter: target/wasm/twilio_edge_filter.wasm
	$(WASM_BUILD)

wasm-build:
	$(WASM_BUILD)

native: setup ## Builds the filter as a native module of Envoy: target/native/libtwilio_edge_native.so
	$(NATIVE_BUILD)

native-build:
	$(NATIVE_BUILD)

# Also one that panics where its environment says, for the tests of panics.
native-test: native-build
	@$(CARGO) build --workspace --lib --features twilio-edge-native/panic-test
	@mkdir -p target/native/panicking
	@cp $(TARGET)/debug/libtwilio_edge_native.so target/native/panicking/

run: build $(if $(NATIVE),native,wasm) ## Envoy with the filter, the sidecar and a demo backend; Ctrl-C stops all; NATIVE=1: the native module
	@exec $(TARGET)/debug/twilio-edge demo $(if $(NATIVE),--native $(NATIVE_MODULE))

# setup/tests.py runs the test programs side by side. Its table has the time of each.
test: setup-test ## All tests: unit, sidecar on real stores, the filter in the real Envoys; T=NAME for those with NAME in their name
	@$(STAGE) "filter for wasm" $(MAKE) --no-print-directory wasm-build
	@$(STAGE) "native module" $(MAKE) --no-print-directory native-test
	@setup/tests.py $(T)

# Always the whole workspace: with one package alone, Cargo would choose other features and build its dependencies again.
test-fast: ## Unit tests of all crates: no server, no Envoy; T=NAME for those with NAME in their name
	@$(CARGO) test --quiet --workspace --lib $(if $(T),-- $(T))

e2e: setup-test $(if $(NATIVE),native-test) ## Tests the filter in real Envoys only; ARGS="--help" prints the options; NATIVE=1: the native module
	$(WASM_BUILD)
	@$(CARGO) build --workspace --bin twilio-edge
	@TWILIO_EDGE_NATIVE=$(NATIVE) $(CARGO) test --workspace --test e2e -- $(ARGS)

# `make test` includes a short run, with other webhooks every time.
differential: setup-test ## Compares the filter with Twilio's SDKs on random webhooks; COUNT=20000 SEED=1
	@TWILIO_EDGE_DIFFERENTIAL_COUNT=$(COUNT) TWILIO_EDGE_DIFFERENTIAL_SEED=$(SEED) \
		$(CARGO) test --workspace --test cli -- oracle::

never-twice: setup-test ## 1,000 messages under 200 kills, 1,000 with failed deliveries, and repetitions under 50, on SQLite and on Redis and PostgreSQL; SENDS=1000 KILLS=200 NEVER_TWICE_SEED=1
	@NEVER_TWICE="$(or $(SENDS),1000) $(or $(KILLS),200)" $(CARGO) test --workspace --test it -- \
		never_twice::sidecar_that_is_killed never_twice::repetitions sidecar_killed_during_a_repetition --nocapture --test-threads=1

plans-killed: setup-test ## 300 notifications by a plan under 200 kills, on SQLite and on PostgreSQL; SENDS=300 KILLS=200
	@PLANS_KILLED="$(or $(SENDS),300) $(or $(KILLS),200)" $(CARGO) test --workspace --test it -- \
		outbound::plans::kills --nocapture --test-threads=1

burst: setup-test ## 5,000 messages at 80 a second: one sidecar on SQLite, two on Redis and PostgreSQL; COUNT=5000
	@BURST="$(or $(COUNT),5000)" $(CARGO) test --workspace --test it -- \
		sending_rate::one_sidecar sending_rate::two_sidecars_with_redis --nocapture --test-threads=1

# `make test` includes a short run, with another seed every time.
chaos: setup-test $(if $(NATIVE),native-build) ## Checks that no webhook is lost while processes are killed; SEED=1 WEBHOOKS=10000 KILLS=12 SEEDS=1 NATIVE=1
	$(WASM_BUILD)
	@$(CARGO) build --workspace --bin twilio-edge
	@TWILIO_EDGE_NATIVE=$(NATIVE) CHAOS="$(or $(WEBHOOKS),10000) $(or $(KILLS),12) $(or $(SEEDS),1)" CHAOS_SEED=$(SEED) \
		$(CARGO) test --workspace --test chaos

fuzz: setup ## Fuzzes parsers and decisions; SECONDS_EACH=60 (needs a nightly Rust and a C++ compiler)
	@fuzz/run.sh $(or $(SECONDS_EACH),60)

# Measurements on Redis and PostgreSQL are skipped if these are not installed; `make setup-test` installs them.
bench: setup ## Measures filter and sidecar; ARGS="--rounds 10 --seconds 2", or ARGS=accept for the time to an answer
	$(WASM_BUILD)
	$(NATIVE_BUILD)
	@$(CARGO) build --release --package twilio-edge --package twilio-edge-bench --bins
	@$(TARGET)/release/twilio-edge-bench $(ARGS)

images-dry: setup ## Runs the build commands of deploy/docker/Dockerfile without a container engine
	@env --unset=CARGO_TARGET_DIR python3 wasm-tests/deploy/images.py $(CURDIR)

manifests: setup-test ## Renders deploy/kubernetes from the Helm chart
	@.tools/charts/bin/python wasm-tests/deploy/plain.py $(CURDIR) deploy/kubernetes

openapi: build ## Writes the OpenAPI documents of the sidecar into docs/openapi; BASELINE=1 makes them the API of a release
	@packages/openapi/fetch.py $(if $(BASELINE),--baseline)

packages: ## Builds the packages for PyPI and npm into target/packages/dist
	@setup/setup.sh packages
	@packages/test.py --install

example: build wasm packages ## Runs an example behind the edge; NAME=flask, fastapi, django, express, fastify or migration; TEST=1 tests it
	@.tools/packages/bin/python examples/run.py $(or $(NAME),flask) $(if $(TEST),--test)

release: ## Builds a release into dist/, with checksums; PART=filter, native, sidecar, files or packages builds one part
	@setup/release.sh $(PART)

release-check: ## Builds a release twice and compares the results; PART=filter checks one part
	@setup/release.sh check $(PART)

lint: ## Checks format, spelling, clippy natively and for wasm, links in docstrings, unused dependencies, licences, sources, and the packages
	@setup/setup.sh lint
	@$(STAGE) "spelling" .tools/lint/bin/typos
	@$(STAGE) "unused dependencies" .tools/lint/bin/cargo-shear
	@$(STAGE) "format" $(CARGO) fmt --all --check
	@$(STAGE) "clippy" $(CARGO) clippy --quiet --workspace --all-targets -- --deny warnings
	@$(STAGE) "clippy for wasm" $(CARGO) --wasm clippy --quiet --package twilio-edge-filter --lib -- --deny warnings
	@RUSTDOCFLAGS="--deny warnings --allow rustdoc::private_intra_doc_links" \
		$(STAGE) "links in docstrings" $(CARGO) doc --quiet --workspace --no-deps --document-private-items
	@$(STAGE) "packages for Python and Node" packages/test.py --lint
	@$(STAGE) "licences" .tools/lint/bin/cargo-deny --workspace --log-level warn check bans licenses sources

fmt: ## Formats all Rust code
	@$(CARGO) fmt --all

clean: ## Removes build output, but no installed tools (.venv*, .tools)
	rm -rf target dist

# Cargo decides whether to build. The copy has the same name for every toolchain, and its modification time
# changes only if its content does.
define WASM_BUILD
@$(CARGO) --wasm build --profile wasm --package twilio-edge-filter --lib
@mkdir -p $(dir $(WASM))
@cmp -s $(WASM_BUILT) $(WASM) || cp $(WASM_BUILT) $(WASM)
@echo "$(WASM): $$(stat -c %s $(WASM)) bytes, $$(gzip -9c $(WASM) | wc -c) gzipped"
endef

# As above. A changed module must not overwrite the file that an Envoy has loaded, so it gets a new inode.
define NATIVE_BUILD
@$(CARGO) build --profile native --package twilio-edge-native
@mkdir -p $(dir $(NATIVE_MODULE))
@cmp -s $(TARGET)/native/libtwilio_edge_native.so $(NATIVE_MODULE) || install -m 0644 $(TARGET)/native/libtwilio_edge_native.so $(NATIVE_MODULE)
@echo "$(NATIVE_MODULE): $$(stat -c %s $(NATIVE_MODULE)) bytes, $$(gzip -9c $(NATIVE_MODULE) | wc -c) gzipped"
endef
