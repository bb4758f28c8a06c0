# Tripline's commands; `make` alone lists them. Everything builds with the release profile, so that RocksDB compiles once.

# One target folder for build, tests, lints, demo and benchmark.
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR

# Everything at once, always with the same words: a narrower selection would give build scripts other features, and RocksDB
# would compile once more.
EVERYTHING := --release --workspace --all-targets

.DEFAULT_GOAL := help
.PHONY: help setup build test demo bench bench-engine faults fuzz lint check-compose dist first-build

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Find what is needed; install what is missing, or say how
	@scripts/setup.sh

first-build:
	@if ! ls "$(CARGO_TARGET_DIR)"/release/deps/librocksdb-*.rlib >/dev/null 2>&1; then \
		echo "first build: RocksDB and librdkafka compile from source (about 20 minutes on two cores); later builds take seconds"; \
	fi

build: setup first-build ## Build the binary
	cargo build $(EVERYTHING)

test: setup first-build ## Run every test, against a real Kafka
	cargo test --release --workspace

demo: setup first-build ## Watch the whole line at work, on a real Kafka (under 90 s after the build)
	@cargo build $(EVERYTHING)
	@"$(CARGO_TARGET_DIR)/release/demo"

bench: setup first-build ## Measure throughput and latency on a real Kafka
	@cargo build $(EVERYTHING)
	"$(CARGO_TARGET_DIR)/release/bench" $(BENCH)

bench-engine: setup first-build ## Measure the engine and its state store without a broker
	cargo bench --bench engine

faults: setup first-build ## Kill, freeze and cut off what runs on a real Kafka, and compare with the pure engine (FAULTS="--seed 1 --kills 500")
	@cargo build $(EVERYTHING)
	"$(CARGO_TARGET_DIR)/release/faults" $(FAULTS)

fuzz: setup ## Fuzz rule loader, expressions, events and states, ten minutes each (FUZZ_SECONDS; needs cargo-fuzz and a nightly)
	@scripts/fuzz.sh

lint: ## Check format and lints
	cargo fmt --all --check
	cargo clippy $(EVERYTHING) -- -D warnings

check-compose: ## Lint docker-compose.yml (starts nothing)
	@scripts/check-compose.sh

dist: setup ## Build the binary to publish: link-time optimised, stripped (compiles RocksDB again)
	cargo build --profile dist -p tripline
	@ls -l "$(CARGO_TARGET_DIR)/dist/tripline"
