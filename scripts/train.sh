#!/usr/bin/env bash
# From a fresh clone: a small network learns to read handwritten digits, on the best device there is.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

say "Building libgrilly and its Python package"
cargo build --locked --release # what pip would do without a word
python_packages ./bindings/python "matplotlib>=3.8,<4" "scikit-learn>=1.2,<2" "tqdm>=4,<5"
say "Learning"
exec "$python" examples/python/train_digits.py --output "$target/digits.png" "$@"
