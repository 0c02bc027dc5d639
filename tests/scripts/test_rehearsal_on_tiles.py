"""What a rehearsal foretells beside what is found: the numbers, and the page that shows them."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.rehearsal_on_tiles import (
    CALIBRATE,
    DRAWN_LIKE,
    HELD,
    LEAST,
    PAGE,
    RATES,
    SIZES,
    STRENGTHS,
    Scored,
    agreement,
    by_kind,
    measured_rows,
    page_text,
    read_csv,
    size_bin,
    split_once,
)


def scored(drawn_score):
    """Good pictures below 0.5, real ones of which half are above, drawn ones as a function says."""
    pool = [f"g{n}" for n in range(HELD + 5)]
    names = [*pool, *(f"h{n}" for n in range(CALIBRATE + 20))]
    found = [Scored("good", name, "", 0, 0, n / 1000) for n, name in enumerate(names)]
    found += [
        Scored("real", f"{kind}{n}", kind, size, 1, 0.1 + 0.8 * (n % 2))
        for kind in DRAWN_LIKE for size in (9.0, 130.0) for n in range(20)
    ]  # fmt: skip
    found += [
        Scored("drawn", name, like, size, strength, drawn_score(like, size, strength))
        for name in pool for likes in DRAWN_LIKE.values() for like in likes
        for size in SIZES for strength in STRENGTHS
    ]  # fmt: skip
    return found


def test_the_nearest_size_is_by_ratio():
    assert [size_bin(size) for size in (3, 11, 12, 22, 23, 90, 91, 500)] == [
        8, 8, 16, 16, 32, 64, 128, 128,
    ]  # fmt: skip


@pytest.mark.parametrize("rate", RATES)
def test_a_split_counts_what_is_above_the_threshold(rate):
    found = scored(lambda like, size, strength: 0.9 * (like == "hole" or strength == 1 > size / 64))
    split = split_once(found, rate, np.random.default_rng(1))
    assert split.foretold["blowhole", 128] == {0.5: 0.5, 1.0: 0.5}  # holes, and no pores
    assert split.foretold["crack", 8] == {0.5: 0.0, 1.0: 1.0}
    assert set(split.real) == {(kind, size) for kind in DRAWN_LIKE for size in (8.0, 128.0)}
    assert all(0.1 < share < 0.9 for share in split.real.values())
    assert 0 <= split.false_alarms < 0.2 and split.undrawn == 0


def test_agreement_and_kinds():
    real = {("a", 8.0): 0.1, ("a", 16.0): 0.3, ("b", 8.0): 0.8}
    assert agreement(real, {key: share / 2 for key, share in real.items()}) == (
        pytest.approx(1), pytest.approx(0.2),
    )  # fmt: skip
    assert agreement(real, dict.fromkeys(real, 0.5))[0] == 0
    shares = {(kind, size): size / 32 for kind in DRAWN_LIKE for size in (8.0, 16.0)}
    counts = {key: 3 if key[1] == 8 else 1 for key in shares}
    assert by_kind(shares, counts) == dict.fromkeys(
        [(kind, 0.0) for kind in DRAWN_LIKE], pytest.approx((3 * 0.25 + 0.5) / 4)
    )


def test_rows_and_page():
    rows = measured_rows("alone", [scored(lambda *_: 0.9)], 0.05)
    groups = [row for row in rows if row["row"] == "kind and size" and row.get("pictures")]
    assert len(groups) == 8 and all(float(row["foretold_1"]) == 1 for row in groups)
    kept = read_csv()
    assert all(int(r["pictures"]) >= LEAST for r in kept if r["pictures"])
    assert {float(r["rate"]) for r in kept} == set(RATES)
    assert page_text() == PAGE.read_text(encoding="utf-8")
