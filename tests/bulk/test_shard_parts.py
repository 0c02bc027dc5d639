"""Parts: what goes in comes out, and damage is noticed."""

from __future__ import annotations

import pytest

from faprompt.bulk.shard_parts import PartRow, decode_part, default_kind, encode_part
from faprompt.prediction.result_rows import ResultRow
from faprompt.records import Region

pytest.importorskip("pyarrow", reason="Parquet is written by pyarrow")

ROWS = [
    ResultRow(
        "s3://lot/ä 1.png", "small", score=0.1 + 0.2, p_value=1 / 3, verdict="NG", threshold=0.3,
        review_threshold=0.25, product="lid", width=20, height=12, overlay="overlays/a.jpg",
        regions=(Region((1, 2, 7, 9), 31, 0.875, 2 / 3),), notes=("one", "two"), latency_ms=1.125,
    ),
    ResultRow("b.png", "small", status="error", error="b.png: no picture"),
    ResultRow("c.png", "small", score=0.0, width=1, height=2**31 - 1),
]  # fmt: skip
STAMPS = {row.path: f"stamp of {row.path}" for row in ROWS}


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_both_kinds_give_back_the_same_rows(kind):
    content, ending = encode_part(ROWS, STAMPS, kind)
    assert ending == kind
    found = decode_part(f"part.{ending}", content)
    assert found == [PartRow(row, STAMPS[row.path]) for row in ROWS]
    assert default_kind() == "parquet"


def test_a_name_that_is_not_unicode_makes_json_lines():
    row = ResultRow("bad\udcff.png", "small", status="error", error="bad\udcff.png: empty")
    content, ending = encode_part([row], {row.path: ""}, "parquet")
    assert ending == "jsonl"
    assert decode_part("part.jsonl", content) == [PartRow(row, "")]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_damage_is_noticed(kind):
    content, _ = encode_part(ROWS, STAMPS, kind)
    damaged = [content[:-1], content[: len(content) // 2], b"PAR1", content[1:]]
    if kind == "parquet":  # a page has a checksum
        at = content.index(b"s3://lot") + 2
        damaged.append(content[:at] + b"X" + content[at + 1 :])
    for each in damaged:
        with pytest.raises(ValueError, match="damaged"):
            decode_part(f"part.{kind}", each)
    with pytest.raises(ValueError, match="damaged"):
        decode_part("part.jsonl", b'{"path": "a.png"}\n')
