"""Figures from their CSV: nothing lost, nothing added, refused where it is none."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from faprompt.errors import ConfigError
from faprompt.reproduce.study_figure import (
    COLOURS,
    CSV_NAME,
    draw,
    read_figure,
    redraw,
    to_csv,
    write_figure,
)
from tests.reproduce.study_toys import dot

LINES = (
    dot("K = 1", 0.7123456789012345, x=1.0, spread=0.01), dot("K = 2", 0.75, x=2.0),
    dot("K = 2", 0.8, x=2.0, source="published", note='the "mean", of printed'),
    dot("K = 1", 0.6, x=1.0, series="drawer"), dot("K = 1", 0.5, x=1.0, metric="PRO"),
)  # fmt: skip
DOTS = tuple(dot(f"method {n}", 0.5 + n / 20, x=n, form="seeds", source=s)
             for n in range(3) for s in ("seed", "ours", "published"))  # fmt: skip
COSTS = tuple(dot(f"m{n}", value, x=n, form="costs", metric="parameters", series="cost")
              for n, value in enumerate((0.0, 9216.0, 4.1e6)))  # fmt: skip


@pytest.mark.parametrize("dots", [LINES, DOTS, COSTS], ids=["lines", "seeds", "costs"])
def test_redrawn_from_the_csv_it_is_the_same_picture(tmp_path, dots):
    paths = write_figure(dots, tmp_path)
    assert [p.name for p in paths] == ["figure.csv", "figure.svg", "figure.png"]
    before = [p.read_bytes() for p in paths]
    assert read_figure(tmp_path / CSV_NAME) == dots, "every digit comes back"
    for path in paths[1:]:
        path.unlink()
    assert redraw(tmp_path) == paths[1:]
    assert [p.read_bytes() for p in paths] == before


def drawn_lines(dots):
    """Collect what matplotlib draws: (x, y) of every curve, its colour and filling."""
    import matplotlib.axes

    seen = []
    plain = matplotlib.axes.Axes.errorbar

    def spy(self, x, y, **options):
        look = options["color"], options["markerfacecolor"], options["linestyle"]
        seen.append((list(np.atleast_1d(x)), list(np.atleast_1d(y)), *look))
        return plain(self, x, y, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.axes.Axes, "errorbar", spy)
        draw(dots, "svg")
    return seen


def test_curves_hold_the_values_in_percent_ours_filled_theirs_open():
    seen = drawn_lines(LINES)
    blue, orange = COLOURS[:2]
    assert ([2.0], [80.0], blue, "none", "--") in seen
    (ours,) = [line for line in seen if line[0] == [1.0, 2.0]]
    assert ours[1] == pytest.approx([71.23456789012345, 75.0])
    assert ours[2:] == (blue, blue, "-")
    assert ([1.0], [60.0], orange, orange, "-") in seen and len(seen) == 4


def test_dots_hold_the_values_a_line_per_setting():
    seen = drawn_lines(COSTS)
    assert [(x[0], y[0]) for x, y, *_ in seen] == [(0.0, 0.0), (9216.0, 1.0), (4.1e6, 2.0)]


def test_a_setting_has_the_same_line_in_every_panel():
    """Also where panels before it lack the setting: their labels are those of the first."""
    late = dot("m2", 7.0, x=2.0, form="costs", metric="training", series="cost")
    assert [(x[0], y[0]) for x, y, *_ in drawn_lines((*COSTS, late))][-1] == (7.0, 2.0)


@pytest.mark.parametrize("dots", [LINES, DOTS, COSTS], ids=["lines", "seeds", "costs"])
def test_a_margin_stays_white_so_nothing_is_cut(dots):
    pixels = np.asarray(Image.open(io.BytesIO(draw(dots, "png"))).convert("L"))
    frame = np.concatenate([pixels[:2].ravel(), pixels[-2:].ravel(), pixels[:, :2].ravel(),
                            pixels[:, -2:].ravel()])  # fmt: skip
    assert (frame == 255).all() and (pixels < 128).sum() > 500


def test_without_values_there_is_a_csv_and_no_picture(tmp_path):
    assert [p.name for p in write_figure((), tmp_path)] == ["figure.csv"]
    with pytest.raises(ConfigError, match="has no values to draw"):
        redraw(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["a,b\n1,2\n", to_csv(LINES).replace("published", "dreamt"), to_csv(LINES).replace("0.8", "x")],
)
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / CSV_NAME).write_text(text)
    with pytest.raises(ConfigError, match="is no figure.csv of a study"):
        redraw(tmp_path)


def test_no_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        redraw(tmp_path)


def test_bars_are_the_interval_over_pictures_where_seeds_give_none(tmp_path):
    import matplotlib.axes

    seen = []
    plain = matplotlib.axes.Axes.errorbar

    def spy(self, x, y, xerr=None, **options):
        seen.append((np.atleast_1d(x).tolist(), None if xerr is None else np.ravel(xerr).tolist()))
        return plain(self, x, y, xerr=xerr, **options)

    dots = (
        dot("a", 0.8, form="dots", low=0.75, high=0.9, replicates=np.zeros(3)),
        dot("b", 0.7, form="dots", low=0.1, high=0.9, spread=0.02), dot("c", 0.6, form="dots"),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.axes.Axes, "errorbar", spy)
        write_figure(dots, tmp_path)
    assert seen[0] == ([80.0], pytest.approx([5.0, 10.0]))
    assert seen[1] == ([70.0], pytest.approx([2.0, 2.0])) and seen[2] == ([60.0], None)
    assert read_figure(tmp_path / CSV_NAME) == dots
    assert "replicates" not in (tmp_path / CSV_NAME).read_text()


@pytest.mark.parametrize("form", ["lines", "dots"])
def test_tenths_of_a_point_do_not_fill_an_axis(form):
    import matplotlib.figure

    kept = []
    plain = matplotlib.figure.Figure.savefig

    def spy(self, *args, **options):
        kept.append(self.axes[0].get_ylim() if form == "lines" else self.axes[0].get_xlim())
        return plain(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.figure.Figure, "savefig", spy)
        draw((dot("a", 0.941, form=form, x=1.0), dot("b", 0.943, form=form, x=2.0)), "svg")
        draw((dot("a", 0.7, form=form, x=1.0), dot("b", 0.9, form=form, x=2.0)), "svg")
    (low, high), (lowest, highest) = kept
    assert (low, high) == pytest.approx((93.2, 95.2)) and 20 < highest - lowest < 26
