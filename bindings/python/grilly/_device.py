"""The devices of this machine."""

from __future__ import annotations

from ctypes import byref, c_uint32
from dataclasses import dataclass

from . import _abi
from ._errors import check


@dataclass(frozen=True)
class Device:
    """A device. `note` says of a listed device why it cannot be used or is not chosen by itself (empty if neither),
    and of a Compute's device how it came to be chosen."""

    index: int
    kind: str
    name: str
    driver: str
    note: str
    memory_bytes: int
    vendor_id: int
    device_id: int
    driver_version: int
    api_version: tuple[int, int, int]

    @property
    def is_vulkan(self) -> bool:
        """Whether it is anything but the CPU device."""
        return self.kind != "cpu"

    @classmethod
    def _from_c(cls, info: _abi.DeviceInfo) -> Device:
        packed = info.api_version
        return cls(
            index=info.index,
            kind=_abi.DEVICE_KINDS[info.kind] if info.kind < len(_abi.DEVICE_KINDS) else "other",
            name=info.name.decode(errors="replace"),
            driver=info.driver.decode(errors="replace"),
            note=info.note.decode(errors="replace"),
            memory_bytes=info.memory_bytes,
            vendor_id=info.vendor_id,
            device_id=info.device_id,
            driver_version=info.driver_version,
            api_version=(packed >> 22 & 0x7F, packed >> 12 & 0x3FF, packed & 0xFFF),
        )


def devices() -> list[Device]:
    """Vulkan's devices in Vulkan's order (that of VK_GPU_INDEX), then the CPU device."""
    count = c_uint32()
    check(_abi.lib.grilly_device_count(byref(count)))
    found = []
    for index in range(count.value):
        info = _abi.initialised(_abi.DeviceInfo)
        check(_abi.lib.grilly_device_info_get(index, byref(info)))
        found.append(Device._from_c(info))
    return found
