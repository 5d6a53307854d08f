"""Archives made to harm (B41, B42): each is refused as a whole, before much of it is read."""

from __future__ import annotations

import gzip
import io
import resource
import stat
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_core.data import archives
from ssl_core.errors import DataError
from tests.ssl_core.uploads import picture, take, tarred, zipped

GOOD = {f"{number}.png": picture(number) for number in range(3)}


def read_all(tmp_path: Path, data: bytes, kind: str) -> list[tuple[str, int]]:
    path = tmp_path / "archive"
    path.write_bytes(data)
    return [(member.name, len(member.read())) for member in archives.members(path, kind)]


def zip_with(name: str, data: bytes = b"x", mode: int = stat.S_IFREG | 0o644) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, mode << 16
        archive.writestr(info, data)
    return out.getvalue()


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("good.txt"))
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = kind, link, mode
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo(name + "/through.txt"))
    return out.getvalue()


UNSAFE: dict[str, tuple[str, bytes]] = {
    "zip slip": ("zip", zip_with("../../evil.txt")),
    "zip slip in the middle": ("zip", zip_with("a/../../evil.txt")),
    "zip absolute": ("zip", zip_with("/etc/passwd")),
    "zip drive": ("zip", zip_with("C:/evil.txt")),
    "zip backslash": ("zip", zip_with("..\\evil.txt")),
    "zip NUL in a name": ("zip", zip_with("aXb.txt").replace(b"aXb", b"a\x00b")),
    "zip line end in a name": ("zip", zip_with("a\nb.txt")),
    "zip symlink": ("zip", zip_with("link", b"/etc/passwd", stat.S_IFLNK | 0o777)),
    "zip device": ("zip", zip_with("null", b"", stat.S_IFCHR | 0o666)),
    "zip pipe": ("zip", zip_with("pipe", b"", stat.S_IFIFO | 0o666)),
    "zip set-uid": ("zip", zip_with("su", b"x", stat.S_IFREG | 0o4755)),
    "tar slip": ("tar", tar_with("../evil.txt")),
    "tar absolute": ("tar", tar_with("/etc/passwd")),
    "tar symlink out": ("tar", tar_with("link", tarfile.SYMTYPE, "/etc")),
    "tar symlink inside": ("tar", tar_with("link", tarfile.SYMTYPE, "good.txt")),
    "tar hard link": ("tar", tar_with("link", tarfile.LNKTYPE, "../../etc/passwd")),
    "tar character device": ("tar", tar_with("null", tarfile.CHRTYPE)),
    "tar block device": ("tar", tar_with("disk", tarfile.BLKTYPE)),
    "tar pipe": ("tar", tar_with("pipe", tarfile.FIFOTYPE)),
    "tar set-gid": ("tar", tar_with("sg", mode=0o2755)),
    "tar.gz slip": ("tar.gz", gzip.compress(tar_with("../evil.txt"))),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_archive_that_reaches_out_is_unsafe(tmp_path: Path, name: str) -> None:
    kind, data = UNSAFE[name]
    with pytest.raises(DataError) as caught:
        read_all(tmp_path, data, kind)
    assert caught.value.code == "unsafe_archive"


def test_an_unsafe_archive_gives_no_dataset_however_good_the_rest(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        take(tmp_path, "x.tar", tarred({**GOOD, "../evil.png": picture(9)}))
    assert (caught.value.code, caught.value.param) == ("unsafe_archive", "../evil.png")
    assert not (tmp_path / "run" / "artifact").exists()


def overlapping() -> bytes:
    """Two directory entries that share one member's bytes, as in Fifield's zip bomb."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"x" * 1000)
        archive.writestr("b", b"x" * 1000)
        archive.filelist[1].header_offset = archive.filelist[0].header_offset
    return out.getvalue()


def lying_zip(size: int) -> bytes:
    """A member whose directory entry says `size`, whatever it unpacks to."""
    data = zipped({"a.txt": b"y" * 100_000})
    at = data.rfind(b"PK\x01\x02")
    return data[: at + 24] + struct.pack("<I", size) + data[at + 28 :]


def zip64_lie() -> bytes:
    """A zip64 record that claims a directory of eight exabytes."""
    data = zipped(GOOD)
    end = data.rfind(b"PK\x05\x06")
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 2**62, 2**62, 2**63, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    return data[:end] + record + locator + data[end:]


def many_entries(count: int) -> bytes:
    """A directory of that many entries, all of one member, whose end record admits to one."""
    name = b"a"
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name
    entry = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + name
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(entry) * count, len(local), 0)
    return local + entry * count + end


def twice() -> bytes:
    return zipped({"a1.txt": b"one", "a2.txt": b"two"}).replace(b"a2.txt", b"a1.txt")


def tar_header_bomb() -> bytes:
    """An extended header that claims eight gigabytes, as zeros, packed."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 8 * 2**30
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + b"\x00" * 2**20)


def tar_ratio_bomb() -> bytes:
    return tarred({"zeros.txt": b"\x00" * (200 * 2**20)}, "w:gz")


def encrypted() -> bytes:
    data = bytearray(zipped({"a.txt": b"secret"}))
    data[6] |= 1
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def corrupted() -> bytes:
    data = bytearray(zipped({"a.txt": b"some text that will be damaged " * 50}))
    data[45] ^= 0xFF
    return bytes(data)


BROKEN: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "ratio": ("zip", lambda: zipped({"zeros.txt": b"\x00" * 50_000_000}), "archive_bomb"),
    "ratio of many small": ("zip", lambda: zipped({f"{n}": b"\x00" * 900_000 for n in range(40)}), "archive_bomb"),
    "overlapping": ("zip", overlapping, "archive_bomb"),
    "a million entries": ("zip", lambda: many_entries(1_000_000), "archive_bomb"),
    "a directory too large": ("zip", lambda: many_entries(2_200_000), "archive_bomb"),
    "directory says less": ("zip", lambda: lying_zip(10), "archive_invalid"),
    "directory says more": ("zip", lambda: lying_zip(2**32 - 2), "archive_bomb"),
    "zip64 lies": ("zip", zip64_lie, "archive_invalid"),
    "a name twice": ("zip", twice, "archive_invalid"),
    "encrypted": ("zip", encrypted, "archive_invalid"),
    "truncated zip": ("zip", lambda: zipped(GOOD)[:-200], "archive_invalid"),
    "damaged member": ("zip", corrupted, "archive_invalid"),
    "truncated tar": ("tar", lambda: tarred(GOOD)[:700], "archive_invalid"),
    "truncated tar.gz": ("tar.gz", lambda: tarred(GOOD, "w:gz")[:-300], "archive_invalid"),
    "damaged tar.gz": ("tar.gz", lambda: tarred(GOOD, "w:gz")[:40] + b"\xff" * 400, "archive_invalid"),
    "tar name twice": ("tar", lambda: tarred({"a": b"x"})[:1024] * 2 + b"\x00" * 1024, "archive_invalid"),
    "tar header bomb": ("tar.gz", tar_header_bomb, "archive_bomb"),
    "tar ratio": ("tar.gz", tar_ratio_bomb, "archive_bomb"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bomb_or_a_broken_archive_is_refused_fast_and_small(tmp_path: Path, name: str) -> None:
    kind, make, code = BROKEN[name]
    data = make()
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(DataError) as caught:
        read_all(tmp_path, data, kind)
    assert caught.value.code == code
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB


def test_a_bomb_whose_members_are_skipped_by_size_is_still_seen(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(tar_ratio_bomb())
    with pytest.raises(DataError) as caught:
        list(archives.members(path, "tar.gz"))
    assert caught.value.code == "archive_bomb"


@pytest.mark.parametrize(("kind", "pack"), [("zip", zipped), ("tar", tarred)])
def test_more_members_than_the_limit_are_a_bomb(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    pack: Callable[[dict[str, bytes]], bytes],
) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 10)
    assert len(read_all(tmp_path, pack({str(n): b"x" for n in range(10)}), kind)) == 10
    with pytest.raises(DataError) as caught:
        read_all(tmp_path, pack({str(n): b"x" for n in range(11)}), kind)
    assert caught.value.code == "archive_bomb"


def test_a_large_member_is_reported_and_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_core.data.pictures.MAX_FILE_BYTES", 5_000)
    made = take(tmp_path, "x.tar", tarred({**GOOD, "large.png": picture(1, size=(90, 90))}))
    assert made.errors == [("large.png", 4, "file_too_large")]
    assert made.summary["rows"] == 3


def test_honest_archives_of_other_tools_are_read(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("folder")
        with archive.open(zipfile.ZipInfo("folder/streamed.txt"), "w", force_zip64=True) as member:
            member.write(b"x" * 5000)
        archive.comment = b"made elsewhere"
    assert read_all(tmp_path, out.getvalue(), "zip") == [("folder/streamed.txt", 5000)]


def test_long_names_and_many_folders_of_a_tar_are_read(tmp_path: Path) -> None:
    name = "/".join(["folder"] * 40) + "/ü.txt"
    assert read_all(tmp_path, tarred({name: b"abc", "b": b""}, "w:gz"), "tar.gz") == [(name, 3), ("b", 0)]
