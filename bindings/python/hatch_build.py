"""Builds the Rust library and puts it into the wheel as `grilly/lib/<library>`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = {"win32": "grilly.dll", "darwin": "libgrilly.dylib"}.get(sys.platform, "libgrilly.so")


class LibraryBuildHook(BuildHookInterface):
    """Runs cargo, unless LIBGRILLY_LIBRARY names a library that is built already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        prebuilt = os.environ.get("LIBGRILLY_LIBRARY")
        library = Path(prebuilt).resolve() if prebuilt else self._cargo_build()
        if not library.is_file():
            raise FileNotFoundError(f"no library at {library}")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        build_data["pure_python"] = False
        if version == "editable":
            self._link(library)
        else:
            build_data["force_include"][str(library)] = f"grilly/lib/{LIBRARY}"

    def _cargo_build(self) -> Path:
        repository = Path(self.root).parents[1]
        if not (repository / "Cargo.toml").is_file():
            raise FileNotFoundError(
                f"{repository} is not a checkout of libgrilly: build the wheel there, or set LIBGRILLY_LIBRARY"
            )
        subprocess.run(["cargo", "build", "--locked", "--release", "--lib"], cwd=repository, check=True)
        metadata = subprocess.run(
            ["cargo", "metadata", "--format-version=1", "--no-deps"],
            cwd=repository, check=True, stdout=subprocess.PIPE,
        )
        return Path(json.loads(metadata.stdout)["target_directory"]) / "release" / LIBRARY

    def _link(self, library: Path) -> None:
        """An editable installation sees every later build of the library, so it links instead of copying."""
        link = Path(self.root) / "grilly" / "lib" / LIBRARY
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(library)
