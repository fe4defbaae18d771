# Each command sets up what it needs; what it installs it names.

.DEFAULT_GOAL := help
.PHONY: help demo train test lint bench bench-host compare compare-cpu install shaders header clean

PREFIX ?= /usr/local

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: ## train a layer on the best device there is and draw what it learned
	@scripts/demo.sh

train: ## train a small network to read digits and draw how it learned; ARGS="--compare-torch"
	@scripts/train.sh $(ARGS)

test: ## run every test, on every device
	@scripts/test.sh

lint: ## check formats, warnings and generated files
	@scripts/lint.sh

bench: ## print the speed table; ARGS="..." goes to the benchmark
	cargo bench --bench bench -- $(ARGS)

bench-host: ## time calls on arrays in host memory, and first calls; ARGS="..." goes to it
	cargo bench --bench host_path -- $(ARGS)

compare: ## time a GPU beside other libraries (installs 5 GB of them, 10 where PyTorch is missing); ARGS="..." goes to it
	@scripts/compare.sh $(ARGS)

compare-cpu: ## time the CPU device beside other libraries (installs 6 GB of them); ARGS="..." goes to it
	@scripts/compare-cpu.sh $(ARGS)

install: ## install library, header, pkg-config and CMake files; PREFIX=/usr/local DESTDIR=
	cargo build --release
	@packaging/install.sh "$(PREFIX)" "$(DESTDIR)" "$${CARGO_TARGET_DIR:-target}/release"

shaders: ## compile shaders/ to shaders/spirv (builds shaderc once, about ten minutes)
	@scripts/shaders.sh

header: ## regenerate include/grilly.h from src/ffi
	GRILLY_WRITE_HEADER=1 cargo test --test header

clean: ## remove what the other commands made in this folder
	cargo clean
	rm -rf .venv
