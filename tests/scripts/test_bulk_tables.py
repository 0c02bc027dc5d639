"""The simulation of large runs counts requests as a server does."""

from __future__ import annotations

import pytest

from faprompt.bulk import merge_shards, plan_shards
from faprompt.prediction.input_paths import list_inputs
from faprompt.storage import open_folder
from scripts import bulk_tables
from tests.bulk.runs import run
from tests.helpers.object_storage import BUCKET, object_storage
from tests.prediction.fakes import part


@pytest.mark.parametrize("shards", [2, 4])
def test_requests_are_those_that_a_server_counts(tmp_path, shards):
    with object_storage() as server:
        pictures, out = open_folder(f"s3://{BUCKET}/in"), open_folder(f"s3://{BUCKET}/out")
        for number in range(40):
            picture = part(tmp_path / "part.png", number)
            pictures.write(f"{number:02}.png", picture.read_bytes())
        server.set()
        plan_shards(list_inputs([pictures.location]), out, shards)
        done = [
            run([], out.location, f"{index}/{shards}", part_rows=10, overlays=False, report=False)
            for index in range(1, shards + 1)
        ]
        merge_shards(out.location, report=False)
        counted = server.requests["GET"], server.requests["PUT"]
    assert sum(each.n_ok for each in done) == 40
    parts = sum(-(-each.n_ok // 10) for each in done)
    assert counted == bulk_tables.requests(40, shards, parts)


def test_a_run_grows_with_its_pictures():
    costs = bulk_tables.Costs(12.5, 10.0, 50.0, 30.0, 14.0)
    run = bulk_tables.simulate(10_000_000, costs)
    assert run["shards"] == 200 and run["written"] == 200 * 67 + 400 + 4  # a part has 750 rows
    assert run["read"] == 10_000 + 10_000_000 + 200 * 67 + 1_400 + 4
    assert run["core_hours"] == pytest.approx(10_000_000 / 45_000)
    assert run["merge_s"] == pytest.approx(500)
    assert bulk_tables.simulate(20_000_000, costs)["listing_s"] == 2 * run["listing_s"] == 2000
