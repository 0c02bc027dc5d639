"""Files in local folders, in memory and on a real S3 server whose answers fail."""

from __future__ import annotations

import errno
import logging
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faprompt import storage_requests
from faprompt.errors import ConfigError, FolderInUseError, MissingExtraError
from faprompt.storage import (
    LocalFolder,
    StoredFile,
    StoredFolder,
    list_url,
    local_copy,
    local_path,
    open_folder,
    read_url,
    stamp_url,
)
from faprompt.storage_requests import PATIENCE_S, WAITS_S, find_file_system, repeat
from tests.helpers.object_storage import BUCKET, object_storage, without_faults

ODD_NAMES = (
    "a b.png",
    "50%.png",
    "a#b.png",
    "a?b.png",
    "a%20b.png",
    "a+b&c=d.png",
    "prüfung/検査.png",
)
STORM = {"slow_down": 0.15, "cut": 0.1, "lost": 0.08, "slow": 0.02}


@pytest.fixture(scope="module")
def server():
    """A real S3 server on the loopback address."""
    with object_storage() as faults:
        yield faults


@pytest.fixture
def s3(server, monkeypatch, request):
    return without_faults(server, monkeypatch, request.node.name.partition("[")[0])


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request, tmp_path):
    """An empty folder of each kind."""
    if request.param == "s3":
        return open_folder(request.getfixturevalue("s3").folder)
    if request.param == "local":
        return open_folder(tmp_path / "out")
    pytest.importorskip("fsspec")
    return open_folder(f"memory://{tmp_path.name}/out")


class Denied(Exception):
    """An error as those of botocore: its answer is a dictionary."""

    def __init__(self, status, code="x"):
        super().__init__(f"answer {status}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}}


class NoCredentialsError(Exception):
    """Named as that of botocore."""


class Status(Exception):
    """An error as those of other clients: the status is an attribute."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only in pauses; the list of them."""
    pauses: list[float] = []

    class Clock:
        sleep = pauses.append
        monotonic = staticmethod(lambda: sum(pauses))

    monkeypatch.setattr(storage_requests, "time", Clock)
    return pauses


def test_requests_are_repeated_with_growing_pauses(clock, caplog):
    answers = iter([OSError("busy"), Denied(503), Status(429), "content"])

    def action():
        if isinstance(answer := next(answers), Exception):
            raise answer
        return answer

    with caplog.at_level(logging.DEBUG):
        assert repeat(action, "a.png") == "content"
    assert all(wait <= pause <= 2 * wait for wait, pause in zip(WAITS_S, clock, strict=False))
    assert len(clock) == 3
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


def test_repeating_ends(clock):
    calls = []

    def action():
        calls.append(1)
        raise OSError(errno.ECONNRESET, "cut")

    with pytest.raises(OSError, match=r"^a\.png: failed 7 times \(.*cut\)\.$"):
        repeat(action, "a.png")
    assert len(calls) == len(WAITS_S) + 1
    assert sum(WAITS_S) <= sum(clock) <= min(2 * sum(WAITS_S), PATIENCE_S)


def test_a_request_that_takes_too_long_is_not_repeated(clock):
    def action():
        clock.append(PATIENCE_S)
        raise OSError("slow")

    with pytest.raises(OSError, match=r"failed once \(slow\)"):
        repeat(action, "a.png")


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(), PermissionError(), ValueError(), NotImplementedError(), Denied(400),
     Denied(403), Status(404), NoCredentialsError("no key")],
    ids=repr,
)  # fmt: skip
def test_lasting_errors_are_raised_at_once(clock, error):
    def action():
        raise error

    with pytest.raises((type(error), OSError)) as caught:
        repeat(action, "a.png")
    assert clock == []
    assert caught.value is error or str(caught.value) == f"a.png: {error}"


@pytest.mark.parametrize("code", ["RequestTimeout", "SlowDown", "BadDigest"])
def test_codes_that_pass_are_repeated_in_spite_of_their_status(clock, code):
    errors = iter([Denied(400, code)])
    assert repeat(lambda: _raise(next(errors, None)), "x") is None
    assert len(clock) == 1


def _raise(error):
    if error is not None:
        raise error


def test_every_folder_keeps_its_files(folder):
    assert not folder.exists("a/b.bin")
    assert folder.names("a") == [] == folder.names("")
    folder.write("a/b.bin", b"one")
    folder.write("a/b.bin", b"two")
    folder.write("a/c/d.bin", b"", durable=True)
    folder.write("a/.hidden", b"x")
    with folder.new_file("a/a10.bin", durable=True) as stream:
        stream.write(b"th")
        stream.write(b"ree")
        assert not folder.exists("a/a10.bin")
    assert [folder.read(f"a/{name}") for name in ("b.bin", "a10.bin", "c/d.bin")] == [
        b"two", b"three", b"",
    ]  # fmt: skip
    assert folder.names("a") == ["a10.bin", "b.bin"]
    assert folder.exists("a/b.bin")
    assert not folder.exists("a")
    assert not folder.exists("a/b.bi")
    folder.remove("a/b.bin")
    folder.remove("a/b.bin")
    assert folder.names("a") == ["a10.bin"]
    with pytest.raises(FileNotFoundError):
        folder.read("a/b.bin")


def test_a_file_whose_block_fails_is_not_written(folder):
    folder.write("old.bin", b"old")
    for name in ("old.bin", "new.bin"):
        with pytest.raises(ZeroDivisionError), folder.new_file(name) as stream:
            stream.write(b"half")
            raise ZeroDivisionError
    assert folder.names("") == ["old.bin"]
    assert folder.read("old.bin") == b"old"


def test_odd_names_are_kept(folder):
    for name in ODD_NAMES:
        folder.write(name, name.encode())
    with folder.new_file("new #1?.bin") as stream:
        stream.write(b"new")
    assert {name: folder.read(name) for name in ODD_NAMES} == {
        name: name.encode() for name in ODD_NAMES
    }
    assert all(map(folder.exists, ODD_NAMES))
    top = sorted([name for name in ODD_NAMES if "/" not in name] + ["new #1?.bin"])
    assert folder.names("") == top
    if isinstance(folder, StoredFolder):
        found = {file.path: read_url(file.path) for file in list_url(f"{folder.location}/")}
        wanted = {f"{folder.location}/{name}": name.encode() for name in ODD_NAMES}
        assert found == wanted | {f"{folder.location}/new #1?.bin": b"new"}
        assert [file.path for url in wanted for file in list_url(url)] == list(wanted)
    folder.remove("a?b.png")
    folder.remove("a#b.png")
    assert folder.names("") == sorted(set(top) - {"a?b.png", "a#b.png"})


def test_locks(tmp_path):
    local = open_folder(tmp_path)
    with local.lock("a"), pytest.raises(FolderInUseError), local.lock("a"):
        pass
    pytest.importorskip("fsspec")
    stored = open_folder("memory://locks")
    with stored.lock(), stored.lock():
        pass


def test_locations(tmp_path):
    assert open_folder(f"{tmp_path.as_uri()}/a%20b") == LocalFolder(tmp_path / "a b")
    assert open_folder(tmp_path) == LocalFolder(tmp_path) == open_folder(str(tmp_path))
    assert local_path("FILE://localhost/a/b.png") == os.path.abspath("/a/b.png")
    assert local_path("s3://b/a%20b") == "s3://b/a%20b"
    for url in ("file://server/a.png", "file://a.png", "file://"):
        with pytest.raises(ConfigError, match="three slashes"):
            local_path(url)
    pytest.importorskip("fsspec")
    assert open_folder("memory://out/").location == "memory://out"


def test_unknown_locations_are_refused(monkeypatch):
    pytest.importorskip("fsspec")
    for url in ("http://x/a.png", "HTTPS://x/a.png"):
        with pytest.raises(ConfigError, match="web addresses are not read; download"):
            read_url(url)
    with pytest.raises(ConfigError, match="this kind of storage is unknown"):
        read_url("nowhere://a/b.png")
    with pytest.raises(ConfigError, match="chained"):
        next(list_url("zip://a.png::s3://b/c.zip"))
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(MissingExtraError, match=r"faprompt\[storage\].*az needs adlfs"):
        open_folder("az://box/a")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'faprompt\[storage\]'"):
        open_folder("memory://a")


def test_local_copies(tmp_path):
    pytest.importorskip("fsspec")
    open_folder("memory://lists").write("a.txt", b"x")
    with local_copy("memory://lists/a.txt") as path:
        assert path.read_bytes() == b"x"
    assert not path.exists()
    with local_copy(tmp_path.as_uri()) as path:
        assert path == tmp_path


# Listing


@pytest.fixture(params=["memory", "s3"])
def bucket(request, tmp_path):
    """A folder of an object storage with files in folders, one of them an empty mark."""
    if request.param == "s3":
        stored = open_folder(request.getfixturevalue("s3").folder)
    else:
        pytest.importorskip("fsspec")
        stored = open_folder(f"memory://{tmp_path.name}")
    for name in ("lot/p10.png", "lot/p2.png", "lot/B/q.png", "lot/a/deep/r.txt", "lot[1]/s.png"):
        stored.write(name, name.encode())
    if request.param == "s3":
        stored.write("lot/empty/", b"")
        stored.write("lot/", b"")
    return stored


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("lot", ["lot/a/deep/r.txt", "lot/B/q.png", "lot/p2.png", "lot/p10.png"]),
        ("lot/", ["lot/a/deep/r.txt", "lot/B/q.png", "lot/p2.png", "lot/p10.png"]),
        ("lot/p2.png", ["lot/p2.png"]),
        ("lot/*.png", ["lot/p2.png", "lot/p10.png"]),
        ("lot/p?.png", ["lot/p2.png"]),
        ("lot/**/*.png", ["lot/B/q.png", "lot/p2.png", "lot/p10.png"]),
        ("lot/[AB]/*", ["lot/B/q.png"]),
        ("*/*/q.png", ["lot/B/q.png"]),
        ("lot[1]/s.png", ["lot[1]/s.png"]),
    ],
)
def test_listing(bucket, pattern, names):
    files = list(list_url(f"{bucket.location}/{pattern}"))
    assert [file.path for file in files] == [f"{bucket.location}/{name}" for name in names]
    assert [file.size for file in files] == [len(name) for name in names]
    assert [stamp_url(file.path) for file in files] == [file.stamp for file in files]
    bucket.write(names[0], b"other")
    assert stamp_url(files[0].path) != files[0].stamp


@pytest.mark.parametrize("name", ["nothing", "nothing/", "lot/*.gif", "no/**"])
def test_listing_nothing_is_an_error(bucket, name):
    with pytest.raises(FileNotFoundError, match="check the URL"):
        list(list_url(f"{bucket.location}/{name}"))


def test_sizes_of_stamps():
    assert StoredFile("a", "12-abc").size == 12
    assert StoredFile("a", "").size is None
    assert StoredFile("a", "None-abc").size is None


def test_only_folders_that_may_match_are_listed(s3):
    out = open_folder(s3.folder)
    for lot in range(30):
        out.write(f"lot{lot}/good/a.png", b"x")
    s3.set()
    assert len(list(list_url(f"{s3.folder}/lot1*/good/*.png"))) == 11
    assert s3.requests["GET"] <= 1 + 1 + 11 + 11  # info, folder of the lots, lots, pictures


# A real server


def test_one_request_for_each_file(s3):
    out = open_folder(s3.folder)
    out.write("a.bin", b"x" * 1000)
    with out.new_file("b.bin") as stream:
        stream.write(b"y")
    assert s3.requests == {"PUT": 2}
    assert read_url(f"{s3.folder}/a.bin") == b"x" * 1000
    assert s3.requests == {"PUT": 2, "GET": 1}


def test_a_storm_loses_and_doubles_nothing(s3, caplog):
    out, draw = open_folder(s3.folder), random.Random(0)
    contents = {f"{n % 3}/{n}.bin": draw.randbytes(draw.choice([0, 10, 70_000])) for n in range(60)}
    s3.set(**STORM)
    with caplog.at_level(logging.DEBUG, "faprompt"), ThreadPoolExecutor(8) as pool:
        list(pool.map(out.write, contents, contents.values()))
        listed = [file.path for file in list_url(s3.folder)]
        read = list(pool.map(out.read, contents))
        list(pool.map(out.remove, list(contents)[:20]))
        left = [name for folder in "012" for name in out.names(folder)]
        exist = list(pool.map(out.exists, contents))
    assert read == list(contents.values())
    assert sorted(listed) == sorted(f"{s3.folder}/{name}" for name in contents)
    assert sorted(left) == sorted(name[2:] for name in list(contents)[20:])
    assert exist == [False] * 20 + [True] * 40
    assert set(s3.injected) == set(STORM)
    repeated = sum("tried again" in record.message for record in caplog.records)
    assert repeated >= s3.injected["slow_down"]  # aiohttp repeats some lost requests itself


@pytest.fixture
def small_parts(monkeypatch):
    """Uploads in parts from 0.5 MB on; the server takes parts of this size."""
    import moto.settings
    import s3fs.core

    size = 2**18
    monkeypatch.setattr(s3fs.core, "calculate_chunksize", lambda *_, **__: size)
    monkeypatch.setattr(moto.settings, "get_s3_upload_part_min_size", lambda: size, raising=False)
    for module in [m for n, m in sys.modules.items() if n.startswith("moto.s3.")]:
        if hasattr(module, "S3_UPLOAD_PART_MIN_SIZE"):
            monkeypatch.setattr(module, "S3_UPLOAD_PART_MIN_SIZE", size)
    return size


def test_large_files_are_uploaded_in_parts(s3, small_parts):
    out, content = open_folder(s3.folder), random.Random(1).randbytes(5 * small_parts + 17)
    with out.new_file("big.bin") as stream:
        stream.write(content)
    assert s3.requests == {"POST": 2, "PUT": 6}
    assert read_url(f"{s3.folder}/big.bin") == content
    s3.set(slow_down=0.05, lost=0.05)
    for number in range(6):
        with out.new_file(f"{number}.bin") as stream:
            stream.write(content)
    assert s3.injected.total() >= 3
    s3.set()
    assert [out.read(f"{number}.bin") == content for number in range(6)] == [True] * 6


def test_an_upload_that_fails_for_good_leaves_no_part_of_the_file(s3, small_parts, monkeypatch):
    out = open_folder(s3.folder)
    monkeypatch.setattr(storage_requests, "WAITS_S", ())

    def refuse(environ):
        return "slow_down" if "partNumber=3" in environ["QUERY_STRING"] else None

    monkeypatch.setattr(s3, "_choose", refuse)
    with pytest.raises(OSError, match=r"big\.bin: failed once"), out.new_file("big.bin") as stream:
        stream.write(bytes(5 * small_parts))
    assert not out.exists("big.bin")


def test_a_body_that_stalls_is_an_error(s3, monkeypatch):
    import fsspec.config

    open_folder(s3.folder).write("stalled.bin", bytes(1000))
    settings = {"s3": {"config_kwargs": {"read_timeout": 0.3}}}
    monkeypatch.setattr(fsspec.config, "conf", settings)
    monkeypatch.setattr(storage_requests, "WAITS_S", (0.01,))
    s3.stalled = "stalled"
    with pytest.raises(OSError, match="failed 2 times"):
        read_url(f"{s3.folder}/stalled.bin")
    s3.stalled = ""
    assert read_url(f"{s3.folder}/stalled.bin") == bytes(1000)


def test_a_storage_that_never_answers_is_an_error(s3, monkeypatch):
    monkeypatch.setattr(storage_requests, "WAITS_S", (0.01, 0.01))
    out = open_folder(s3.folder)
    s3.set(slow_down=1)
    asked = {
        "write": lambda: out.write("a", b"x"),
        "read": lambda: out.read("a"),
        "exists": lambda: out.exists("a"),
        "names": lambda: out.names(""),
        "list": lambda: list(list_url(s3.folder)),
        "stamp": lambda: stamp_url(f"{s3.folder}/a"),
    }
    for name, ask in asked.items():
        with pytest.raises(OSError, match="failed 3 times") as caught:
            ask()
        assert not isinstance(caught.value, FileNotFoundError), name


def test_lasting_answers_are_clear_at_once(s3):
    out = open_folder(s3.folder)
    out.write("a.bin", b"x")
    with pytest.raises(FileNotFoundError):
        read_url(f"{s3.folder}/b.bin")
    for ask in (read_url, stamp_url, lambda url: list(list_url(url))):
        with pytest.raises(FileNotFoundError):
            ask("s3://no-such-bucket/a.bin")
    with pytest.raises(FileNotFoundError):
        open_folder("s3://no-such-bucket/a").write("b.bin", b"x")
    s3.set(denied=1)
    asked = (read_url, stamp_url, lambda url: list(list_url(url)))
    for ask in asked:
        with pytest.raises(PermissionError):
            ask(f"{s3.folder}/a.bin")
    with pytest.raises(PermissionError):
        out.write("b.bin", b"x")
    with pytest.raises(PermissionError):
        out.exists("a.bin")
    assert s3.requests.total() <= 2 * 5  # info of a refused file also lists it


def test_the_settings_of_the_user_count_more(monkeypatch, server):
    import fsspec.config

    monkeypatch.setattr(
        fsspec.config, "conf", {"s3": {"config_kwargs": {"retries": {"mode": "x"}}}}
    )
    options = storage_requests._s3_options()["config_kwargs"]
    assert options == {"max_pool_connections": 64, "retries": {"mode": "x"}}
    monkeypatch.setattr(fsspec.config, "conf", {})
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    assert storage_requests._s3_options()["config_kwargs"] == {"max_pool_connections": 64}
    assert find_file_system(f"s3://{BUCKET}/a b#c?d")[1] == f"{BUCKET}/a b#c?d"
    assert Path(find_file_system(f"S3://{BUCKET}/x")[1]) == Path(BUCKET, "x")
