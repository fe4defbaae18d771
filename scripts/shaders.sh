#!/usr/bin/env bash
# Compiles shaders/ to shaders/spirv. Building the compiler takes about ten minutes on two cores, so it is kept outside
# of the clone, where `make clean` and a new clone leave it alone.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

say "Shader compiler"
system_packages "building shaderc" cmake ninja-build
export CARGO_TARGET_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/libgrilly/compile-shaders
echo "building in $CARGO_TARGET_DIR"
# Cargo takes what another checkout built there for up to date.
cargo clean --quiet --release --package compile-shaders
cargo run --release --locked -p compile-shaders --features compile-shaders
