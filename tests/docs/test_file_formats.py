"""The JSON Schemas describe what the commands write, field by field, and so do the pages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from scripts import make_reference
from tests.docs.page_run import call
from tests.helpers import folders, service, small
from tests.helpers.systems import needs_posix
from tests.watching.receiver import Receiver

jsonschema = pytest.importorskip("jsonschema", reason="the schemas are checked by jsonschema")
for package, extra in (("fastapi", "serve"), ("onnxruntime", "onnx"), ("pyarrow", "parquet")):
    pytest.importorskip(package, reason=f"needs the extra {extra}")

FOLDER = files("faprompt") / "schemas"
SCHEMAS = {
    entry.name.removesuffix(".json"): json.loads(entry.read_text("utf-8"))
    for entry in FOLDER.iterdir()
    if entry.name.endswith(".json")
}
SMALL = "--backbone test-tiny --device cpu --set image_size=56 --set epochs=1 --set cache=off"
OPEN = {  # objects whose fields are not listed: each method, library or training has its own
    "config.options", "config.training", "config.export.runtime.hints", "config.export.difference",
    "run.options.options",
}  # fmt: skip


def faprompt(arguments: str, *, wanted: int = 0) -> str:
    code, text = call(f"faprompt {arguments}")
    assert code == wanted, text
    return text


def lines(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def read(path: str) -> dict:
    return json.loads(Path(path).read_text("utf-8"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with pictures, one of them damaged, and a trained, calibrated, exported model."""
    folder = tmp_path_factory.mktemp("formats")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name in ("mug", "nut"):
            folders.mvtec_class(
                folder / "set" / name,
                normal={"good": ["8.png", "9.png", "10.png"]},
                defects={"chip": ["0.png", "1.png"], "dent": ["2.png"]},
            )
        for number in range(19):
            small.picture_file(folder / f"good/{number}.png", seed=number)
        for number in range(4):
            small.picture_file(folder / f"in/{number}.png", seed=100 + number)
        (folder / "in/damaged.png").write_bytes(b"no picture")
        faprompt(f"train set {SMALL} --out model")
        (folder / "set/mug/test/good/9.png").write_bytes(b"no picture")
        faprompt("calibrate good --model model --target-fpr 0.05 --out line")
        faprompt("export line --out exported")
        yield folder


@pytest.fixture(scope="module")
def written(home):
    """What commands and the service wrote: schema -> values."""
    predict = "predict in --device cpu --model"
    faprompt(f"{predict} line --out plain --maps npy", wanted=3)
    faprompt(f"{predict} model --out judged --threshold 0.5 --bit-depth 12", wanted=3)
    faprompt(f"{predict} tiny --out shown --window 1000,2000 --no-overlays", wanted=3)
    faprompt(f"{predict} exported --out exported-rows", wanted=3)
    part = f"{predict} model --out shards --window auto --tiles 2 --shard"
    assert sorted(call(f"faprompt {part} {shard}")[0] for shard in ("1/2", "2/2")) == [0, 3]
    faprompt("merge shards", wanted=3)
    faprompt("predict in/0.png --model line --out whole --devices cpu")
    runs = ("plain", "judged", "shown", "exported-rows", "shards", "whole")
    measure = "evaluate set --device cpu --replicates 40 --model"
    faprompt(f"{measure} line --out measured --pro-200", wanted=3)
    faprompt(f"{measure} model --out defects --by-defect", wanted=3)
    answers = served()
    return {
        "result_row": [row for run in runs for row in lines(f"{run}/results.jsonl")]
        + answers["result_row"],
        "run": [read(f"{run}/run.json") for run in runs],
        "summary": [read("shards/summary.json"), read("whole/summary.json")],
        "metrics": [read("measured/metrics.json"), read("defects/metrics.json")],
        "config": [read(f"{name}/config.json") for name in ("model", "line", "exported")],
        "service_models": answers["service_models"],
        "problem": answers["problem"],
    }


def served() -> dict[str, list[dict]]:
    """Return answers of a service with a calibrated model, one with products, and a plain one."""
    from faprompt import load_detector

    models = {
        "line": load_detector("line"),
        "products": service.calibrated(left=120, right=120),
        "plain": load_detector("model"),
    }
    picture = service.png()
    with service.running(named=models) as client:
        single = [
            client.post(f"/v1/predict?model={name}", picture).json for name in ("line", "plain")
        ]
        some = client.post_form("/v1/predict/batch", [("a.png", picture), ("b.png", b"none")])
        bad = [
            client.post("/v1/predict", b"no picture"),
            client.post("/v1/models"),
            client.post_json("/v1/predict", {"image": 1}),
            client.get("/v1/nothing"),
        ]
        return {
            "result_row": single + some.json["results"],
            "service_models": [client.get("/v1/models").json],
            "problem": [answer.json for answer in bad],
        }


@pytest.fixture(scope="module")
def delivered(home):
    """The body of a webhook, as `faprompt watch` sent it."""
    (home / "secret").write_text("a secret of some length\n")
    command = ["watch", "in", "--model", "exported", "--out", "watched", "--interval", "0.1"]
    with Receiver().serving() as receiver:
        running = subprocess.Popen(
            [sys.executable, "-m", "faprompt", *command, "--post", receiver.url,
             "--secret-file", "secret"],
            cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while len(receiver.got) < 4 and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=30)
    assert running.returncode == 0 and len(receiver.got) >= 4, told
    return [json.loads(body) for _, body in receiver.got]


def validator(name: str):
    import referencing

    known = [
        (schema["$id"], referencing.Resource.from_contents(schema)) for schema in SCHEMAS.values()
    ]
    return jsonschema.Draft202012Validator(
        SCHEMAS[name], registry=referencing.Registry().with_resources(known)
    )


def assert_valid(name: str, values: list[dict]) -> None:
    """Each value fits its schema, and none with one more field, or one less, would."""
    check = validator(name)
    assert values
    for value in values:
        assert not [f"{e.json_path}: {e.message}" for e in check.iter_errors(value)]
        assert not check.is_valid({**value, "one_more": 1})
        for field in SCHEMAS[name]["required"]:
            assert not check.is_valid({k: v for k, v in value.items() if k != field})


def objects(schema: dict, place: str) -> Iterator[tuple[str, dict]]:
    """Yield the place and schema of each object within a schema."""
    if "object" in schema.get("type", ()):
        yield place, schema
    for name, field in schema.get("properties", {}).items():
        yield from objects(field, f"{place}.{name}")
    for more in (schema.get("additionalProperties"), schema.get("items")):
        if isinstance(more, dict):
            yield from objects(more, place)


def paths_in(value: object, schema: dict, place: str = "") -> Iterator[str]:
    """Yield the path of each field in a value, as `make_reference.fields` names it."""
    if isinstance(value, list):
        for each in value:
            yield from paths_in(each, schema.get("items", {}), f"{place}[]")
    elif isinstance(value, dict):
        known, more = schema.get("properties", {}), schema.get("additionalProperties")
        for name, each in value.items():
            if name in known:
                path = f"{place}.{name}" if place else name
                yield path
                yield from paths_in(each, known[name], path)
            elif isinstance(more, dict):
                yield from paths_in(each, more, f"{place}.NAME")


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_schema_lists_every_field(name):
    """So a field that is written and not described fails the tests below."""
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    for place, schema in objects(SCHEMAS[name], name):
        more = schema.get("additionalProperties")
        assert more is False or isinstance(more, dict) or place in OPEN, place
        assert set(schema.get("required", ())) <= set(schema.get("properties", ()))


@pytest.mark.parametrize("name", sorted(set(SCHEMAS) - {"webhook"}))
def test_what_is_written_fits_its_schema(name, written):
    assert_valid(name, written[name])
    found = {path for value in written[name] for path in paths_in(value, SCHEMAS[name])}
    described = {path for path, _, _ in make_reference.fields(SCHEMAS[name])}
    assert described <= found, "described, and written by none of the commands above"


@needs_posix
def test_the_body_of_a_webhook_fits_its_schema(delivered, home):
    assert_valid("webhook", delivered)
    assert_valid("result_row", lines("watched/results.jsonl"))
    assert_valid("run", [read("watched/run.json")])
    rows = {row["path"]: row for row in lines("watched/results.jsonl")}
    assert {body["result"]["path"]: body["result"] for body in delivered} == rows


def test_rows_and_runs_come_in_every_kind(written):
    """The tests above would pass on a single kind of row or run."""
    rows, runs = written["result_row"], written["run"]
    assert {row["status"] for row in rows} == {"ok", "error"}
    assert {None, "OK", "NG"} <= {row["verdict"] for row in rows}
    assert any(row["map"] for row in rows) and any(row["regions"] for row in rows)
    assert {run.get("shards") for run in runs} == {None, 0, 2}
    assert len(written["problem"]) >= 3
    first, second, third = written["service_models"][0]["models"]
    assert first["calibrated"] and second["products"] == ["left", "right"]
    assert not third["calibrated"] and third["target_fpr"] is None


def test_the_page_names_the_fields_of_shard_files(written, home):
    faprompt("predict in --out planned --shard plan/2")
    for place in ("shards/shards/00001-of-00002/done.json", "planned/plan.json"):
        line = next(
            line
            for line in make_reference.SHARD_FILES.splitlines()
            if f"`{Path(place).name}`" in line
        )
        assert set(read(place)) <= set(re.findall(r"`(\w+)`", line))
    (part,) = (home / "shards/shards/00001-of-00002/parts").iterdir()
    assert re.fullmatch(r"part-\d{5}-[0-9a-f]{16}\.parquet", part.name)
    assert (home / "planned/shards/00002-of-00002/manifest.jsonl.gz").is_file()


def test_the_pages_of_the_reference_are_as_written():
    """Run `python scripts/make_reference.py` after a change of an option, a schema or a dataset."""
    assert make_reference.stale_pages() == []
