#!/usr/bin/env bash
# The main job from a fresh clone: a Conv2d layer learns an edge filter, on the best device there is.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

say "Building libgrilly and its Python package"
cargo build --locked --release # what pip would do without a word
python_packages ./bindings/python "matplotlib>=3.8,<4"
say "Learning"
exec "$python" examples/python/learn_sobel.py --output "$target/demo.png"
