#!/bin/sh
# Compiles and runs the C and C++ tests and examples against a built library.
#
#     tests/run-native.sh [LIBDIR]      LIBDIR holds libgrilly.so; cargo's release folder unless told
#     DEVICES="cpu 0" tests/...         the devices to run on; all that open, unless told
#     CC=clang CXX=clang++ tests/...    other compilers
#
# Each compilation, run and check counts once; ends with "N passed, M failed", and with 1 if any failed.
# shellcheck disable=SC2086 # flags and devices are lists of words
# shellcheck source-path=SCRIPTDIR/.. source=tests/check.sh
set -u
cd "$(dirname "$0")/.." || exit 1
library=$(cd "${1:-${CARGO_TARGET_DIR:-target}/release}" && pwd) || exit 1
. tests/check.sh
CC=${CC:-gcc}
CXX=${CXX:-g++}
warnings="-Wall -Wextra -pedantic -Werror"
c_flags="-std=c99 $warnings -O2 -g -Iinclude"
cxx_flags="-std=c++17 $warnings -Wshadow -O2 -g -Iinclude -Ibindings/cpp"
# A build folder has no link by the SONAME, which is what a linked program looks for.
version=$(sed -n 's/^version = "\([0-9]*\.[0-9]*\)\..*/\1/p' Cargo.toml | head -n 1)
ln -s "$library/libgrilly.so" "$work/libgrilly.so"
ln -s "$library/libgrilly.so" "$work/libgrilly.so.$version"
link="-L$work -Wl,-rpath,$work -lgrilly -lpthread -lm"

exports_are_the_committed_ones() {
    nm -D --defined-only "$library/libgrilly.so" | awk '{ print $NF }' | LC_ALL=C sort >"$work/symbols" || return 1
    LC_ALL=C diff tests/c/symbols.txt "$work/symbols"
}

soname_has_the_version() {
    readelf -d "$library/libgrilly.so" | grep SONAME | grep -F "[libgrilly.so.$version]"
}

# A C header shares one namespace with all others: X11, for one, has a macro called Status.
header_names_are_prefixed() {
    for included in stdint.h grilly.h; do
        "$CC" -std=c99 -E -dD -Iinclude -include stddef.h -include stdint.h -include $included -x c /dev/null |
            sed -n 's/^#define \([A-Za-z_0-9]*\).*/\1/p' | LC_ALL=C sort -u >"$work/macros-$included" || return 1
    done
    {
        LC_ALL=C comm -13 "$work/macros-stdint.h" "$work/macros-grilly.h"
        # Types, and the constants of enumerations.
        sed -n 's/^\(typedef \)*\(enum\|struct\) \([A-Za-z_0-9]\{1,\}\).*/\3/p; s/^} \([A-Za-z_0-9]*\);/\1/p
            s/^ *\([A-Za-z_0-9]*\) = [0-9]*,$/\1/p' include/grilly.h
    } >"$work/names"
    grep -q '^GRILLY_OK$' "$work/names" && grep -q '^grilly_tensor$' "$work/names" && ! grep -vi '^grilly_' "$work/names"
}

require "$CC" "$CXX" nm readelf

echo '#include <grilly.h>' >"$work/header.c"
echo '#include <grilly.hpp>' >"$work/header.cpp"
for standard in c99 c11 c17; do
    check "grilly.h as $standard" "$CC" -std=$standard $warnings -Iinclude -fsyntax-only "$work/header.c"
done
for standard in c++17 c++20; do
    check "grilly.h as $standard" "$CXX" -std=$standard $warnings -Iinclude -x c++ -fsyntax-only "$work/header.c"
    check "grilly.hpp as $standard" \
        "$CXX" -std=$standard $warnings -Wconversion -Iinclude -Ibindings/cpp -fsyntax-only "$work/header.cpp"
done
check "names of the header" header_names_are_prefixed
check "exported symbols" exports_are_the_committed_ones
check "SONAME" soname_has_the_version

c_programs="abi misuse_handles misuse_structs misuse_arguments elementwise fork threads lifecycle"
for name in devices $c_programs; do
    check "compile tests/c/$name.c" "$CC" $c_flags "tests/c/$name.c" -o "$work/$name" $link
done
for name in forward_backward overlapping_calls; do
    check "compile examples/c/$name.c" "$CC" $c_flags "examples/c/$name.c" -o "$work/example_c_$name" $link
done
check "compile examples/cpp" "$CXX" $cxx_flags examples/cpp/forward_backward.cpp -o "$work/example_cpp" $link
check "compile tests/cpp/layers.cpp" "$CXX" $cxx_flags tests/cpp/layers.cpp -o "$work/layers" $link
check "compile tests/cpp/layers.cpp as c++20" \
    "$CXX" $cxx_flags -std=c++20 -fsyntax-only tests/cpp/layers.cpp
for standard in c++17 c++20; do # only the later has spans
    check "compile tests/cpp/device_tensors.cpp as $standard" \
        "$CXX" $cxx_flags -std=$standard tests/cpp/device_tensors.cpp -o "$work/device_tensors_$standard" $link
done
check "compile tests/cpp/tickets.cpp" "$CXX" $cxx_flags tests/cpp/tickets.cpp -o "$work/tickets" $link
check "compile tests/cpp/no_exceptions.cpp" \
    "$CXX" $cxx_flags -fno-exceptions -fno-rtti tests/cpp/no_exceptions.cpp -o "$work/no_exceptions" $link

if [ -z "${DEVICES+set}" ]; then
    check "list of devices" "$work/devices"
    DEVICES="cpu $("$work/devices" 2>/dev/null)"
fi
for device in $DEVICES; do
    for name in $c_programs no_exceptions tickets device_tensors_c++17 device_tensors_c++20 \
        example_c_forward_backward example_c_overlapping_calls example_cpp; do
        check "$name on $device" "$work/$name" "$device"
    done
    check "layers on $device" "$work/layers" "$device" tests/cases.json
done

echo "devices:" $DEVICES
finish
