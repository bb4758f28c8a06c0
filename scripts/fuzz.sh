#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS (600). Needs a nightly toolchain and `cargo install cargo-fuzz`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is missing: cargo install cargo-fuzz" >&2
    exit 1
fi
for target in rule_loader expression event state; do
    corpus="fuzz/corpus/$target"
    mkdir -p "$corpus"
    case $target in
    rule_loader) find config/packs core/tests/scenarios -name '*.yaml' -exec cp {} "$corpus" \; ;;
    event) find schemas/examples -name 'event.*.json' -exec cp {} "$corpus" \; ;;
    esac
    cargo +nightly fuzz run "$target" -- -max_total_time="${FUZZ_SECONDS:-600}" -max_len=4096 -print_final_stats=1
done
