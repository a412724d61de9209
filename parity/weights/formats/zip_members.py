"""The members of a zip archive as places in its bytes.

`zipfile` trusts what the directory says of itself: it takes whatever length is declared, and the last of two members of
one name. Here the directory and every member must lie in the file, one behind the other, each with a name of its own
that leads nowhere else; nothing is unpacked to a disk. A member that is not compressed is a view of the file.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass

from parity.errors import FileError
from parity.weights.formats import limits
from parity.weights.formats.limits import shown

__all__ = ["Member", "aligned", "beginning", "content", "members"]

END = struct.Struct("<4s4H2LH")  # PKWARE's APPNOTE.TXT, 4.3.16
END64_PLACE = struct.Struct("<4sLQL")  # 4.3.15
END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
ENTRY = struct.Struct("<4s6H3L5H2L")  # 4.3.12
LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7
LONGEST_COMMENT = 2**16 - 1
STORED, DEFLATED = 0, 8
ENCRYPTED, UTF8 = 1, 0x800
SYMLINK = 0o120000
ZIP64 = 1  # the extra field with what does not fit in 32 bits
FULL = 2**32 - 1  # what stands in its stead
SAVE_AGAIN = "copy or save the file again"
DATE = (1980, 1, 1, 0, 0, 0)  # the first that zip knows: the same arrays are the same bytes
FILLING = struct.Struct("<3H")  # the extra field 0xA11E of 4.6.1: its number, its size, what the data is aligned to
ALIGNMENT = 64  # that of an array in a .npy
ZIP64_SIZE = 20  # of the extra field that `zipfile` adds


@dataclass(frozen=True)
class Member:
    """One file of an archive: `stored` bytes from `offset` on, `size` when they are unpacked; crc: of these."""

    name: str
    offset: int
    stored: int
    size: int
    crc: int
    method: int


@dataclass(frozen=True)
class _Entry:
    member: Member
    header: int
    raw_name: bytes


def members(data: memoryview) -> dict[str, Member]:
    """Name -> member in the order of the directory, without folders. FileError for anything out of place."""
    try:
        begin, size, count = _directory(data)
        entries = _entries(data, begin, size, count)
        found = _placed(data, entries, begin)
    except struct.error as error:
        raise FileError(f"expected a whole zip archive, received {error}; {SAVE_AGAIN}") from error
    limits.require_expansion("the archive", sum(m.size for m in found if m.method == DEFLATED), len(data))
    return {member.name: member for member in found if not member.name.endswith("/")}


def content(data: memoryview, member: Member) -> memoryview:
    """The bytes of a member, which must have the checksum that the directory gives."""
    found = data[member.offset : member.offset + member.stored]
    if member.method == DEFLATED:
        found = memoryview(_inflated(found, member, member.size + 1))  # one more than it may be, so that more is seen
    if len(found) != member.size:
        more = "more" if len(found) > member.size else len(found)
        raise FileError(f"{shown(member.name)}: expected {member.size} bytes, received {more}; {SAVE_AGAIN}")
    if (crc := zlib.crc32(found)) != member.crc:
        raise FileError(
            f"{shown(member.name)}: expected the checksum {member.crc:08x}, received {crc:08x}: the file is damaged"
        )
    return found


def beginning(data: memoryview, member: Member, length: int) -> bytes:
    """At most so many bytes of a member, before anybody looked at its checksum."""
    found = data[member.offset : member.offset + member.stored]
    return bytes(found[:length]) if member.method == STORED else _inflated(found, member, length)


def aligned(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The next member to open, with `force_zip64`: its data begins at a multiple of `ALIGNMENT`, so that arrays in it
    can be used where they lie."""
    assert archive.fp is not None
    info = zipfile.ZipInfo(name, DATE)
    begins = archive.fp.tell() + LOCAL.size + len(name.encode()) + FILLING.size + ZIP64_SIZE
    zeros = -begins % ALIGNMENT
    info.extra = FILLING.pack(0xA11E, FILLING.size - 4 + zeros, ALIGNMENT) + bytes(zeros)
    return info


def _inflated(packed: memoryview, member: Member, most: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
    except zlib.error as error:
        raise FileError(f"{shown(member.name)}: expected DEFLATE data, received {error}; {SAVE_AGAIN}") from error


def _directory(data: memoryview) -> tuple[int, int, int]:
    """Where the directory begins, its size, and how many members it names."""
    tail = bytes(data[-(END.size + LONGEST_COMMENT) :])
    at = tail.rfind(b"PK\5\6")
    if at < 0:
        raise FileError(f"expected a zip archive, received a file without the end of one; {SAVE_AGAIN}")
    at += len(data) - len(tail)
    _, disk, first_disk, here, count, size, begin, comment = END.unpack_from(data, at)
    end = at
    if at >= END64_PLACE.size and bytes(data[at - END64_PLACE.size :][:4]) == b"PK\6\7":
        *_, end, _ = END64_PLACE.unpack_from(data, at - END64_PLACE.size)
        mark, *_, disk, first_disk, here, count, size, begin = END64.unpack_from(data, end)
        if mark != b"PK\6\6":
            raise FileError(f"expected the end of a large zip archive at byte {end}, received {mark!r}; {SAVE_AGAIN}")
    if at + END.size + comment != len(data) or begin + size != end or disk or first_disk or here != count:
        raise FileError(
            f"expected a zip archive whose directory ends at byte {end} and whose end is the end of the file, "
            f"received a directory from {begin} to {begin + size}; {SAVE_AGAIN}"
        )
    limits.require_count("the members of the archive", count)
    return begin, size, count


def _entries(data: memoryview, begin: int, size: int, count: int) -> list[_Entry]:
    """What the directory says, in its order."""
    found: list[_Entry] = []
    at, end, names = begin, begin + size, set()
    for _ in range(count):
        (mark, made_by, _, flags, method, _, _, crc, stored, full, n_name, n_extra, n_comment, _, _, attributes,
         header) = ENTRY.unpack_from(data, at)  # fmt: skip
        at += ENTRY.size
        raw, extra = bytes(data[at : at + n_name]), bytes(data[at + n_name : at + n_name + n_extra])
        at += n_name + n_extra + n_comment
        name = raw.decode("utf-8" if flags & UTF8 else "cp437", errors="replace")
        if mark != b"PK\1\2" or at > end:
            raise FileError(f"member {len(found)}: expected an entry of a zip directory, received {mark!r}")
        _require_plain(name, flags, method, attributes >> 16 if made_by >> 8 == 3 else 0)
        if name in names:
            raise FileError(f"{shown(name)}: expected one member of this name, received a second one")
        names.add(name)
        full, stored, header = _wide(name, extra, (full, stored, header))
        found.append(_Entry(Member(name, 0, stored, full, crc, method), header, raw))
    if at != end:
        raise FileError(f"the directory: expected {count} members in {size} bytes, received {end - at} bytes more")
    return found


def _require_plain(name: str, flags: int, method: int, mode: int) -> None:
    if not limits.is_plain(name.removesuffix("/")):
        raise FileError(f"{shown(name)}: expected a name that leads nowhere else and can be shown, received this one")
    if flags & ENCRYPTED:
        raise FileError(f"{shown(name)}: expected plain data, received encrypted data")
    if method not in (STORED, DEFLATED):
        raise FileError(f"{shown(name)}: expected stored or deflated data, received the compression method {method}")
    if mode & 0o170000 == SYMLINK:
        raise FileError(f"{shown(name)}: expected a file, received a symbolic link")


def _wide(name: str, extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Size, stored size and place; those that are `FULL` stand in the extra field, in this order."""
    at = 0
    while FULL in values and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == ZIP64:
            wide = iter(struct.unpack_from(f"<{values.count(FULL)}Q", extra[: at + 4 + length], at + 4))
            size, stored, header = (next(wide) if value == FULL else value for value in values)
            return size, stored, header
        at += 4 + length
    if FULL in values:
        raise FileError(f"{shown(name)}: expected its size in the directory, received none")
    return values


def _placed(data: memoryview, entries: list[_Entry], end: int) -> list[Member]:
    """The members with their places, after a look at their own headers; none may reach into another."""
    found, reached, before = {}, 0, "the start"
    for entry in sorted(entries, key=lambda entry: entry.header):
        member = entry.member
        if entry.header < reached:
            raise FileError(f"{shown(member.name)}: expected it behind {shown(before)}, received overlapping members")
        mark, _, flags, method, *_, n_name, n_extra = LOCAL.unpack_from(data, entry.header)
        at = entry.header + LOCAL.size
        name = bytes(data[at : at + n_name])
        if mark != b"PK\3\4" or method != member.method or name != entry.raw_name or flags & ENCRYPTED:
            raise FileError(
                f"{shown(member.name)}: expected the same in its own header as in the directory, "
                f"received {shown(name)} with method {method}; {SAVE_AGAIN}"
            )
        at += n_name + n_extra
        if member.method == STORED and member.stored != member.size:
            raise FileError(f"{shown(member.name)}: expected {member.size} bytes, received {member.stored}")
        if at + member.stored > end:
            raise FileError(
                f"{shown(member.name)}: expected {member.stored} bytes, received {max(end - at, 0)} up to the directory"
            )
        found[member.name] = Member(member.name, at, member.stored, member.size, member.crc, member.method)
        reached, before = at + member.stored, member.name
    return [found[entry.member.name] for entry in entries]
