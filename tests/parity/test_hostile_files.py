"""Files of weights that are damaged, lie about themselves, or want something: each ends in one sentence, little memory
taken, and nothing run or followed."""

import itertools
import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.errors import FileError
from parity.weights.formats import read, write

MEASURE = Path(__file__).parent / "memory.py"
MOST_MEMORY = 64 * 2**20
Build = Callable[[Path], Any]
GOOD = {"layers/dense/vars/0": np.arange(6, dtype="f4").reshape(2, 3), "layers/dense/vars/1": np.array([1.0, -0.0, 3])}
CONFIG = {"name": "net", "layers": [{"class_name": "Dense", "config": {"name": "dense"}}]}


def loaded(path: Path) -> dict[str, bytes]:
    return {key: stored.load().tobytes() for key, stored in read(path).arrays.items()}


def refused(path: Path) -> str:
    """What a user is told: one line that names the file."""
    with pytest.raises(FileError) as caught:
        loaded(path)
    text = str(caught.value)
    assert caught.value.exit_status == 4
    assert text.startswith(f"{path}: ")
    assert text.isprintable()
    return text


# -- safetensors -------------------------------------------------------------------------------------------------------


def entry(shape: Any = (2,), offsets: Any = (0, 8), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def tensors(header: Any, data: bytes = bytes(8), length: int | None = None) -> Build:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return lambda path: path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def content(data: bytes) -> Build:
    return lambda path: path.write_bytes(data)


def twice(key: str) -> bytes:
    one = json.dumps(entry())
    return f'{{"{key}": {one}, "{key}": {one}}}'.encode()


SAFETENSORS: dict[str, tuple[Build, str]] = {
    "nothing": (content(b""), "the file is empty"),
    "seven bytes": (content(b"\x08" + bytes(6)), "expected 8 bytes with the length of the header, received 7 bytes"),
    "no header": (content(bytes(8)), "the header: expected '{' at its start, received b''"),
    "another format": (content(b"PK\x03\x04" + bytes(100)), "the file is cut off, or no .safetensors"),
    "a length beyond the file": (tensors({"a": entry()}, length=2**20), "received a length of 1048576"),
    "a length beyond everything": (
        tensors({"a": entry()}, length=2**64 - 1),
        "received a length of 18446744073709551615",
    ),
    "a header that ends early": (tensors({"a": entry()}, length=20), "the header: expected JSON, received line 1"),
    "no JSON": (tensors(b"{not json}"), "the header: expected JSON, received line 1, column 2"),
    "brackets in brackets": (
        tensors(b'{"a":[' + b",".join([b"[" * 300 + b"]" * 300] * 3000) + b"]}"),
        "the header: expected at most 131072 lists and objects, received 900002",
    ),
    "no object": (tensors(b"[1, 2, 3]"), "the header: expected '{' at its start, received b'['"),
    "no text": (tensors(b'{"\xff\xfe": 1}'), "the header: expected JSON, received"),
    "endless nesting": (tensors(b'{"a":' * 100_000), "the header: expected JSON, received"),
    "a number of five thousand digits": (tensors(b'{"a": %s}' % (b"9" * 5000)), "the header: expected JSON, received"),
    "a large header": (tensors(b"{" + b" " * 2**21 + b"}"), "the header: expected at most 2097152 bytes"),
    "a header of brackets": (
        tensors(b'{"a":[' + b"{}," * 690_000 + b"{}]}"),
        "the header: expected at most 131072 lists and objects, received 690003",
    ),
    "as many brackets as are allowed": (
        tensors(b'{"a":[' + b"{}," * 131_000 + b"{}]}"),
        "'a': expected an object with",
    ),
    "many arrays": (
        tensors({f"{n:x}": entry((0,), (0, 0), "I8") for n in range(2**14 + 1)}, b""),
        "the arrays: expected at most 16384, received 16385",
    ),
    "a key twice": (tensors(twice("a")), "the key 'a': expected it once, received it a second time"),
    "a field twice": (
        tensors(b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'),
        "the key 'dtype': expected it once",
    ),
    "no dtype": (
        tensors({"a": {"shape": [2], "data_offsets": [0, 8]}}),
        "'a': expected an object with data_offsets, dtype",
    ),
    "a field more": (
        tensors({"a": {**entry(), "code": "x"}}),
        "'a': expected an object with data_offsets, dtype, shape",
    ),
    "no entry": (tensors({"a": 3}), "'a': expected an object with data_offsets, dtype, shape, received 3"),
    "an unknown dtype": (tensors({"a": entry(dtype="F99")}), "'a': expected a dtype of F64, F32,"),
    "complex numbers": (tensors({"a": entry((1,), dtype="C64")}), "received 'C64'"),
    "truth values": (tensors({"a": entry((8,), dtype="BOOL")}), "received 'BOOL'"),
    "float8": (tensors({"a": entry((8,), dtype="F8_E4M3")}), "received 'F8_E4M3'"),
    "a dtype that is a list": (tensors({"a": entry(dtype=["F32"])}), "received ['F32']"),
    "a negative size": (tensors({"a": entry((-2,))}), "'a': shape: expected a list of sizes, received [-2]"),
    "half an element": (tensors({"a": entry((2.0,))}), "'a': shape: expected a list of sizes, received [2.0]"),
    "a size that is true": (tensors({"a": entry((True, 2))}), "'a': shape: expected a list of sizes"),
    "no shape": (tensors({"a": entry(None)}), "'a': shape: expected a list of sizes, received None"),
    "another shape": (tensors({"a": entry((3,))}), "'a': expected 12 bytes for float32 of shape (3,), received 8"),
    "another dtype": (
        tensors({"a": entry(dtype="F64")}),
        "'a': expected 16 bytes for float64 of shape (2,), received 8",
    ),
    "a shape beyond 64 bits": (
        tensors({"a": entry((2**32, 2**32), (0, 0))}, b""),
        f"'a': expected {2**66} bytes for float32 of shape (4294967296, 4294967296), received 0",
    ),
    "a huge axis beside none": (
        tensors({"a": entry((0, 2**70), (0, 0))}, b""),
        "'a': expected axes of fewer than 2**63",
    ),
    "a hundred axes": (
        tensors({"a": entry((1,) * 100, (0, 4))}, bytes(4)),
        "'a': expected at most 32 axes, received 100",
    ),
    "offsets in the wrong order": (
        tensors({"a": entry(offsets=(8, 0))}),
        "'a': data_offsets: expected a begin and an end",
    ),
    "three offsets": (tensors({"a": entry(offsets=(0, 4, 8))}), "'a': data_offsets: expected a begin and an end"),
    "negative offsets": (tensors({"a": entry(offsets=(-8, 0))}), "'a': data_offsets: expected a list of sizes"),
    "offsets beyond the file": (tensors({"a": entry(offsets=(8, 16))}), "'a': expected it to begin at byte 0"),
    "an end beyond the file": (
        tensors({"a": entry((4,), (0, 16))}),
        "expected 16 bytes up to the end of 'a', received 8",
    ),
    "overlapping arrays": (
        tensors({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
        "'b': expected it to begin at byte 8, where the one before it ends, received 4",
    ),
    "the same bytes twice": (tensors({"a": entry(), "b": entry()}), "'b': expected it to begin at byte 8"),
    "a gap": (tensors({"a": entry(), "b": entry(offsets=(16, 24))}, bytes(24)), "'b': expected it to begin at byte 8"),
    "bytes behind the arrays": (tensors({"a": entry()}, bytes(9)), "expected 8 bytes up to the end of 'a', received 9"),
    "bytes and no arrays": (tensors({}), "expected 0 bytes up to the end of no array, received 8"),
    "metadata that is no text": (
        tensors({"__metadata__": {"a": 1}, "a": entry()}),
        "__metadata__: expected an object of strings, received {'a': 1}",
    ),
    "metadata that is a list": (tensors({"__metadata__": []}, b""), "__metadata__: expected an object of strings"),
}

# -- zip archives, .npz ------------------------------------------------------------------------------------------------


def npy(array: Any, **fields: Any) -> bytes:
    """As numpy.save writes it, with some fields of the header replaced by other texts."""
    array = np.asarray(array)
    said = {"descr": repr(array.dtype.str), "fortran_order": "False", "shape": repr(array.shape), **fields}
    header = "{" + "".join(f"'{key}': {value}, " for key, value in said.items()) + "}\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + array.tobytes()


def archive(contents: dict[str, bytes] | list[tuple[Any, bytes]], compression: int = zipfile.ZIP_STORED) -> Build:
    def build(path: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as file:
            for name, data in contents.items() if isinstance(contents, dict) else contents:
                file.writestr(name, data)

    return build


def objects(path: Path) -> None:
    np.savez(path, a=np.array([print], dtype=object))


def patched(build: Build, *changes: Callable[[bytearray], None]) -> Build:
    def patch(path: Path) -> None:
        build(path)
        data = bytearray(path.read_bytes())
        for change in changes:
            change(data)
        path.write_bytes(data)

    return patch


def set_at(mark: bytes, offset: int, value: bytes, which: int = 0) -> Callable[[bytearray], None]:
    """Replace bytes at this distance from a mark of the format."""

    def change(data: bytearray) -> None:
        at = -1
        for _ in range(which + 1):
            at = data.index(mark, at + 1)
        data[at + offset : at + offset + len(value)] = value

    return change


LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
ONE = archive({"a.npy": npy(np.ones(3))})
TWO = archive({"a.npy": npy(np.ones(3)), "b.npy": npy(np.ones(3))})
PACKED = archive({"a.npy": npy(np.ones(3))}, zipfile.ZIP_DEFLATED)


def duplicates(path: Path) -> None:
    TWO(path)
    path.write_bytes(path.read_bytes().replace(b"b.npy", b"a.npy"))


def symlink(path: Path) -> None:
    link = zipfile.ZipInfo("a.npy")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    archive([(link, b"/etc/passwd")])(path)


def many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for number in range(2**14 + 1):
            file.writestr(f"{number}.npy", b"")


def bomb(path: Path) -> None:
    """256 MiB of zeros in a quarter of a megabyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(2**20)
    head = npy(np.zeros(0), shape=f"({2**25},)")
    packed = packer.compress(head) + b"".join(packer.compress(zeros) for _ in range(256)) + packer.flush()
    crc = zlib.crc32(head)
    for _ in range(256):
        crc = zlib.crc32(zeros, crc)
    size = len(head) + 2**28
    local = struct.pack("<4s5H3L2H", LOCAL, 20, 0, 8, 0, 33, crc, len(packed), size, 5, 0) + b"a.npy" + packed
    central = struct.pack("<4s6H3L5H2L", CENTRAL, 20, 20, 0, 8, 0, 33, crc, len(packed), size, 5, 0, 0, 0, 0, 0, 0)
    end = struct.pack("<4s4H2LH", END, 0, 0, 1, 1, len(central) + 5, len(local), 0)
    path.write_bytes(local + central + b"a.npy" + end)


def text_of(dtype: str) -> Build:
    return archive({"a.npy": npy(np.zeros(2, dtype))})


NPZ: dict[str, tuple[Build, str]] = {
    "nothing": (content(b""), "the file is empty"),
    "no archive": (
        content(b"\x93NUMPY" + bytes(200)),
        "expected a zip archive, received a file without the end of one",
    ),
    "an end alone": (content(END + bytes(17)), "expected a whole zip archive, received"),
    "bytes behind the end": (patched(ONE, lambda d: d.extend(b"more")), "whose end is the end of the file"),
    "bytes before the start": (
        patched(ONE, lambda d: d.insert(0, 0)),
        "expected a zip archive whose directory ends at",
    ),
    "a directory elsewhere": (patched(ONE, set_at(END, 16, struct.pack("<L", 2**31))), "whose directory ends at byte"),
    "several disks": (patched(ONE, set_at(END, 4, b"\1\0")), "expected a zip archive whose directory"),
    "more members than there are": (
        patched(ONE, set_at(END, 8, b"\2\0\2\0")),
        "expected a whole zip archive, received",
    ),
    "fewer members than there are": (patched(TWO, set_at(END, 8, b"\1\0\1\0")), "expected 1 members in"),
    "many members": (many_members, "the members of the archive: expected at most 16384, received 16385"),
    "a member twice": (duplicates, "'a.npy': expected one member of this name, received a second one"),
    "overlapping members": (
        patched(TWO, set_at(CENTRAL, 42, bytes(4), 1)),
        "'b.npy': expected it behind 'a.npy', received overlapping members",
    ),
    "a header elsewhere": (
        patched(ONE, set_at(CENTRAL, 42, b"\5\0\0\0")),
        "'a.npy': expected the same in its own header",
    ),
    "two names for a member": (patched(ONE, set_at(LOCAL, 30, b"b")), "'a.npy': expected the same in its own header"),
    "an encrypted member": (patched(ONE, set_at(CENTRAL, 8, b"\1\0")), "'a.npy': expected plain data"),
    "an unknown compression": (patched(ONE, set_at(CENTRAL, 10, b"\x63\0")), "received the compression method 99"),
    "LZMA": (archive({"a.npy": npy(np.ones(3))}, zipfile.ZIP_LZMA), "received the compression method 14"),
    "a symbolic link": (symlink, "'a.npy': expected a file, received a symbolic link"),
    "a name that leads out": (
        archive({"../a.npy": npy(np.ones(3))}),
        "'../a.npy': expected a name that leads nowhere else",
    ),
    "a name from the root": (
        archive({"/etc/a.npy": npy(np.ones(3))}),
        "'/etc/a.npy': expected a name that leads nowhere",
    ),
    "a name with signs": (archive({"a\x1b[2J.npy": npy(np.ones(3))}), "expected a name that leads nowhere else"),
    "another checksum": (
        patched(ONE, set_at(CENTRAL, 16, bytes(4))),
        "'a.npy': expected the checksum 00000000, received",
    ),
    "a damaged array": (patched(ONE, set_at(b"\xf0\x3f", 0, b"\xf1")), "the file is damaged"),
    "sizes that differ": (
        patched(ONE, set_at(CENTRAL, 24, struct.pack("<L", 10**6))),
        "'a.npy': expected 1000000 bytes",
    ),
    "a member beyond the file": (
        patched(ONE, set_at(CENTRAL, 20, struct.pack("<2L", 10**6, 10**6))),
        "'a.npy': expected 1000000 bytes, received",
    ),
    "a size in no field": (
        patched(ONE, set_at(CENTRAL, 24, b"\xff" * 4)),
        "'a.npy': expected its size in the directory",
    ),
    "more than is packed": (
        patched(PACKED, set_at(CENTRAL, 24, struct.pack("<L", 10**6))),
        "bytes for float64 of shape",
    ),
    "less than is packed": (
        patched(PACKED, set_at(CENTRAL, 24, struct.pack("<L", 50))),
        "bytes for float64 of shape (3,)",
    ),
    "damaged DEFLATE": (patched(PACKED, set_at(LOCAL, 35, b"\xff\xff")), "'a.npy': expected DEFLATE data, received"),
    "a bomb": (bomb, "if it is no bomb, save it without compression"),
    "a member that is no array": (
        archive({"run.py": b"print()"}),
        "'run.py': expected only arrays, which end with .npy",
    ),
    "a pickle": (archive({"a.npy": pickle.dumps(print)}), "'a': expected an array, received data that begins with"),
    "an empty member": (archive({"a.npy": b""}), "'a': expected an array, received data that begins with b''"),
    "objects": (objects, "'a': expected real or whole numbers, received the type '|O', objects, which are pickles"),
    "texts": (text_of("U3"), "received the type '<U3'"),
    "bytes": (text_of("S3"), "received the type '|S3'"),
    "complex numbers": (text_of("c16"), "received the type '<c16'"),
    "truth values": (text_of("?"), "received the type '|b1'"),
    "dates": (text_of("M8[s]"), "received the type '<M8[s]'"),
    "long floats": (text_of("f16"), "received the type '<f16'"),
    "opaque bytes": (text_of("V2"), "received the type '|V2', which may be bfloat16: save it as .safetensors"),
    "records": (archive({"a.npy": npy(np.zeros(1), descr="[('x', '<f8')]")}), "received the type \"[('x', '<f8')]\""),
    "another shape": (
        archive({"a.npy": npy(np.ones(3), shape="(4,)")}),
        "'a': expected 32 bytes for float64 of shape (4,), received 24",
    ),
    "a huge shape": (archive({"a.npy": npy(np.ones(3), shape=f"({2**40}, {2**40})")}), f"'a': expected {2**83} bytes"),
    "a negative shape": (
        archive({"a.npy": npy(np.ones(3), shape="(-3,)")}),
        "'a': expected the header that numpy.save",
    ),
    "code for a shape": (
        archive({"a.npy": npy(np.ones(3), shape="__import__('os').abort()")}),
        "'a': expected the header that numpy.save writes, received",
    ),
    "code for a type": (
        archive({"a.npy": npy(np.ones(3), descr="print()")}),
        "expected the header that numpy.save writes",
    ),
    "a key more": (archive({"a.npy": npy(np.ones(3), more="1")}), "'a': expected the header that numpy.save writes"),
    "an order that is none": (
        archive({"a.npy": npy(np.ones(3), fortran_order="1")}),
        "expected the header that numpy.save",
    ),
    "another version": (archive({"a.npy": b"\x93NUMPY\7\0" + bytes(90)}), "'a': expected version 1.0, 2.0 or 3.0"),
    "a long header": (
        archive({"a.npy": npy(np.ones(3), pad=f"'{'x' * 20_000}'")}),
        "expected a header of at most 10000",
    ),
    "a header beyond the member": (
        archive({"a.npy": b"\x93NUMPY\1\0\x76\0{"}),
        "'a': expected a header of at most 10000",
    ),
    "a hundred axes": (archive({"a.npy": npy(1.0, shape=f"({'1, ' * 100})")}), "'a': expected at most 32 axes"),
    "metadata that is no text": (
        archive({"__metadata__.npy": npy(np.ones(3))}),
        "'__metadata__': expected uint8, the bytes",
    ),
    "metadata that is no JSON": (
        archive({"__metadata__.npy": npy(np.zeros(3, "u1"))}),
        "__metadata__: expected JSON, received line 1, column 1",
    ),
}

# -- PyTorch -----------------------------------------------------------------------------------------------------------


def saved(make: Callable[[Any], Any], **options: Any) -> Build:
    def build(path: Path) -> None:
        import torch

        torch.save(make(torch), path, **options)

    return build


class Attack:
    """What a pickle can do: a file appears when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("attacked",)


def members_of(path: Path) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as file:
        return [(name, file.read(name)) for name in file.namelist()]


def repacked(change: Callable[[dict[str, bytes]], Any], compression: int = zipfile.ZIP_STORED) -> Build:
    """A good file whose members are changed; checksums are written anew."""

    def build(path: Path) -> None:
        write(path, GOOD)
        members = dict(members_of(path))
        members = change(members) or members
        archive(members, compression)(path)

    return build


def in_pickle(old: bytes, new: bytes) -> Build:
    def change(members: dict[str, bytes]) -> None:
        before = members["archive/data.pkl"]
        assert old in before
        members["archive/data.pkl"] = before.replace(old, new)

    return repacked(change)


def whole_pickle(text: bytes) -> Build:
    return repacked(lambda members: members.update({"archive/data.pkl": text}))


TORCH: dict[str, tuple[Build, str]] = {
    "a bare pickle": (content(pickle.dumps(Attack())), "expected a zip archive, received b'\\x80"),
    "the form before zip": (
        saved(lambda torch: {"a": torch.ones(3)}, _use_new_zipfile_serialization=False),
        "the form before PyTorch 1.6 is a bare pickle: save it again",
    ),
    "an attack": (
        saved(lambda torch: {"a": torch.ones(3), "b": Attack()}),
        "expected a state_dict, names with tensors",
    ),
    "an attack by name": (whole_pickle(b"cposix\nsystem\n(X\2\0\0\0idtR."), "'posix.system', which is not called"),
    "an attack by protocol 4": (whole_pickle(pickle.dumps(Attack(), 4)), "of a pickle"),
    "a module": (saved(lambda torch: torch.nn.Linear(2, 2)), "torch.save(model.state_dict(), 'name.pt')"),
    "a tensor": (saved(lambda torch: torch.ones(3)), "data.pkl: expected a state_dict"),
    "a list": (saved(lambda torch: [torch.ones(3)]), "data.pkl: expected a state_dict"),
    "a checkpoint": (saved(lambda torch: {"net": {"a": torch.ones(3)}}), "data.pkl: 'net': expected a state_dict"),
    "a number": (saved(lambda torch: {"a": torch.ones(3), "epoch": 3}), "data.pkl: 'epoch': expected a state_dict"),
    "a key that is a number": (saved(lambda torch: {0: torch.ones(3)}), "data.pkl: 0: expected a state_dict"),
    "complex numbers": (
        saved(lambda torch: {"a": torch.ones(3) * 1j}),
        "'torch.ComplexFloatStorage', which is not called",
    ),
    "truth values": (saved(lambda torch: {"a": torch.ones(3) > 0}), "'torch.BoolStorage', which is not called"),
    "a sparse tensor": (saved(lambda torch: {"a": torch.ones(3).to_sparse()}), "which is not called"),
    "whole numbers without a sign": (saved(lambda torch: {"a": torch.ones(3).to(torch.uint16)}), "which is not called"),
    "a number repeated endlessly": (
        saved(lambda torch: {"a": torch.ones(1).expand(2**40)}),
        f"data/0: expected {2**40} elements for shape ({2**40},) with strides (0,)",
    ),
    "a shape beyond the data": (
        in_pickle(b"K\2K\3\x86", b"K\2K\4\x86"),
        "data/0: expected 8 elements for shape (2, 4)",
    ),
    "strides beyond the data": (
        in_pickle(b"K\3K\1\x86", b"K\4K\1\x86"),
        "data/0: expected 6 elements for shape (2, 3)",
    ),
    "a negative shape": (
        in_pickle(b"K\2K\3\x86", b"J\xff\xff\xff\xffK\3\x86"),
        "expected a tensor, received shape (-1, 3)",
    ),
    "more data than there is": (in_pickle(b"cpuq\6K\6", b"cpuq\6K\7"), "'data/0': expected 28 bytes for float32"),
    "data of no file": (in_pickle(b"X\1\0\0\0000", b"X\1\0\0\0009"), "expected a reference to data of the archive"),
    "data of another file": (
        in_pickle(b"X\1\0\0\0000", b"X\5\0\0\0../ab"),
        "expected a reference to data of the archive",
    ),
    "a name twice": (in_pickle(b"vars/1", b"vars/0"), "data.pkl: expected each tensor under a name of its own"),
    "a memory of four thousand million objects": (
        whole_pickle(b"\x80\2}r\xff\xff\xff\xff."),
        "data.pkl: expected at most 9 objects, received number 4294967295",
    ),
    "half a pickle": (in_pickle(b"tq\7Q", b"tq"), "data.pkl: expected a"),
    "a pickle without an end": (whole_pickle(b"\x80\2}"), "data.pkl: expected a whole pickle, received"),
    "an empty pickle": (whole_pickle(b""), "data.pkl: expected a whole pickle, received"),
    "an endless pickle": (
        whole_pickle(b"\x80\2" + b"}" * 400_000 + b"."),
        "data.pkl: expected at most 327680 instructions",
    ),
    "a large pickle": (whole_pickle(bytes(2**21 + 1)), "data.pkl: expected at most 2097152 bytes"),
    "instructions that do not fit": (whole_pickle(b"\x80\2}R."), "data.pkl: expected a state_dict"),
    "no pickle": (
        repacked(lambda members: members.pop("archive/data.pkl") and None),
        "expected data.pkl and data in one folder",
    ),
    "two folders": (
        repacked(lambda members: members.update({"b/data.pkl": b""})),
        "expected data.pkl and data in one folder",
    ),
    "code": (repacked(lambda members: members.update({"archive/code/a.py": b""})), "received 'code/a.py'"),
    "a script": (repacked(lambda members: members.update({"archive/constants.pkl": b""})), "received 'constants.pkl'"),
    "compressed data": (repacked(lambda members: None, zipfile.ZIP_DEFLATED), "expected data that is not compressed"),
    "another byte order": (
        repacked(lambda members: members.update({"archive/byteorder": b"big"})),
        "byteorder: expected little, received another",
    ),
    "a damaged tensor": (
        lambda path: patched(lambda path: write(path, GOOD), set_at(b"\0\0\x80\x3f\0\0\0\x40", 2, b"\x81"))(path),
        "the file is damaged",
    ),
}

# -- ONNX --------------------------------------------------------------------------------------------------------------


def field(number: int, value: bytes | int) -> bytes:
    """A field of a protobuf message."""
    return varint(number << 3) + varint(value) if isinstance(value, int) else (
        varint(number << 3 | 2) + varint(len(value)) + value
    )  # fmt: skip


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def initializer(
    *more: bytes, name: bytes = b"a", kind: int = 1, dims: tuple[int, ...] = (2,), raw: bytes = bytes(8)
) -> bytes:
    sizes = b"".join(field(1, n) for n in dims)
    return field(5, sizes + field(2, kind) + field(8, name) + (field(9, raw) if raw else b"") + b"".join(more))


def onnx(*graph: bytes, head: bytes = field(1, 10), tail: bytes = field(8, b"")) -> Build:
    return content(head + field(7, b"".join(graph)) + tail)


ONNX: dict[str, tuple[Build, str]] = {
    "nothing": (content(b""), "the file is empty"),
    "no message": (
        content(b"\x89HDF\r\n\x1a\n" + bytes(90)),
        "expected an ONNX model with its version, one graph",
    ),
    "a text": (content(b"hello, world, this is no model"), "the model: expected"),
    "no graph": (content(field(1, 10) + field(8, b"")), "expected an ONNX model with its version, one graph"),
    "two graphs": (
        onnx(initializer(), tail=field(8, b"") + field(7, b"")),
        "expected an ONNX model with its version, one",
    ),
    "no version": (onnx(initializer(), head=b""), "expected an ONNX model with its version, one graph"),
    "no operators": (onnx(initializer(), tail=b""), "received the fields [1, 7]; it is no .onnx, or cut off"),
    "a graph that is a number": (
        content(field(1, 10) + field(7, 3)),
        "the graph: expected bytes, received the number 3",
    ),
    "a graph beyond the file": (
        content(b"\x3a" + varint(2**40)),
        f"the model: expected {2**40} bytes in field 7, received 0",
    ),
    "an endless number": (content(b"\x08" + b"\xff" * 20), "expected a number of at most 10 bytes"),
    "an initialiser twice": (onnx(initializer(), initializer()), "'a': expected one initialiser of this name"),
    "another shape": (onnx(initializer(dims=(3,))), "'a': expected 12 bytes for float32 of shape (3,), received 8"),
    "a huge shape": (onnx(initializer(dims=(2**40, 2**40))), f"'a': expected {2**82} bytes for float32"),
    "a huge shape without data": (onnx(initializer(dims=(2**40,), raw=b"")), f"'a': expected {2**40} elements for"),
    "a negative shape": (onnx(initializer(dims=(2**64 - 1,))), "'a': expected one array, received"),
    "a hundred axes": (onnx(initializer(dims=(1,) * 100)), "an initialiser: expected at most 32 axes"),
    "data of another file": (
        onnx(initializer(field(13, field(1, b"location") + field(2, b"../secret")), field(14, 1), raw=b"")),
        "'a': expected data of this file, received a reference to another file",
    ),
    "a place in another file": (onnx(initializer(field(14, 1))), "'a': expected data of this file"),
    "texts": (onnx(initializer(kind=8)), "'a': expected real or whole numbers, received type 8 of ONNX"),
    "truth values": (onnx(initializer(kind=9)), "received type 9 of ONNX"),
    "complex numbers": (onnx(initializer(kind=14, dims=(1,))), "received type 14 of ONNX"),
    "float8": (onnx(initializer(kind=17, dims=(8,))), "received type 17 of ONNX"),
    "no type": (onnx(initializer(kind=0)), "received type 0 of ONNX"),
    "a type that is a text": (onnx(initializer(field(2, b"x"))), "'a': expected real or whole numbers, received"),
    "a piece": (onnx(initializer(field(3, field(1, 0)))), "or a piece of one"),
    "data of two kinds": (
        onnx(initializer(field(4, bytes(8)))),
        "'a': expected one array, received [2] with ['float_data']",
    ),
    "lists of another length": (onnx(initializer(field(4, bytes(12)), raw=b"")), "'a': expected an array, received"),
    "a sparse one": (onnx(field(15, b"")), "expected initialisers with all their elements, received a sparse one"),
    "a name that is no text": (onnx(initializer(name=b"\xff\xfe")), "an initialiser: expected a text, received"),
    "many initialisers": (
        onnx(*(initializer(name=f"{n:x}".encode()) for n in range(2**14 + 1))),
        "the initialisers: expected at most 16384, received 16385",
    ),
}

# -- HDF5 and .keras ---------------------------------------------------------------------------------------------------


def h5(edit: Callable[[Any], Any]) -> Build:
    """A good file of Keras 3, edited."""

    def build(path: Path) -> None:
        import h5py

        write(path, GOOD)
        with h5py.File(path, "r+") as file:
            edit(file)

    return build


KERNEL = "layers/dense/vars/0"


def put(path: str, data: Any) -> Callable[[Any], Any]:
    def edit(file: Any) -> None:
        if path in file:
            del file[path]
        file[path] = data

    return edit


def declared(**arguments: Any) -> Build:
    """An array that says how large it is and holds nothing."""

    def edit(file: Any) -> None:
        del file[KERNEL]
        file.create_dataset(KERNEL, **arguments)

    return h5(edit)


def soft_link(file: Any) -> None:
    import h5py

    put(KERNEL, h5py.SoftLink("/layers/dense/vars/1"))(file)


def external_link(file: Any) -> None:
    import h5py

    put(KERNEL, h5py.ExternalLink("other.h5", "/secret"))(file)


def virtual(file: Any) -> None:
    import h5py

    layout = h5py.VirtualLayout(shape=(5,), dtype="f4")
    layout[:] = h5py.VirtualSource("other.h5", "secret", shape=(5,))
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, layout)


def without_shape(file: Any) -> None:
    import h5py

    put(KERNEL, h5py.Empty("f4"))(file)


def references(file: Any) -> None:
    import h5py

    put(KERNEL, np.array([file["layers"].ref], h5py.ref_dtype))(file)


def large_chunk(file: Any) -> None:
    del file[KERNEL]
    data = file.create_dataset(KERNEL, shape=(5,), maxshape=(None,), dtype="f4", chunks=(2**28,), compression="gzip")
    data.id.write_direct_chunk((0,), b"x")


def packed_zeros(file: Any) -> None:
    """Each is small enough, all of them are not."""
    for number in range(8):
        file.create_dataset(
            f"layers/more/vars/{number}", data=np.zeros(2**20, "f4"), chunks=(2**16,), compression="gzip"
        )


def odd_float(file: Any) -> None:
    """bfloat16 as an HDF5 type of its own, which h5py takes for float32."""
    import h5py

    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_precision(16)
    kind.set_size(2)
    kind.set_ebias(127)
    del file[KERNEL]
    h5py.h5d.create(file["layers/dense/vars"].id, b"0", kind, h5py.h5s.create_simple((3,)))


def many_groups(file: Any) -> None:
    for number in range(2**14):
        file.create_group(f"layers/{number}")


LONG = 2**20 + 12345  # a number that stands in the file once


def one_text_for_all(path: Path) -> None:
    """Four thousand references to one text of a megabyte."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["x" * LONG] + ["y"] * 3999
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<L", LONG))
    reference = bytes(data[at : at + 16])
    data[at : at + 16 * 4000] = reference * 4000
    path.write_bytes(data)


def legacy(edit: Callable[[Any], Any]) -> Build:
    """A good file of Keras 2, edited."""

    def build(path: Path) -> None:
        import h5py

        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"dense"]
            file["dense/dense/kernel:0"] = np.ones((2, 3), "f4")
            file["dense"].attrs["weight_names"] = [b"dense/kernel:0"]
            edit(file)

    return build


def attribute(path: str, name: str, value: Any) -> Callable[[Any], Any]:
    return lambda file: file[path].attrs.__setitem__(name, value)


HDF5: dict[str, tuple[Build, str]] = {
    "nothing": (content(b""), "the file is empty"),
    "another format": (content(b"PK\3\4" + bytes(99)), "expected an HDF5 file, which begins with b'\\x89HDF"),
    "a magic and nothing else": (content(b"\x89HDF\r\n\x1a\n"), "expected a whole HDF5 file, received"),
    "zeros behind the magic": (content(b"\x89HDF\r\n\x1a\n" + bytes(4096)), "expected a whole HDF5 file, received"),
    "no layers": (h5(lambda file: file.move("layers", "other")), "expected the group 'layers' (Keras 3), or"),
    "a soft link": (h5(soft_link), f"'{KERNEL}': expected an object of this file, received a SoftLink"),
    "an external link": (h5(external_link), f"'{KERNEL}': expected an object of this file, received a ExternalLink"),
    "external storage": (
        declared(shape=(5,), dtype="f4", external=[("secret", 0, 20)]),
        f"'{KERNEL}': expected data of this file, received a reference to data of other files",
    ),
    "a virtual array": (h5(virtual), f"'{KERNEL}': expected data of this file, received a reference"),
    "a second name": (h5(lambda file: put(KERNEL, file["layers/dense/vars/1"])(file)), "received a second name for"),
    "a circle": (h5(lambda file: put("layers/dense/vars/9", file["layers"])(file)), "received a second name for"),
    "many groups": (h5(many_groups), "expected at most 16384, received 16385"),
    "a type": (h5(put(KERNEL, np.dtype("f4"))), "expected a group or an array, received a Datatype"),
    "a name with signs": (h5(put("layers/a\x1b[2J", [1.0])), "expected a name that can be shown"),
    "texts": (h5(put(KERNEL, ["one"] * 5)), f"'{KERNEL}': expected real or whole numbers, received 'object'"),
    "bytes": (h5(put(KERNEL, np.array([b"one"]))), "expected real or whole numbers, received '|S3'"),
    "complex numbers": (h5(put(KERNEL, np.ones(5, "c8"))), "expected real or whole numbers, received 'complex64'"),
    "truth values": (h5(put(KERNEL, np.ones(5, "?"))), "expected real or whole numbers, received 'bool'"),
    "records": (h5(put(KERNEL, np.ones(5, "f4,i4"))), "expected real or whole numbers, received"),
    "long floats": (h5(put(KERNEL, np.ones(5, np.longdouble))), "expected real or whole numbers, received 'float128'"),
    "references": (h5(references), "expected real or whole numbers, received 'object'"),
    "opaque bytes": (h5(put(KERNEL, np.ones(5, "V2"))), "received '|V2', which may be bfloat16; cast it"),
    "an odd float": (h5(odd_float), "expected real or whole numbers, received 'float32'"),
    "no shape": (h5(without_shape), "expected an array, received a dataset without a shape"),
    "never written": (declared(shape=(5,), dtype="f4"), "expected 20 bytes for float32 of shape (5,), received 0"),
    "huge and never written": (declared(shape=(2**20, 2**40), dtype="f8", chunks=(1, 1)), f"expected {2**60} chunks"),
    "huge and written in one place": (
        h5(lambda file: declared_and_touched(file, (2**40,), (2**10,))),
        f"expected {2**30} chunks for ({2**40},), received 1 in the file",
    ),
    "a large chunk": (h5(large_chunk), "expected at most 100 times the 1 bytes that are stored, received"),
    "zeros packed": (h5(packed_zeros), "the arrays: expected at most 16777216 bytes of a file of"),
    "another filter": (
        h5(lambda file: file.create_dataset("layers/more/vars/0", data=np.ones(9), compression="lzf")),
        "expected no filters but gzip, shuffle and fletcher32, received [32000]",
    ),
    "a text that many refer to": (one_text_for_all, "'layer_names' of '': expected at most 16777216 bytes"),
    "a name that is a number": (
        h5(attribute("layers/dense/vars", "name", np.ones(3))),
        "the attribute 'name' of 'layers/dense/vars': expected texts, received float64",
    ),
    "metadata that is no JSON": (h5(put("__metadata__", np.zeros(3, "u1"))), "__metadata__: expected JSON"),
    "metadata that is no text": (h5(put("__metadata__", np.zeros(3))), "'__metadata__': expected uint8, the bytes"),
}


def declared_and_touched(file: Any, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, shape=shape, dtype="f4", chunks=chunks)[0] = 1


LEGACY: dict[str, tuple[Build, str]] = {
    "no list of layers": (
        legacy(lambda file: file.attrs.__delitem__("layer_names")),
        "expected the group 'layers' (Keras 3), or the attribute 'layer_names' (Keras 2), received the groups ['dense'",
    ),
    "no list of weights": (
        legacy(lambda file: file["dense"].attrs.__delitem__("weight_names")),
        "'dense': expected the attribute 'weight_names', received none",
    ),
    "texts in which the library goes round in circles": (
        patched(legacy(lambda file: None), set_at(b"GCOL", 16, bytes(16))),
        "the texts of attributes: expected objects that fill 4096 bytes, received one of 0 bytes at 16",
    ),
    "a layer that is not there": (
        legacy(attribute("/", "layer_names", [b"dense", b"conv"])),
        "'conv': expected the group that 'layer_names' lists, received none",
    ),
    "a weight that is not there": (
        legacy(attribute("dense", "weight_names", [b"dense/kernel:0", b"dense/bias:0"])),
        "'dense/dense/bias:0': expected the array that 'weight_names' lists, received none",
    ),
    "a weight too many": (
        legacy(put("dense/dense/bias:0", [1.0])),
        "'dense/dense/bias:0': expected only arrays that 'weight_names' lists, received one more",
    ),
    "a layer twice": (
        legacy(attribute("/", "layer_names", [b"dense", b"dense"])),
        "layer_names: expected 'dense' once, received it more often",
    ),
    "a name that leads out": (
        legacy(attribute("dense", "weight_names", [b"../dense/dense/kernel:0"])),
        "'dense/../dense/dense/kernel:0': expected the array that 'weight_names' lists, received none",
    ),
    "names that are numbers": (legacy(attribute("/", "layer_names", [1, 2])), "expected texts, received int64"),
    "a config that is no JSON": (
        legacy(attribute("/", "model_config", "{")),
        "the attribute 'model_config': expected JSON, received line 1, column 2",
    ),
    "a functional model": (
        legacy(attribute("/", "model_config", '{"class_name": "Functional", "config": {}}')),
        "class_name: expected 'Sequential', received 'Functional'",
    ),
}


def keras(change: Callable[[dict[str, bytes]], Any], compression: int = zipfile.ZIP_STORED) -> Build:
    """A good .keras file whose members are changed."""

    def build(path: Path) -> None:
        weights = path.with_name("inner.weights.h5")
        write(weights, GOOD, config=CONFIG)
        members = {"config.json": json.dumps(CONFIG).encode(), "metadata.json": b"{}"}
        members["model.weights.h5"] = weights.read_bytes()
        weights.unlink()
        change(members)
        archive(members, compression)(path)

    return build


def of(member: str, data: bytes) -> Build:
    return keras(lambda members: members.update({member: data}))


KERAS: dict[str, tuple[Build, str]] = {
    "no archive": (content(bytes(100)), "expected a zip archive"),
    "no config": (keras(lambda members: members.pop("config.json")), "expected config.json in the archive, received"),
    "no weights": (keras(lambda members: members.pop("model.weights.h5")), "expected model.weights.h5 in the archive"),
    "a config that is no JSON": (of("config.json", b"{"), "config.json: expected JSON, received line 1, column 2"),
    "a config with a key twice": (
        of("config.json", b'{"name": 1, "name": 2}'),
        "config.json: the key 'name': expected it once",
    ),
    "a large config": (
        of("config.json", b" " * (2**21 + 1)),
        "config.json: expected at most 2097152 bytes, received 2097153",
    ),
    "a functional model": (of("config.json", b'{"class_name": "Functional", "config": {}}'), "received 'Functional'"),
    "metadata that is no text": (of("metadata.json", b'{"a": 1}'), "metadata.json: expected an object of strings"),
    "weights that are a pickle": (
        of("model.weights.h5", pickle.dumps(print)),
        "model.weights.h5: expected an HDF5 file",
    ),
    "a name that leads out": (of("../escape", b""), "'../escape': expected a name that leads nowhere else"),
}

KINDS = {
    **{"safetensors": SAFETENSORS, "npz": NPZ, "pt": TORCH, "onnx": ONNX},
    **{"weights.h5": HDF5, "h5": LEGACY, "keras": KERAS},
}
NEEDS = {"pt": "torch", "weights.h5": "h5py", "h5": "h5py", "keras": "h5py", "onnx": "onnx"}
CASES = [(ending, case) for ending, cases in KINDS.items() for case in cases]


def need(ending: str) -> None:
    if ending in NEEDS:
        pytest.importorskip(NEEDS[ending])


@pytest.mark.parametrize(("ending", "case"), CASES, ids=lambda value: value)
def test_it_is_refused(tmp_path, monkeypatch, ending, case):
    need(ending)
    build, expected = KINDS[ending][case]
    path = tmp_path / f"model.{ending}"
    build(path)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    assert expected in refused(path)  # the first time imports what the format needs
    tracemalloc.start()
    try:
        refused(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
    assert not os.listdir(tmp_path / "cwd")  # what the attacks would leave
    if ending == "keras":
        target = tmp_path / "target.keras"
        target.write_bytes(b"old")
        with pytest.raises(FileError):
            write(target, GOOD, template=path)
        assert target.read_bytes() == b"old"


def test_there_are_enough():
    assert len(CASES) >= 60


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is asked for as Linux has it")
def test_memory_of_the_whole_process(tmp_path):
    """With what the libraries take that Python's own measure does not see."""
    for module in sorted(set(NEEDS.values())):
        pytest.importorskip(module)
    good = [tmp_path / f"good.{ending}" for ending in ("npz", "pt", "weights.h5")]
    for path in good:
        write(path, GOOD)
    paths = []
    for number, (ending, case) in enumerate(CASES):
        paths.append(tmp_path / f"{number}.{ending}")
        KINDS[ending][case][0](paths[-1])
    command = [sys.executable, str(MEASURE), "read", *map(str, good), "--", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, planted = [line.split() for line in done.stdout.splitlines()]
    assert int(planted[0]) > MOST_MEMORY
    assert {said for _, said in lines} == {"refused"}
    found = dict(zip(CASES, map(int, (size for size, _ in lines)), strict=True))
    assert {case: size for case, size in found.items() if size >= MOST_MEMORY} == {}


# -- what is no file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", KINDS)
def test_no_file(tmp_path, ending):
    path = tmp_path / f"model.{ending}"
    assert "there is no such file" in refused(path)
    path.mkdir()
    assert "expected a file, received a directory" in refused(path)


@pytest.mark.skipif(os.name != "posix", reason="pipes with names are those of POSIX")
def test_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "model.npz")
    assert "expected a file, received a pipe or a device" in refused(tmp_path / "model.npz")


def test_an_unknown_ending(tmp_path):
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(print))
    assert "expected a name that ends with one of .keras" in refused(tmp_path / "model.pkl")


# -- damage of every kind ----------------------------------------------------------------------------------------------


def small(path: Path) -> bytes:
    """A small good file of a format."""
    ending = path.name.split(".", 1)[1]
    builds: dict[str, Build] = {
        "keras": keras(lambda members: None),
        "h5": legacy(lambda file: None),
        "onnx": onnx(initializer(), initializer(name=b"b", dims=(1, 2))),
    }
    builds.get(ending, lambda path: write(path, GOOD, {"text": "x"}))(path)
    assert read(path).arrays
    return path.read_bytes()


@pytest.mark.parametrize("ending", KINDS)
def test_cut_off_at_every_byte(tmp_path, ending):
    need(ending)
    path = tmp_path / f"model.{ending}"
    data = small(path)
    for length in reversed(range(len(data))):
        os.truncate(path, length)
        refused(path)


def check_flips(path: Path, places: list[int]) -> None:
    """Every bit at these places: an error of ours or arrays, and the same arrays where the format has checksums."""
    data = small(path)
    expected = loaded(path)
    has_checksums = path.suffix in (".npz", ".pt", ".keras")
    accepted = 0
    with open(path, "r+b", buffering=0) as file:

        def put_byte(place: int, value: int) -> None:
            file.seek(place)
            file.write(bytes([value]))

        for place, bit in itertools.product(places, range(8)):
            put_byte(place, data[place] ^ 1 << bit)
            try:
                found = loaded(path)
            except FileError:
                continue
            finally:
                put_byte(place, data[place])
            accepted += 1
            assert found == expected or not has_checksums
    assert accepted < 8 * len(places)


def test_every_bit_of_a_safetensors_header(tmp_path):
    data = small(tmp_path / "model.safetensors")
    check_flips(tmp_path / "model.safetensors", list(range(8 + struct.unpack_from("<Q", data)[0])))


def test_every_bit_of_a_small_onnx_file(tmp_path):
    need("onnx")
    check_flips(tmp_path / "model.onnx", list(range(len(small(tmp_path / "model.onnx")))))


@pytest.mark.parametrize("ending", ["npz", "pt", "keras", "weights.h5", "h5"])
def test_some_bits_of_the_others(tmp_path, ending):
    need(ending)
    path = tmp_path / f"model.{ending}"
    in_use = np.flatnonzero(np.frombuffer(small(path), np.uint8))
    check_flips(path, np.random.default_rng(2).choice(in_use, 40, replace=False).tolist())


@pytest.mark.slow
@pytest.mark.parametrize("ending", KINDS)
def test_every_bit(tmp_path, ending):
    need(ending)
    path = tmp_path / f"model.{ending}"
    check_flips(path, np.flatnonzero(np.frombuffer(small(path), np.uint8)).tolist())
