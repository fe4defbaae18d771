#!/usr/bin/env bash
# Times a GPU beside other libraries, each in a process of its own. Arguments go to benches/compare.py.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

say "Building libgrilly and its Python package"
cargo build --locked --release # what pip would do without a word
python_packages ./bindings/python "matplotlib>=3.8,<4" "numpy>=2" # which PyTorch's and ONNX's releases ask for
say "Comparing"
exec "$python" benches/compare.py --json "$target/compare.json" --chart "$target/compare.svg" "$@"
