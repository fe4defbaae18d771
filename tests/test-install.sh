#!/bin/sh
# Installs a built library into temporary folders, and builds and runs programs against it as its users would.
#
#     tests/test-install.sh [LIBDIR]      LIBDIR holds libgrilly.so and libgrilly.a; cargo's release folder unless told
#
# Each check counts once; ends with "N passed, M failed", and with 1 if any failed.
# shellcheck disable=SC2086,SC2016 # flags are lists of words; small programs for sh are quoted
# shellcheck source-path=SCRIPTDIR/.. source=tests/check.sh
set -u
cd "$(dirname "$0")/.." || exit 1
library=$(cd "${1:-${CARGO_TARGET_DIR:-target}/release}" && pwd) || exit 1
. tests/check.sh
CC=${CC:-gcc}
CXX=${CXX:-g++}
require "$CC" "$CXX" cmake make pkg-config readelf
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
abi=${version%.*}
prefix=/opt/grilly
root=$work/first$prefix

check "install" packaging/install.sh "$prefix" "$work/first" "$library"
(cd "$work/first" && find . ! -type d | LC_ALL=C sort) >"$work/files"
(cd "$work/first" && find . -type f -exec cksum {} + | LC_ALL=C sort) >"$work/sums"
check "install elsewhere" packaging/install.sh /usr/local "$work/second" "$library"
check "install twice" packaging/install.sh "$prefix" "$work/first" "$library"

first_is_as_it_was() {
    (cd "$work/first" && find . -type f -exec cksum {} + | LC_ALL=C sort) | diff "$work/sums" -
}
check "neither changes the first" first_is_as_it_was

all_files_are_there() {
    diff "$work/files" - <<END
.$prefix/include/grilly.h
.$prefix/include/grilly.hpp
.$prefix/include/grilly/conv2d.hpp
.$prefix/include/grilly/core.hpp
.$prefix/include/grilly/device_tensor.hpp
.$prefix/include/grilly/nn.hpp
.$prefix/include/grilly/tensor.hpp
.$prefix/lib/cmake/grilly/grilly-config-version.cmake
.$prefix/lib/cmake/grilly/grilly-config.cmake
.$prefix/lib/libgrilly.a
.$prefix/lib/libgrilly.so
.$prefix/lib/libgrilly.so.$abi
.$prefix/lib/libgrilly.so.$version
.$prefix/lib/pkgconfig/grilly-static.pc
.$prefix/lib/pkgconfig/grilly.pc
END
}
check "the files" all_files_are_there
check "no placeholder is left" sh -c '! grep -r "@[A-Z_]*@" "$1"' sh "$root/lib/pkgconfig"
check "no placeholder is left for cmake" sh -c '! grep -r "@[A-Z_]*@" "$1"' sh "$root/lib/cmake"
check "a relative PREFIX is refused" sh -c '! packaging/install.sh opt/grilly "$1" "$2"' sh "$work/third" "$library"

links_lead_to_the_library() {
    [ "$(readlink "$root/lib/libgrilly.so")" = "libgrilly.so.$abi" ] &&
        [ "$(readlink "$root/lib/libgrilly.so.$abi")" = "libgrilly.so.$version" ]
}
check "links" links_lead_to_the_library

# A program outside this tree, in both languages.
mkdir "$work/program"
cp examples/c/forward_backward.c "$work/program/c.c"
cp examples/cpp/forward_backward.cpp "$work/program/cpp.cpp"
cd "$work/program" || exit 1

needs() { readelf -d "$1" | grep -F "[libgrilly.so.$abi]"; }
needs_not() { ! needs "$1"; }

# run_program NAME FILE shared|static: runs it, and checks what it is linked to.
run_program() {
    if [ "$3" = shared ]; then
        check "$1 needs the shared library" needs "$2"
        check "$1 runs" env LD_LIBRARY_PATH="$root/lib" "$2" cpu
    else
        check "$1 needs no shared library" needs_not "$2"
        check "$1 runs" "$2" cpu
    fi
}

PKG_CONFIG_PATH=$root/lib/pkgconfig
PKG_CONFIG_SYSROOT_DIR=$work/first
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
check "pkg-config's version" sh -c '[ "$(pkg-config --modversion grilly)" = "$1" ]' sh "$version"
for module in grilly grilly-static; do
    kind=shared
    [ "$module" = grilly ] || kind=static
    flags=$(pkg-config --cflags --libs "$module")
    check "pkg-config $module, C" "$CC" c.c -o "$module-c" $flags
    run_program "pkg-config $module, C" "./$module-c" $kind
    check "pkg-config $module, C++" "$CXX" -std=c++17 cpp.cpp -o "$module-cpp" $flags
    run_program "pkg-config $module, C++" "./$module-cpp" $kind
done

cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.13)
project(program C CXX)
find_package(grilly 0.1 REQUIRED)
find_package(grilly 0.1 REQUIRED) # a second time, as a dependency's dependency would
foreach(language c cpp)
  add_executable(shared_${language} ${language}.${language})
  target_link_libraries(shared_${language} PRIVATE grilly::grilly)
  add_executable(static_${language} ${language}.${language})
  target_link_libraries(static_${language} PRIVATE grilly::grilly_static)
  target_compile_features(shared_${language} PRIVATE cxx_std_17)
  target_compile_features(static_${language} PRIVATE cxx_std_17)
endforeach()
find_package(grilly 0.2 QUIET)
if(grilly_FOUND)
  message(FATAL_ERROR "version 0.2 was asked for, ${grilly_VERSION} found")
endif()
END
sed -i "s/grilly 0\.1 /grilly $abi /" CMakeLists.txt
check "cmake configures" cmake -S . -B build -DCMAKE_PREFIX_PATH="$root" -DCMAKE_C_COMPILER="$CC" -DCMAKE_CXX_COMPILER="$CXX"
check "cmake builds" cmake --build build
for kind in shared static; do
    for language in c cpp; do
        run_program "cmake $kind, $language" "build/${kind}_$language" $kind
    done
done

finish
