# shellcheck shell=sh disable=SC2016,SC2034
# For the shell tests to source: counts checks in $passed and $failed, and keeps what the latest printed in $work/log.
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

# check NAME COMMAND...: runs the command and counts how it ended; what it printed is shown if it failed.
check() {
    what=$1
    shift
    "$@" >"$work/log" 2>&1
    ended=$?
    if [ "$ended" = 0 ]; then
        passed=$((passed + 1))
        echo "pass $what"
    else
        failed=$((failed + 1))
        echo "FAIL $what (exit status $ended)"
        sed 's/^/    /' "$work/log"
    fi
}

# The last line of a test, on which its exit status depends.
finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
}

# require TOOL...: a missing tool is a failure, after which nothing else can be tested.
require() {
    for tool in "$@"; do
        check "$tool is there" sh -c 'command -v "$1"' sh "$tool"
    done
    [ "$failed" = 0 ] || { finish; exit 1; }
}
