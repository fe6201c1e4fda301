"""Raw files, plain or in archives, and the stamps that tell one from another."""

import gzip
import hashlib
import io
import os
import tarfile
import zipfile

import pytest
import zstandard

from recbole_dtn.errors import DataError
from recbole_dtn.preprocess import raw_files
from recbole_dtn.preprocess.raw_files import RawFolder
from recbole_dtn.preprocess.stamps import changed, stamps

CONTENT = "".join(f"{i},{i * i}\n" for i in range(5000)).encode()


def tar_bytes(mode, name="logs/part.csv", content=CONTENT):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for member, data in (("readme.txt", b"hello"), (name, content)):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def zip_bytes(name="logs/part.csv", content=CONTENT):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.txt", "hello")
        archive.writestr(name, content)
    return target.getvalue()


def zst(content):
    half = len(content) // 2  # two frames, as `zstd --rsyncable` or `cat a.zst b.zst` make them
    return b"".join(zstandard.ZstdCompressor().compress(part) for part in (content[:half], content[half:]))


KINDS = {
    "part.csv": CONTENT,
    "part.csv.gz": gzip.compress(CONTENT[:100]) + gzip.compress(CONTENT[100:]),
    "part.csv.zst": zst(CONTENT),
    "all.zip": zip_bytes(),
    "outer.zip": zip_bytes("deep/inner.zip", zip_bytes()),
    "gz.zip": zip_bytes("part.csv.gz", gzip.compress(CONTENT)),
    "all.tar": tar_bytes("w"),
    "all.tar.gz": tar_bytes("w:gz"),
    "all.tgz": tar_bytes("w:gz"),
    "all.tar.zst": zst(tar_bytes("w")),
    "gz.tar": tar_bytes("w", "part.csv.gz", gzip.compress(CONTENT)),
}


def read_all(raw):
    with raw.open() as (stream, position):
        content = stream.read()
        assert 0 <= position() <= raw.size
    return content


@pytest.mark.parametrize("kind", KINDS)
def test_a_raw_file_is_found_and_read_wherever_it_lies(tmp_path, kind):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / kind).write_bytes(KINDS[kind])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    folder = RawFolder(tmp_path / "sub", scratch)
    found, missing = folder.find_all(["part.csv", "other.csv"])
    assert missing == ["other.csv"]
    for _ in range(2):  # a raw file can be opened again
        assert read_all(found["part.csv"]) == CONTENT
    assert read_all(folder.find("part.csv")) == CONTENT
    assert folder.find("art.csv") is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "part.csv"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, kind):
    (tmp_path / kind).write_bytes(KINDS[kind][: len(KINDS[kind]) * 2 // 3])
    with pytest.raises(DataError, match=r"cannot be read \(.*\); is the download complete\?") as caught:
        read_all(RawFolder(tmp_path, tmp_path).find("part.csv"))
    assert kind in str(caught.value)


def test_plain_files_win_over_archives_and_a_missing_folder_has_none(tmp_path):
    (tmp_path / "all.zip").write_bytes(zip_bytes(content=b"old\n"))
    (tmp_path / "part.csv").write_bytes(b"new\n")
    assert read_all(RawFolder(tmp_path).find("part.csv")) == b"new\n"
    assert RawFolder(tmp_path / "none").find("part.csv") is None


def test_a_file_that_is_not_what_its_ending_says(tmp_path):
    for ending in ("gz", "zst", "zip", "tar.gz"):
        path = tmp_path / ending / f"part.csv.{ending}"
        path.parent.mkdir()
        path.write_bytes(b"plain text\n")
        said = "is not gzip data .*a plain text file is named without" if ending == "gz" else "cannot be read"
        with pytest.raises(DataError, match=rf"part\.csv\.{ending}.*{said}"):
            read_all(RawFolder(path.parent).find("part.csv"))


def test_a_raw_file_knows_the_file_on_disk_and_whether_its_size_is_that_of_text(tmp_path):
    packed = {"part.csv.gz", "part.csv.zst", "gz.zip", "gz.tar"}
    for kind, data in KINDS.items():
        folder = tmp_path / kind.replace(".", "_")
        folder.mkdir()
        (folder / kind).write_bytes(data)
        raw = RawFolder(folder, tmp_path).find("part.csv")
        assert raw.path == folder / kind
        assert raw.packed == (kind in packed)
        assert raw.packed or raw.size == len(CONTENT)


def test_zips_inside_zips_are_not_unpacked_to_be_listed(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "outer.zip").write_bytes(KINDS["outer.zip"])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    folder = RawFolder(raw, scratch, nested=False)
    assert folder.find_all(["part.csv", "readme.txt"])[1] == ["part.csv"]
    assert folder.unseen == len(zip_bytes())
    assert not list(scratch.iterdir())


# ---- stamps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logs.tar.gz", "logs.tgz", "part.csv.gz"])
def test_the_checksum_of_gzip_is_read(tmp_path, name):
    # With headers and ends a tar of 5 MiB, a multiple of what is read ahead: no reading of the member meets its end.
    content = bytes(5 * (1 << 20) - 4096)
    data = bytearray(gzip.compress(content) if name == "part.csv.gz" else tar_bytes("w:gz", "part.csv", content))
    (tmp_path / name).write_bytes(data)
    assert read_all(RawFolder(tmp_path).find("part.csv")) == content
    data[-8] ^= 1  # of the CRC-32, which is behind all data
    (tmp_path / name).write_bytes(data)
    raw = RawFolder(tmp_path).find("part.csv")
    with pytest.raises(DataError, match=r"cannot be read \(CRC check failed .*\); is the download complete\?"):
        read_all(raw)


def test_a_member_with_much_behind_it_is_read_without_the_rest(tmp_path, monkeypatch):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for member, content in (("part.csv", CONTENT), ("rest.bin", os.urandom(1 << 22))):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    packed = gzip.compress(target.getvalue(), 1)
    (tmp_path / "logs.tar.gz").write_bytes(packed[:-1000])  # cut off in the second member
    raw = RawFolder(tmp_path).find("part.csv")
    monkeypatch.setattr(raw_files, "BEHIND_BYTES", 1 << 16)
    assert read_all(raw) == CONTENT
    monkeypatch.setattr(raw_files, "BEHIND_BYTES", 1 << 23)
    with pytest.raises(DataError, match="cannot be read"):
        read_all(raw)


def test_stamps_tell_another_file_by_its_size_its_start_and_its_end(tmp_path):
    content = bytes(range(256)) * 12_000  # 3 MB
    path = tmp_path / "raw" / "sub" / "part.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    raws = [RawFolder(tmp_path / "raw").find("part.csv")]
    found = stamps(raws * 2, tmp_path / "raw")
    ends = content[: 1 << 20] + content[-(1 << 20) :]
    assert found == [{"file": "sub/part.csv", "size": 3_072_000, "digest": hashlib.sha256(ends).hexdigest()}]
    assert changed(found, tmp_path / "raw") == []
    for other in (content + b"x", b"x" + content[1:], content[:-1] + b"x"):
        path.write_bytes(other)
        assert changed(found, tmp_path / "raw") == ["sub/part.csv"]
    path.write_bytes(content)
    os.utime(path, (0, 0))
    assert changed(found, tmp_path / "raw") == []
    path.unlink()  # to make room: no change
    assert changed(found, tmp_path / "raw") == []
    assert changed(found, tmp_path / "none") == []
    assert changed([{"file": 3}, "x"], tmp_path / "raw") == []  # a record of another shape


def test_of_archives_the_archive_is_stamped(tmp_path):
    (tmp_path / "outer.zip").write_bytes(KINDS["outer.zip"])
    folder = RawFolder(tmp_path)
    (stamp,) = stamps([folder.find("part.csv"), folder.find("readme.txt")], tmp_path)
    assert stamp["file"] == "outer.zip"
    assert stamp["size"] == len(KINDS["outer.zip"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x00\x00",
            b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x63\x00",
        ),  # an unknown method
        (b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"),  # a password
    ],
)
def test_a_zip_with_a_damaged_directory_is_a_fault_of_the_data(tmp_path, old, new):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("part.csv", CONTENT)
    assert old in file.getvalue()
    (tmp_path / "a.zip").write_bytes(file.getvalue().replace(old, new))
    raw = RawFolder(tmp_path).find("part.csv")
    with pytest.raises(DataError, match=r"a\.zip/part\.csv: cannot be read"), raw.open():
        pass
