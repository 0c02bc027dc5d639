"""`BulkScorer`: batches of paths in, columns of rows out, and no picture raises."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from faprompt.bulk import BulkScorer
from faprompt.errors import ConfigError, FapromptError
from faprompt.prediction import PredictOptions, predict_files, read_rows
from tests.bulk.poisoned import OUT_OF_MEMORY, RAISES, PoisonedBulkScorer, lot
from tests.helpers import small


@pytest.fixture
def paths(tmp_path):
    return lot(tmp_path / "in", 5, {1: RAISES, 3: OUT_OF_MEMORY})


def test_a_poisoned_picture_is_an_error_row_and_affects_no_other(paths, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    wanted = [*paths, str(tmp_path / "broken.png"), str(tmp_path / "missing.png")]
    found = PoisonedBulkScorer("red-errors", threshold=0.5)({"path": np.array(wanted)})
    assert found["path"].tolist() == wanted
    assert found["status"].tolist() == ["ok", "error", "ok", "error", "ok", "error", "error"]
    assert "scoring failed (IndexError: list index out of range)" in found["error"][1]
    assert "MemoryError" in found["error"][3]
    assert "no such file" in found["error"][6]
    assert found["score"].dtype == np.float64 and np.isnan(found["score"][[1, 3, 5, 6]]).all()
    assert found["score"][[0, 2, 4]] == pytest.approx([20 / 255, 20 / 255, 20 / 255])
    assert found["width"].tolist() == [20, 0, 20, 0, 20, 0, 0]


def test_rows_are_those_of_predict_files(tmp_path):
    for number in range(3):
        small.picture_file(tmp_path / "in" / f"{number}.png", seed=number)
    paths = [str(tmp_path / "in" / f"{number}.png") for number in range(3)]
    scorer = BulkScorer(method="clip", backbone="test-tiny", device="cpu", threshold=0.5,
                        threads=None)  # fmt: skip
    rows = list(scorer.rows(paths))
    out = tmp_path / "plain"
    predict_files(scorer.detector, paths, out, PredictOptions(threshold=0.5, overlays=False,
                                                             report=False))  # fmt: skip
    plain = list(read_rows(out / "results.jsonl"))
    assert [row.path for row in rows] == paths
    for ours, theirs in zip(rows, plain, strict=True):
        wanted = {**theirs.to_dict(), "latency_ms": ours.latency_ms}
        assert ours.to_dict() == wanted


def test_columns_have_one_type_in_every_batch(paths):
    pa = pytest.importorskip("pyarrow", reason="needs the extra ray")
    scorer = PoisonedBulkScorer("red-types", threshold=0.5)
    schemas = [
        pa.table(scorer({"path": batch})).schema for batch in (paths[:1], paths[1:2], paths[3:])
    ]
    assert schemas[0] == schemas[1] == schemas[2]
    found = scorer(pa.table({"path": paths}))
    assert [json.loads(text) for text in found["notes"]] == [[]] * 5


def test_a_data_frame_is_a_batch(paths):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(PoisonedBulkScorer("red-frame")(pandas.DataFrame({"path": paths})))
    assert frame["path"].tolist() == paths and (frame["status"] == "ok").sum() == 3


def test_what_is_no_path_is_an_error_row(paths):
    found = PoisonedBulkScorer("red-none")({"path": [None, paths[0], 3]})
    assert found["status"].tolist() == ["error", "ok", "error"]
    assert "a path is text, got None" in found["error"][0]


def test_a_class_derived_from_it_may_set_attributes_of_its_own(paths):
    """As Ray Data does with a class given to `map_batches`."""

    class Wrapped(PoisonedBulkScorer):
        def __init__(self, *values):
            self.own = 1
            super().__init__(*values)

    scorer = Wrapped("red-derived")
    assert scorer.own == 1 and scorer({"path": paths[:1]})["status"].tolist() == ["ok"]


def test_a_batch_without_paths_is_refused():
    with pytest.raises(ConfigError, match="column 'path', got \\['file'\\]"):
        PoisonedBulkScorer("red")({"file": ["a.png"]})


def test_it_is_pickled_without_its_detector(paths):
    scorer = PoisonedBulkScorer("red-pickled", threshold=0.5)
    before = scorer({"path": paths})["score"]
    again = pickle.loads(pickle.dumps(scorer))
    assert np.array_equal(again({"path": paths})["score"], before, equal_nan=True)


@pytest.mark.parametrize(
    ("values", "told"),
    [({"model": "tiny", "method": "clip"}, "both a model and a method"),
     ({"model": "tiny", "options": {"prompts": 2}}, "need a method"),
     ({"maps": "npy"}, "give out"),
     ({"bit_depth": 12, "window": (40, 400)}, "exclude each other")],
)  # fmt: skip
def test_contradictions_are_refused(values, told):
    with pytest.raises(ConfigError, match=told):
        BulkScorer(**values)


def test_a_missing_model_stops_the_first_call(paths):
    with pytest.raises(FapromptError, match="No model 'nowhere'"):
        BulkScorer("nowhere")({"path": paths})
