# Sourced by the other scripts: where they run and how they get what they need.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck disable=SC2034 # both are for the sourcing scripts
target=${CARGO_TARGET_DIR:-target}
# shellcheck disable=SC2034
python=.venv/bin/python

# What .venv is made of. A caller that needs more than Python itself says from which interpreter, with which options of
# venv, and which program then runs; a .venv where it does not is made anew.
base_python=python3
venv_options=(--without-pip)
venv_runs=''

say() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Is what this Debian package brings on the machine, wherever it came from?
present() {
    case $1 in
        libvulkan1) PATH=$PATH:/usr/sbin:/sbin ldconfig -p | grep -F libvulkan.so.1 ;;
        mesa-vulkan-drivers) compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' ;;
        vulkan-validationlayers) compgen -G '/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json' ;;
        spirv-tools) command -v spirv-val ;;
        ninja-build) command -v ninja ;;
        qemu-user) command -v qemu-x86_64 ;;
        python3-torch) "$base_python" -c 'import torch' 2>&1 ;;
        *) command -v "$1" ;;
    esac >/dev/null
}

# system_packages PURPOSE PACKAGE...: installs what is missing where it may, else says what to install and fails.
system_packages() {
    local purpose=$1 package missing=()
    shift
    for package; do
        present "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        echo "$purpose: every system package is there ($*)"
        return
    fi
    command -v apt-get >/dev/null ||
        fail "$purpose needs what Debian calls ${missing[*]}; install it with this system's package manager"
    [ "$(id -u)" -eq 0 ] ||
        fail "$purpose needs packages; run: sudo apt-get update && sudo apt-get install ${missing[*]}"
    echo "$purpose: installing the system packages ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    for package in "${missing[@]}"; do
        present "$package" || fail "$package is installed, but what it should bring is not found"
    done
}

# python_packages REQUIREMENT...: installs into .venv, making it first. Debian's Python may not install outside of a
# virtual environment, and may lack the pip that would go into one.
python_packages() {
    if ! "$python" -c "$venv_runs" 2>/dev/null; then
        command -v python3 >/dev/null || fail "python3 is missing"
        python3 -m pip --version >/dev/null || fail "python3 has no pip; on Debian: apt-get install python3-pip"
        echo "making a virtual environment in .venv"
        rm -rf .venv
        "$base_python" -m venv "${venv_options[@]}" .venv
    fi
    echo "installing into .venv: $*"
    python3 -m pip --python "$python" install --quiet --disable-pip-version-check --root-user-action=ignore "$@"
}
