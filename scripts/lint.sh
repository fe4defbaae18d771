#!/usr/bin/env bash
# Everything that is judged without running the library.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

say "Format of the Rust code"
cargo fmt --all --check
say "Clippy" # the shader compiler is left out: it would build shaderc
cargo clippy --locked --all-targets -- -D warnings
say "SPIR-V belongs to the GLSL beside it"
sha256sum --check --quiet shaders/spirv/manifest.sha256 || fail "shaders/spirv is stale; run: make shaders"
say "C header belongs to src/ffi"
cargo test --locked --quiet --test header
say "Table of test cases belongs to its generator"
python3 tests/generate_cases.py --check
say "Python code"
python_packages "ruff==0.17.6" "mypy==2.4.1" "numpy>=1.23"
.venv/bin/ruff check .
(cd bindings/python && ../../.venv/bin/mypy)
say "Shell scripts"
for script in scripts/*.sh .ci/run; do bash -n "$script"; done
echo "lint: no findings"
