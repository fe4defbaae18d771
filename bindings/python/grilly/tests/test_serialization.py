"""Files of state dicts: what is written comes back, other programs read and write the same, and damage is told."""

from __future__ import annotations

import json
import os
import pickle
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

import grilly
from grilly.nn import Conv2d, ReLU, Sequential
from grilly.tests.checks import required

SUFFIXES = (".npz", ".safetensors")


def arrays(rng: np.random.RandomState) -> dict[str, np.ndarray]:
    """Every real type, several ranks, empty ones, any strides; names that other formats trip over."""
    state = {
        f"layer.{np.dtype(code).name}": rng.randint(0, 100, (3, 5)).astype(code)
        for code in ("?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8")
    }
    return {
        **state, "file": np.float32([1.5, np.nan, -0.0, np.inf]), "scalar": np.array(7.0), "none": np.empty((2, 0, 3)),
        "transposed": rng.rand(4, 3).T, "reversed": np.arange(5)[::-1], "größe/x": np.ones(1, np.float32),
    }


def same_bits(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape, name
        assert got[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("suffix", SUFFIXES)
class TestEveryFormat:
    def test_what_was_saved_is_loaded_bit_for_bit(self, tmp_path, rng, suffix):
        path, state = tmp_path / f"state{suffix}", arrays(rng)
        grilly.save(state, str(path))
        loaded = grilly.load(path)
        same_bits(loaded, state)
        assert all(array.flags.writeable and array.flags.aligned for array in loaded.values())

    def test_a_model_comes_back(self, tmp_path, suffix):
        model, twin = (Sequential(Conv2d(2, 3, 3), ReLU(), Conv2d(3, 2, (1, 3), bias=False)) for _ in range(2))
        grilly.save(model.state_dict(), tmp_path / f"model{suffix}")
        twin.load_state_dict(grilly.load(tmp_path / f"model{suffix}"))
        same_bits(twin.state_dict(), model.state_dict())

    def test_parameters_on_a_device_are_saved_and_loaded_there(self, tmp_path, suffix):
        model, twin = (Conv2d(2, 3, 3).to("vulkan") for _ in range(2))
        parameters = dict(model.named_parameters())
        for state in (parameters, {name: parameter.data for name, parameter in parameters.items()}):
            grilly.save(state, tmp_path / f"model{suffix}")
            twin.load_state_dict(grilly.load(tmp_path / f"model{suffix}"))
            assert isinstance(twin.weight.data, grilly.Tensor)
            same_bits(twin.state_dict(), model.state_dict())

    def test_an_empty_state_is_a_file(self, tmp_path, suffix):
        grilly.save({}, tmp_path / f"empty{suffix}")
        assert grilly.load(tmp_path / f"empty{suffix}") == {}

    def test_the_same_state_gives_the_same_bytes(self, tmp_path, rng, suffix):
        state = arrays(rng)
        for name in "ab":
            grilly.save(state, tmp_path / (name + suffix))
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()

    def test_a_failed_save_leaves_the_old_file_and_nothing_else(self, tmp_path, rng, suffix):
        path = tmp_path / f"state{suffix}"
        grilly.save({"a": np.ones(3)}, path)
        before = path.read_bytes()
        for bad in ({"a": np.zeros(3), "b": object()}, {"a": np.zeros(3), 5: np.zeros(1)}, [np.zeros(3)]):
            with pytest.raises(TypeError):
                grilly.save(bad, path)
        assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]

    def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch, suffix):
        path = tmp_path / f"state{suffix}"
        grilly.save({"a": np.ones(3)}, path)
        before = path.read_bytes()

        def interrupted(descriptor: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            grilly.save({"a": np.zeros(3)}, path)
        assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]

    def test_who_may_read_a_file_stays_so(self, tmp_path, suffix):
        path = tmp_path / f"state{suffix}"
        grilly.save({"a": np.ones(2)}, path)
        path.chmod(0o600)
        grilly.save({"a": np.zeros(2)}, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and not grilly.load(path)["a"].any()

    def test_a_link_stays_a_link(self, tmp_path, suffix):
        target, link = tmp_path / f"target{suffix}", tmp_path / f"link{suffix}"
        link.symlink_to(target)
        grilly.save({"a": np.ones(3)}, link)
        assert link.is_symlink() and grilly.load(target)["a"].sum() == 3

    def test_every_truncation_is_refused(self, tmp_path, suffix):
        path = tmp_path / f"state{suffix}"
        grilly.save({"a": np.arange(5.0), "b": np.ones((2, 2), np.float32)}, path)
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=f"state{suffix} cannot be loaded: "):
                grilly.load(path)

    def test_damage_is_refused_or_harmless(self, tmp_path, rng, suffix):
        path = tmp_path / f"state{suffix}"
        grilly.save({"a": np.arange(5.0), "b": np.ones((2, 2), np.float32)}, path)
        whole = path.read_bytes()
        for _ in range(1000):
            damaged = bytearray(whole)
            damaged[rng.randint(len(whole))] ^= 1 << rng.randint(8)
            path.write_bytes(damaged)
            try:
                loaded = grilly.load(path)
            except ValueError:
                continue
            assert all(array.nbytes <= len(whole) for array in loaded.values())


def test_other_suffixes_are_refused(tmp_path):
    for call in (lambda path: grilly.save({}, path), grilly.load):
        with pytest.raises(ValueError, match=r"state.pt', expected a name that ends in .npz or .safetensors"):
            call(tmp_path / "state.pt")
    with pytest.raises(FileNotFoundError):
        grilly.load(tmp_path / "missing.npz")


def test_npz_files_are_numpys(tmp_path, rng):
    state = arrays(rng)
    grilly.save(state, tmp_path / "ours.npz")
    with np.load(tmp_path / "ours.npz") as theirs:
        same_bits(dict(theirs), state)
    del state["file"]
    for savez in (np.savez, np.savez_compressed):
        savez(tmp_path / "theirs.npz", **state)
        same_bits(grilly.load(tmp_path / "theirs.npz"), state)


def test_names_that_a_zip_file_would_change_are_refused(tmp_path):
    path = tmp_path / "state.npz"
    with pytest.raises(ValueError, match=r"the key 'a\\x00b', which a .npz file would call 'a'"):
        grilly.save({"a\0b": np.zeros(1), "a\0c": np.ones(1)}, path)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_version_of_npy_is_read(tmp_path, rng, version):
    array = rng.rand(3, 5)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("a.npy", "w") as entry:
        np.lib.format.write_array(entry, array, (version, 0))
    same_bits(grilly.load(tmp_path / "a.npz"), {"a": array})


def npy_header(shape: str) -> str:
    return f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape})}}"


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("header, reason", [
    (npy_header("17592186044416,"), r"'a.npy' has \d+ bytes, but its array ends at 7\d{13}$"),
    (npy_header("4294967296, 4294967296"), r"'a.npy' has \d+ bytes, but its array ends at 7\d{19}$"),
    (npy_header("0, 1180591620717411303424"), r"shape \[0, 1180591620717411303424\], expected sizes from 0 to 2\^63"),
    (npy_header("-1, -2"), r"an array has shape \[-1, -2\], expected sizes from 0"),
    (npy_header("True, 2"), r"an array has shape \[True, 2\], expected sizes from 0"),
    (npy_header("1,"), "bytes follow the array in 'a.npy'"),
    ("(" * 9000, "an array's header cannot be read"),
    ("-" * 9000 + "1", "an array's header cannot be read"),
], ids=["huge", "wrapping", "long", "negative", "boolean", "short", "open", "deep"])
def test_bad_npy_headers_are_refused_before_anything_is_allocated(tmp_path, header, reason, version):
    length = (len(header) + 1).to_bytes(2 if version == 1 else 4, "little")
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + b"\n" + bytes(8))
    with pytest.raises(ValueError, match=f"bad.npz cannot be loaded: .*{reason}"):
        grilly.load(tmp_path / "bad.npz")


def test_npz_files_with_pickles_are_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    np.savez(tmp_path / "bomb.npz", a=np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        grilly.load(tmp_path / "bomb.npz")
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="not a zip file"):
        grilly.load(tmp_path / "plain.npz")
    assert not (tmp_path / "exploded").exists()


def test_safetensors_files_are_everybodys(tmp_path, rng):
    theirs, state = required("safetensors.numpy"), arrays(rng)
    grilly.save(state, tmp_path / "ours.safetensors")
    same_bits(theirs.load_file(tmp_path / "ours.safetensors"), state)
    contiguous = {name: np.array(array, order="C") for name, array in state.items()}
    theirs.save_file(contiguous, tmp_path / "theirs.safetensors", metadata={"format": "np"})
    same_bits(grilly.load(tmp_path / "theirs.safetensors"), state)


def test_bfloat16_is_widened(tmp_path):
    torch, safetensors = required("torch"), required("safetensors.torch")
    tensor = torch.randn(3, 5).bfloat16()
    # Debian's torch 1.13 is older than what safetensors.torch supports; its bytes are what counts.
    data = tensor.view(torch.int16).numpy().tobytes()
    header = {"w": {"dtype": "BF16", "shape": [3, 5], "data_offsets": [0, 30]}}
    write_safetensors(tmp_path / "w.safetensors", header, data)
    np.testing.assert_array_equal(grilly.load(tmp_path / "w.safetensors")["w"], tensor.float().numpy())
    assert torch.equal(safetensors.load_file(tmp_path / "w.safetensors")["w"], tensor)


def write_safetensors(path: Path, header: object, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def entry(begin: object, end: object, shape: object = (2,), dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("header, reason", [
    ({"a": entry(0, 8), "b": entry(4, 12)}, "b begins at byte 4, where the array before it ends at 8"),
    ({"a": entry(0, 4, (1,)), "b": entry(8, 16)}, "b begins at byte 8, where the array before it ends at 4"),
    ({"a": entry(4, 12), "b": entry(12, 16, (1,))}, "a begins at byte 4, where the array before it ends at 0"),
    ({"a": entry(0, 8)}, "its arrays take 8 bytes, but its header is followed by 16"),
    ({"a": entry(0, 32, (8,))}, "its arrays take 32 bytes, but its header is followed by 16"),
    ({"a": entry(0, 16)}, r"a, F32 of shape \[2\], has 16 bytes, expected 8"),
    ({"a": entry(0, 16, (2**40, 2**40))}, "has 16 bytes, expected 4835703278458516698824704"),
    ({"a": entry(0, 16, (4,), "F8_E4M3")}, "a has dtype 'F8_E4M3', expected one of BF16, BOOL, U8"),
    ({"a": entry(0, 16, (4,), ["F32"])}, r"a has dtype \['F32'\], expected one of BF16, BOOL, U8"),
    ({"a": entry(0, 16, (-2, -2))}, r"a has shape \[-2, -2\] and bytes 0 to 16, expected numbers of 0 or more"),
    ({"a": entry(16, 0, (4,))}, r"a, F32 of shape \[4\], has -16 bytes, expected 16"),
    ({"a": entry(0, 16.0, (4,))}, "expected numbers of 0 or more"),
    ({"a": entry(False, 16, (4,))}, "expected numbers of 0 or more"),
    ({"a": {"dtype": "F32", "shape": [4]}}, "a lacks a dtype, a shape or data_offsets"),
    ({"a": 3}, "a lacks a dtype, a shape or data_offsets"),
    ([1], "its header is not a JSON object"),
    (b"{", "Expecting property name"),
    (b"\xff\xfe", "invalid start byte"),
    (b"[" * 100_000, "recursion"),
    (b'{"a": 1, "a": 2}', "its header has a name twice"),
])
def test_bad_safetensors_files_are_refused_with_a_reason(tmp_path, header, reason):
    write_safetensors(tmp_path / "bad.safetensors", header, bytes(16))
    with pytest.raises(ValueError, match=f"bad.safetensors cannot be loaded: .*{reason}"):
        grilly.load(tmp_path / "bad.safetensors")


def test_types_that_safetensors_lacks_are_refused(tmp_path):
    for name, array in (("a", np.zeros(2, np.complex64)), ("__metadata__", np.zeros(2))):
        with pytest.raises(TypeError, match=f"{name} of dtype .* cannot be in a .safetensors file"):
            grilly.save({name: array}, tmp_path / "state.safetensors")
    grilly.save({"a": np.arange(3, dtype=">f8")}, tmp_path / "state.safetensors")
    assert grilly.load(tmp_path / "state.safetensors")["a"].tolist() == [0, 1, 2]
