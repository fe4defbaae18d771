#!/usr/bin/env bash
# Every test, on every device, from a fresh clone. A stage that fails does not stop the next, but for packages and builds,
# and a stage of tests that ran none has failed. The last lines say what ran where.
# shellcheck disable=SC2317,SC2329 # stages call functions by name
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
touch "$scratch/output" "$scratch/table"
export GRILLY_REQUIRE_VULKAN=1 # a missing driver is a failure, never a skip
passed=0 failed=0

# Layers are compared with PyTorch: the user's own, or the one that Debian has for its own Python.
python3 -c 'import torch' 2>/dev/null || base_python=/usr/bin/python3
venv_options+=(--system-site-packages)
venv_runs='import torch; torch.zeros(1).numpy()'

# check NAME COMMAND...: one fact, true if the command succeeds.
check() { stage 1 "$@"; }

# tests NAME COMMAND...: as many facts as the test runners in the command's output say.
tests() { stage 0 "$@"; }

stage() {
    local good=$1 name=$2 began=$SECONDS status bad=0 counted
    shift 2
    say "$name"
    set +e
    (set -e && "$@") 2>&1 | tee "$scratch/stage"
    status=${PIPESTATUS[0]}
    set -e
    cat "$scratch/stage" >>"$scratch/output"
    counted=$(count <"$scratch/stage")
    if [ "$counted" != "0 0" ]; then
        read -r good bad <<<"$counted"
    elif [ "$good" -eq 0 ] && [ "$status" -eq 0 ]; then
        echo "error: no test ran"
        bad=1
    fi
    if [ "$status" -ne 0 ]; then
        echo "error: $name: exit status $status"
        if [ "$bad" -eq 0 ]; then good=0 bad=1; fi
    fi
    passed=$((passed + good)) failed=$((failed + bad))
    printf '%-50s %7d %7d %7d\n' "$name" "$good" "$bad" $((SECONDS - began)) >>"$scratch/table"
}

# beside FUNCTION: its stages in the background; `join` waits for them and adds what they found.
beside() {
    mkdir "$scratch/beside"
    touch "$scratch/beside/output" "$scratch/beside/table"
    (
        scratch=$scratch/beside passed=0 failed=0
        "$1"
        echo "$passed $failed" >"$scratch/counts"
    ) >"$scratch/beside/said" 2>&1 &
}

join() {
    local good=0 bad=1 # of one that died
    wait "$!" || true
    cat "$scratch/beside/said"
    cat "$scratch/beside/output" >>"$scratch/output"
    cat "$scratch/beside/table" >>"$scratch/table"
    if [ -e "$scratch/beside/counts" ]; then read -r good bad <"$scratch/beside/counts"; fi
    passed=$((passed + good)) failed=$((failed + bad))
    rm -r "$scratch/beside"
}

# The closing lines of cargo test, pytest and our native runners, added up: "PASSED FAILED".
count() {
    awk '
        /^test result: / || /^[0-9]+ passed, [0-9]+ failed/ || /^(=+ )?[0-9]+ (passed|failed|skipped|error).* in [0-9]/ {
            while (match($0, /[0-9]+ (passed|failed|error)/)) {
                split(substr($0, RSTART, RLENGTH), part, " ")
                if (part[2] == "passed") good += part[1]; else bad += part[1]
                $0 = substr($0, RSTART + RLENGTH)
            }
        }
        END { print good + 0, bad + 0 }'
}

# The announcements of the conformance tests, added up by device.
results_by_device() {
    awk '
        /^conformance: .* results on / {
            results = $0 ~ / x / ? $2 * $5 : $4
            sub(/.* results on /, "")
            sub(/: [^:]*$/, "")
            total[$0] += results
        }
        END { for (device in total) printf "%8d tensors within the accuracy contract on %s\n", total[device], device }' |
        sort -k 9
}

finish() {
    say "What ran"
    printf '%-50s %7s %7s %7s\n' stage passed failed seconds
    cat "$scratch/table"
    echo
    results_by_device <"$scratch/output"
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}

# under_validation COMMAND...: with core and synchronization validation in every process; the messages, which outlive a
# test runner that hides output, go to $scratch/messages. Each instance would truncate a plain log, hence the pipe.
under_validation() {
    local status=0 reader hold room
    room=$(mktemp -d "$scratch/validation.XXXX")
    mkfifo "$room/pipe"
    sed "s|^khronos_validation.log_filename = .*|khronos_validation.log_filename = $room/pipe|" \
        tests/vk_layer_settings.txt >"$room/vk_layer_settings.txt"
    cat "$room/pipe" >"$scratch/messages" &
    reader=$!
    exec {hold}<>"$room/pipe"
    VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_SETTINGS_PATH=$room/vk_layer_settings.txt "$@" || status=$?
    exec {hold}>&-
    wait "$reader"
    return "$status"
}

# silent COMMAND...: under validation, without a single message.
silent() {
    local status=0
    under_validation "$@" || status=$?
    if [ -s "$scratch/messages" ]; then
        echo "error: the validation layers said:"
        head -c 20000 "$scratch/messages"
        return 1
    fi
    return "$status"
}

mistakes_are_reported() {
    under_validation cargo test --locked --test validation -- --ignored
    local mistake
    for mistake in SYNC-HAZARD-WRITE-AFTER-WRITE VUID-vkDestroyDevice-device-; do
        grep -q "$mistake" "$scratch/messages" || fail "the validation layers did not report $mistake"
    done
    echo "core and synchronization validation both report a deliberate mistake"
}

spirv_is_valid() {
    local module
    for module in shaders/spirv/*.spv; do spirv-val --target-env vulkan1.1 "$module" || fail "$module is not valid"; done
}

pytest_where() {
    (cd bindings/python && "../../$python" -m pytest -q -rs -p no:cacheprovider --benchmark-disable -m "$1")
}

# older_processor MODEL: the CPU device's tests with no more instructions than QEMU's model of a processor has, but for
# long sums and comparisons of the bits that many threads find, which take an emulator most of a minute.
older_processor() {
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="qemu-x86_64 -cpu $1" \
        cargo test --locked --lib cpu:: -- --skip long --skip the_bits
}

installation() {
    check "system packages" system_packages "make test" \
        libvulkan1 mesa-vulkan-drivers vulkan-validationlayers spirv-tools cmake pkg-config python3-torch qemu-user
    check "Python package" python_packages './bindings/python[test]'
}

checks() {
    check "SPIR-V belongs to the GLSL beside it" sha256sum --check --quiet shaders/spirv/manifest.sha256
    check "SPIR-V is valid" spirv_is_valid
    check "the table of cases belongs to its generator" python3 tests/generate_cases.py --check
}

on_vulkan() {
    tests "C and C++, every device, validated" silent tests/run-native.sh "$target/release"
    tests "Python, every Vulkan device, validated" silent pytest_where gpu
}

beside installation
check "build of the library" cargo build --locked --release
check "build of the Rust tests" cargo test --locked --no-run
join
[ "$failed" -eq 0 ] || finish # everything else needs these
tests "validation layers report mistakes" mistakes_are_reported
tests "Rust, every device, validated" silent cargo test --locked --no-fail-fast
beside on_vulkan # on one core most of the time: a software driver compiles on one
checks
check "python -m grilly" "$python" -m grilly
tests "Python, CPU device" pytest_where "not gpu"
if [ "$(uname -m)" = x86_64 ]; then
    tests "CPU device without AVX2" older_processor Nehalem
    tests "CPU device without AVX-512" older_processor Haswell
fi
tests "installed library" tests/test-install.sh "$target/release"
join
finish
