"""Pictures of an object storage, in memory and on a real S3 server, against the same files here."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from faprompt.bulk import Shard, merge_shards, shard_of
from faprompt.errors import ConfigError, ImageReadError
from faprompt.prediction import picture_fetching, read_rows
from faprompt.prediction.input_paths import list_inputs
from faprompt.prediction.picture_fetching import fetch_ahead
from faprompt.storage import StoredFile, StoredFolder, open_folder, stamp_url
from tests.bulk.runs import run, run_all
from tests.helpers import small
from tests.helpers.object_storage import object_storage, without_faults
from tests.prediction.fakes import RedScorer, part, parts, predict, rows_of

pytest.importorskip("fsspec")


@pytest.fixture(scope="module")
def server():
    with object_storage() as faults:
        yield faults


@pytest.fixture
def s3(server, monkeypatch, request):
    return without_faults(server, monkeypatch, request.node.name)


@pytest.fixture
def stored(tmp_path):
    """An empty folder in memory."""
    return open_folder(f"memory://{tmp_path.name}/in")


def upload(local: Path, stored) -> None:
    for path in local.rglob("*"):
        if path.is_file():
            stored.write(path.relative_to(local).as_posix(), path.read_bytes())


def listed(*inputs, **options):
    return [file.path for file in list_inputs(inputs, **options)]


def relative(rows, home) -> list:
    """Rows without times, and with paths and errors below the inputs."""
    return [
        replace(
            row, path=row.path.removeprefix(home), latency_ms=None, overlay=None, map=None,
            error=row.error and row.error.replace(home, "").partition(":")[0],
        )
        for row in rows
    ]  # fmt: skip


def test_a_url_gives_its_pictures_as_a_folder_does(tmp_path, stored):
    for name in (
        "p10.png", "p2.JPG", "sub/q.tif", "sub/notes.txt", ".hidden/a.csv", "Thumbs.db",
        "__MACOSX/p.png", "out/results.jsonl", "out/run.json", "x.gif",
        "out/overlays/p2-0123456789abcdef.jpg", "overlays/p2-0123456789abcdef.jpg",
    ):  # fmt: skip
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    upload(tmp_path / "in", stored)
    for below in ("", "/", "/*", "/sub/**", "/*.png", "/sub", "/p?.*", "/out/overlays", "/x.gif"):
        here, there = Counter(), Counter()
        wanted = listed(f"{tmp_path}/in{below}", left_out=here)
        found = listed(f"{stored.location}{below}", left_out=there)
        assert [name.removeprefix(stored.location) for name in found] == [
            name.removeprefix(f"{tmp_path}/in") for name in wanted
        ], below
        assert there == here, below
    assert listed(stored.location, exclude=[f"{stored.location}/sub"]) == [
        url for url in listed(stored.location) if "/sub/" not in url
    ]
    files = list(list_inputs([f"{stored.location}/p2.JPG"]))
    assert files == [StoredFile(f"{stored.location}/p2.JPG", stamp_url(files[0].path))]


def test_urls_that_name_nothing_are_refused(stored):
    stored.write("notes.txt", b"x")
    for below, reason in {
        "": "no pictures in this folder .*it holds 1 .txt",
        "/none": "no such file or folder",
        "/*.png": "check the URL|matches no picture",
    }.items():
        with pytest.raises(ImageReadError, match=reason):
            listed(f"{stored.location}{below}")
    with pytest.raises(ConfigError, match="web addresses"):
        listed("https://x/a.png")


def test_rows_and_pictures_equal_those_of_local_files(tmp_path, stored):
    paths = parts(tmp_path / "in", 6)
    paths[4].write_bytes(b"no picture")
    part(tmp_path / "in/sub/größe #1?.png", 200, size=(9, 14))
    upload(tmp_path / "in", stored)
    options = {"threshold": 0.5, "maps": "npy", "batch_size": 4}
    predict(RedScorer(), listed(tmp_path / "in"), out_dir=tmp_path / "here", **options)
    named = list_inputs([stored.location])
    told = predict(RedScorer(), named, out_dir=tmp_path / "there", **options)
    assert (told.n_ok, told.n_error) == (6, 1)
    here, there = rows_of(tmp_path / "here"), rows_of(tmp_path / "there")
    assert relative(here, f"{tmp_path}/in") == relative(there, stored.location)
    for one, other in zip(here, there, strict=True):
        for name, same in ((one.map, other.map), (one.overlay, other.overlay)):
            if name:
                content = (tmp_path / "here" / name).read_bytes()
                assert (tmp_path / "there" / same).read_bytes() == content
    assert there[4].error.startswith(f"{stored.location}/part_4.png: ")


def test_what_cannot_be_fetched_is_a_row(tmp_path, stored):
    part(tmp_path / "in/a.png", 90)
    upload(tmp_path / "in", stored)
    good = f"{stored.location}/a.png"
    urls = [good, f"{stored.location}/b.png", "http://x/c.png", "nowhere://d.png", "file://e/f.png"]
    (tmp_path / "lot.txt").write_text("\n".join(urls))
    predict(RedScorer(), list_inputs([f"@{tmp_path}/lot.txt"]), out_dir=tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row.path for row in rows] == urls
    assert [row.status for row in rows] == ["ok", *["error"] * 4]
    reasons = ("no such file .*check the URL", "web addresses are not read", "unknown", "slashes")
    for row, reason in zip(rows[1:], reasons, strict=True):
        assert row.error.startswith(f"{row.path}: ")
        assert re.search(reason, row.error)
    run(urls, tmp_path / "shards", "1/1")
    merge_shards(tmp_path / "shards")
    told = {row.path: row.error for row in read_rows(tmp_path / "shards/results.jsonl")}
    assert told == {row.path: row.error for row in rows}


def test_resume_goes_by_the_stamps(tmp_path, stored):
    parts(tmp_path / "in", 4)
    upload(tmp_path / "in", stored)
    out = tmp_path / "out"

    def again(files) -> int:
        scorer = RedScorer()
        predict(scorer, files, out_dir=out, resume=True, threshold=0.5)
        return sum(scorer.seen)

    urls = listed(stored.location)
    assert again(list_inputs([stored.location])) == 4
    assert again(list_inputs([stored.location])) == 0
    assert again(urls) == 0  # stamps that are asked for equal those of the listing
    stored.write("part_1.png", part(tmp_path / "other.png", 10).read_bytes())
    assert again(urls) == 1
    stored.remove("part_2.png")
    assert again(urls) == 0
    assert [row.status for row in rows_of(out)] == ["ok", "ok", "error", "ok"]
    assert again(list_inputs([f"{stored.location}/part_0.png"])) == 0


def test_a_detector_reads_urls(tmp_path, stored):
    detector = small.detector(prompts=2)
    path = small.picture_file(tmp_path / "a.png", seed=1)
    stored.write("a b#1.png", path.read_bytes())
    here, there = detector.predict(path), detector.predict(f"{stored.location}/a b#1.png")
    assert here.score == there.score and (here.score_map == there.score_map).all()
    with pytest.raises(ImageReadError, match=r"b\.png: no such file"):
        detector.predict(f"{stored.location}/b.png")


def test_fetching_ahead_is_bounded_and_in_order(monkeypatch):
    running, most, lock = 0, 0, threading.Lock()

    def fetch(url):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002 * (int(url[-1]) % 3))
        with lock:
            running -= 1
        return bytes(1000)

    monkeypatch.setattr(picture_fetching, "fetch", fetch)
    drawn = 0

    def files():
        nonlocal drawn
        for number in range(60):
            drawn = number + 1
            yield StoredFile(f"s3://b/{number}", "1000-x")

    limits = {"readers": 4, "held_bytes": 5000, "max_pixels": 10**6}
    found = fetch_ahead(files(), **limits)
    names = []
    for picture in found:
        names.append(picture.path)
        assert drawn - len(names) <= 5  # 5,000 bytes
    assert names == [f"s3://b/{number}" for number in range(60)]
    assert 2 <= most <= 4
    large = [StoredFile("s3://b/1", f"{10**9}-x"), StoredFile("s3://b/2", "10-x")]
    first, second = fetch_ahead(large, **limits)
    assert "1,000,000,000 bytes" in str(first.content) and second.content == bytes(1000)


# A real server


def bucket_of(s3, local: Path, below: str) -> StoredFolder:
    folder = open_folder(f"{s3.folder}/{below}")
    upload(local, folder)
    return folder


def test_shards_from_bucket_to_bucket_in_a_storm(tmp_path, s3):
    paths = parts(tmp_path / "in", 9) + [part(tmp_path / "in/a/ö 1#.png", 120)]
    paths[3].write_bytes(b"no picture")
    inputs = bucket_of(s3, tmp_path / "in", "in")
    files = list(list_inputs([inputs.location]))
    urls = [file.path for file in files]
    out = f"{s3.folder}/out"
    run_all(urls, f"{tmp_path}/calm", 2, maps="png")
    s3.set(slow_down=0.15, cut=0.08, lost=0.05, slow=0.01)
    run_all(urls, out, 2, maps="png")
    merge_shards(out)
    assert {"slow_down", "cut", "lost"} <= set(s3.injected)
    s3.set()
    merge_shards(f"{tmp_path}/calm")
    stored = open_folder(out)
    (tmp_path / "results.jsonl").write_bytes(stored.read("results.jsonl"))
    rows = list(read_rows(tmp_path / "results.jsonl"))
    calm = list(read_rows(tmp_path / "calm/results.jsonl"))
    assert [replace(row, latency_ms=None) for row in rows] == [
        replace(row, latency_ms=None) for row in calm
    ]
    assert sorted(row.path for row in rows) == sorted(urls)
    assert [row.path for row in rows if row.status == "error"] == [f"{inputs.location}/part_3.png"]
    for row in rows:
        assert (row.map is None) == (row.status == "error")
        for name in filter(None, (row.map, row.overlay)):
            assert Shard(shard_of(row.path, 2), 2).folder in name
            assert stored.read(name) == (tmp_path / "calm" / name).read_bytes()
    counts, calm_counts = (
        json.loads(each.read("summary.json")) for each in (stored, open_folder(tmp_path / "calm"))
    )
    for each in (counts, calm_counts):
        assert (each["pictures"], each["errors"]) == (10, 1)


def test_a_finished_run_in_a_bucket_is_skipped(tmp_path, s3):
    parts(tmp_path / "in", 3)
    inputs = bucket_of(s3, tmp_path / "in", "in")
    out = f"{s3.folder}/out"
    assert run(listed(inputs.location), out, "1/1").n_ok == 3
    s3.set()
    assert run(listed(inputs.location), out, "1/1").n_kept == 3
    assert not s3.requests["PUT"]
    inputs.write("part_1.png", part(tmp_path / "new.png", 10).read_bytes())
    again = run(listed(inputs.location), out, "1/1")  # paths of a list: stamps are asked for
    assert (again.n_kept, again.n_dropped, again.n_ok) == (2, 1, 3)


def test_a_storage_that_refuses_is_a_row_for_each_picture(tmp_path, s3):
    parts(tmp_path / "in", 3)
    inputs = bucket_of(s3, tmp_path / "in", "in")
    files = list(list_inputs([inputs.location]))
    s3.set(denied=1)
    told = predict(RedScorer(), files, out_dir=tmp_path / "out")
    assert (told.n_ok, told.n_error) == (0, 3)
    assert "access denied" in rows_of(tmp_path / "out")[0].error
    with pytest.raises(ImageReadError, match="(?i)denied|forbidden"):
        listed(inputs.location)
    s3.set()
    told = predict(RedScorer(), files, out_dir=tmp_path / "out", resume=True)
    assert (told.n_ok, told.n_resumed) == (3, 0)


def test_each_picture_is_one_request(tmp_path, s3):
    parts(tmp_path / "in", 8)
    inputs = bucket_of(s3, tmp_path / "in", "in")
    files = list(list_inputs([inputs.location]))
    s3.set()
    predict(RedScorer(), files, out_dir=tmp_path / "out")
    assert s3.requests == {"GET": 8}
