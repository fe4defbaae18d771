#!/bin/sh
# Installs a built library, its headers, and what pkg-config and CMake find it by.
#
#     packaging/install.sh [PREFIX [DESTDIR [LIBDIR]]]
#
# PREFIX is where the files will be used; DESTDIR is put before every path that is written, as packagers want it;
# LIBDIR holds libgrilly.so and libgrilly.a. What is not given comes from the environment's PREFIX and DESTDIR, as make
# passes them, and else is /usr/local, nothing, and cargo's release folder.
set -eu
prefix=${1:-${PREFIX:-/usr/local}}
to=${2-${DESTDIR-}}$prefix
source=$(cd "$(dirname "$0")/.." && pwd)
library=${3:-${CARGO_TARGET_DIR:-$source/target}/release}
case $prefix in
    /*) ;;
    *) echo "PREFIX is '$prefix', expected an absolute path" >&2; exit 2 ;;
esac
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$source/Cargo.toml" | head -n 1)
abi=${version%.*} # of the SONAME: before 1.0, each minor version is a new one
# What the static library needs beside itself, as `rustc --print native-static-libs` says for Linux with glibc.
native="-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc"

# fill TEMPLATE FILE [SED EXPRESSION...]
fill() {
    template=$1
    file=$2
    shift 2
    sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" -e "s|@ABI@|$abi|" "$@" \
        "$source/packaging/$template" >"$file"
    chmod 644 "$file"
}

mkdir -p "$to/include/grilly" "$to/lib/pkgconfig" "$to/lib/cmake/grilly"
install -m 644 "$source/include/grilly.h" "$source/bindings/cpp/grilly.hpp" "$to/include/"
install -m 644 "$source"/bindings/cpp/grilly/*.hpp "$to/include/grilly/"

install -m 755 "$library/libgrilly.so" "$to/lib/libgrilly.so.$version"
ln -sf "libgrilly.so.$version" "$to/lib/libgrilly.so.$abi"
ln -sf "libgrilly.so.$abi" "$to/lib/libgrilly.so"
install -m 644 "$library/libgrilly.a" "$to/lib/"

fill grilly.pc.in "$to/lib/pkgconfig/grilly.pc" \
    -e "s|@NAME@|grilly|" -e "s|@LIBS@|-lgrilly|" -e "s|@LIBS_PRIVATE@|$native|"
fill grilly.pc.in "$to/lib/pkgconfig/grilly-static.pc" \
    -e "s|@NAME@|grilly-static|" -e "s|@LIBS@|-l:libgrilly.a $native|" -e "s|@LIBS_PRIVATE@||"
fill grilly-config.cmake.in "$to/lib/cmake/grilly/grilly-config.cmake" \
    -e "s|@CMAKE_LIBS@|$(echo "$native" | sed 's/-l//g; s/ /;/g')|"
fill grilly-config-version.cmake.in "$to/lib/cmake/grilly/grilly-config-version.cmake"
echo "installed libgrilly $version in $to"
