"""An interrupted evaluation goes on, and ends where an uninterrupted one does."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from faprompt.evaluation import PROGRESS_NAME, EvaluationConfig, evaluate, write_evaluation
from faprompt.records import DrawnMask
from tests.evaluation import toys
from tests.helpers.log import logged_notes

CONFIG = EvaluationConfig(batch_size=4, pro_200=True, replicates=40)


@pytest.fixture(scope="module")
def detector():
    return toys.detector()


@pytest.fixture
def own(tmp_path):
    dataset = toys.dataset(tmp_path / "toy")
    dataset.samples[2].image_path.write_bytes(b"no picture")
    return dataset


@pytest.fixture
def state(tmp_path):
    return tmp_path / "out" / PROGRESS_NAME


class Stop(Exception):
    pass


def interrupted(detector, dataset, state, *, after, config=CONFIG):
    """Run until so many pictures are done, and saved."""

    def stop(stage, done, total):
        if done >= after:
            raise Stop

    with pytest.raises(Stop):
        evaluate(detector, dataset, config, progress=stop, resume=state, save_every_s=0)


def resumed(detector, dataset, state, *, config=CONFIG):
    """The evaluation, the notes, and how many pictures it started with."""
    calls = []
    with logged_notes() as notes:
        found = evaluate(
            detector, dataset, config, resume=state, progress=lambda *call: calls.append(call[1:])
        )
    return found, notes, calls


def assert_equal(found, wanted):
    """To the bit, curves and replicates included."""
    assert found.classes == wanted.classes and list(found.classes) == list(wanted.classes)
    assert found.images == wanted.images and found.mean_intervals == wanted.mean_intervals
    for name, curves in wanted.curves.items():
        for kind, curve in curves.items():
            for part in ("x", "y", "thresholds"):
                other = getattr(found.curves[name][kind], part)
                assert np.array_equal(other, getattr(curve, part))
        for metric, drawn in wanted.replicates[name].items():
            assert np.array_equal(found.replicates[name][metric], drawn, equal_nan=True)


@pytest.mark.parametrize("by_defect", [False, True])
@pytest.mark.parametrize("after", [4, 13])
def test_the_result_is_that_of_one_run(detector, own, state, after, by_defect):
    """After 13 pictures the first class is closed and the second one open."""
    config = replace(CONFIG, by_defect=by_defect)
    interrupted(detector, own, state, after=after, config=config)
    found, notes, calls = resumed(detector, own, state, config=config)
    assert notes == [f"going on after {after} of 18 pictures"]
    assert calls[0] == (after + 4, 18) and calls[-1] == (18, 18)
    assert_equal(found, evaluate(detector, own, config))
    assert [image.sample for image in found.unreadable] == [own.samples[2]]


@pytest.mark.parametrize("by_defect", [False, True])
@pytest.mark.parametrize("after", [2, 5, 7, 9, 14, 18])
def test_chunks_are_continued_and_added_as_in_one_run(
    detector, own, state, after, by_defect, monkeypatch
):
    """Classes of nine in chunks of five and four: it stops inside, after and between chunks."""
    monkeypatch.setattr("faprompt.evaluation.metric_groups.CHUNK_PICTURES", 5)
    config = replace(CONFIG, batch_size=2, by_defect=by_defect)
    interrupted(detector, own, state, after=after, config=config)
    found, notes, calls = resumed(detector, own, state, config=config)
    assert notes == [f"going on after {after} of 18 pictures"]
    assert_equal(found, evaluate(detector, own, config))


def test_a_run_interrupted_twice_and_one_that_was_done(detector, own, state):
    interrupted(detector, own, state, after=4)
    interrupted(detector, own, state, after=8)
    interrupted(detector, own, state, after=18)
    found, notes, calls = resumed(detector, own, state)
    assert notes == ["going on after 18 of 18 pictures"] and calls == []
    assert_equal(found, evaluate(detector, own, CONFIG))


def other_pixels(sample):
    content = sample.image_path.read_bytes()
    sample.image_path.write_bytes(content + b" ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d, s, c: (d, s, replace(c, replicates=50)), "options"),
        (lambda d, s, c: (d, s, replace(c, resolution="picture")), "options"),
        (lambda d, s, c: (d, replace(s, samples=s.samples[:-1]), c), "pictures"),
        (lambda d, s, c: (other_pixels(s.samples[0]), (d, s, c))[1], "pictures"),
        (lambda d, s, c: (toys.detector(sigma_px=2.0), s, c), "model"),
    ],
)
def test_another_run_starts_anew_and_says_so(detector, own, state, change, told):
    interrupted(detector, own, state, after=8)
    others = change(detector, own, CONFIG)
    found, notes, _ = resumed(*others[:2], state, config=others[2])
    assert len(notes) == 1 and f"is of another run ({told})" in notes[0]
    assert_equal(found, evaluate(*others))


def redraw(path):
    """Other pixels in a file of the same size and the same times."""
    before = path.stat()
    pixels = np.array(Image.open(path))
    pixels[:5, :5] = 255 - pixels[:5, :5]
    Image.fromarray(pixels).save(path, format="BMP")
    content = path.read_bytes()
    assert len(content) == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.fixture
def uncompressed(own):
    """The toy set with BMP content, whose size does not depend on its pixels."""
    for item in own.samples[:2] + own.samples[3:]:
        for path in (item.image_path, *item.mask_paths):
            Image.open(path).save(path, format="BMP")
    return own


@pytest.mark.parametrize(("number", "what"), [(0, "picture"), (5, "picture"), (5, "mask")])
def test_a_file_replaced_with_equal_size_and_time_starts_anew(
    detector, uncompressed, state, number, what
):
    """Sample 0 is normal, sample 5 is a dent with a mask."""
    chosen = uncompressed.samples[number]
    interrupted(detector, uncompressed, state, after=8)
    redraw(chosen.image_path if what == "picture" else chosen.mask_paths[0])
    found, notes, _ = resumed(detector, uncompressed, state)
    assert len(notes) == 1 and "is of another run (pictures)" in notes[0]
    assert_equal(found, evaluate(detector, uncompressed, CONFIG))


def test_a_picture_that_was_not_measured_yet_may_change(detector, uncompressed, state):
    interrupted(detector, uncompressed, state, after=8)
    redraw(uncompressed.samples[12].image_path)
    found, notes, _ = resumed(detector, uncompressed, state)
    assert notes == ["going on after 8 of 18 pictures"]
    assert_equal(found, evaluate(detector, uncompressed, CONFIG))


def test_a_new_time_alone_changes_nothing(detector, own, state):
    interrupted(detector, own, state, after=8)
    for item in own.samples:
        os.utime(item.image_path, (1, 1))
    _, notes, _ = resumed(detector, own, state)
    assert notes == ["going on after 8 of 18 pictures"]


def test_an_unreadable_picture_that_was_mended_starts_anew(detector, own, state):
    interrupted(detector, own, state, after=8)
    Image.open(own.samples[1].image_path).save(own.samples[2].image_path)
    found, notes, _ = resumed(detector, own, state)
    assert "is of another run (pictures)" in notes[0] and found.unreadable == ()


def test_outlines_decide_and_not_the_list_they_are_kept_in(detector, own, state):
    """A list of annotations holds the outlines of many pictures."""
    listed = own.root / "annotations.json"
    listed.write_text("one")

    def outlined(width):
        drawn = DrawnMask((47, 90), polygons=((10, 10, width, 10, width, 30, 10, 30),))
        moved = replace(own.samples[6], mask_paths=(listed,), drawn_mask=drawn)
        return replace(own, samples=(*own.samples[:6], moved, *own.samples[7:]))

    interrupted(detector, outlined(30), state, after=8)
    listed.write_text("two")
    _, notes, _ = resumed(detector, outlined(30), state)
    assert notes == ["going on after 8 of 18 pictures"]
    _, notes, _ = resumed(detector, outlined(31), state)
    assert "is of another run (pictures)" in notes[0]


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-9], lambda b: b"x" * 64])
def test_a_damaged_file_starts_anew_and_says_so(detector, own, state, damage):
    interrupted(detector, own, state, after=4)
    state.write_bytes(damage(state.read_bytes()))
    _, notes, calls = resumed(detector, own, state)
    assert "is damaged" in notes[0] and calls[0] == (4, 18)


def test_nothing_is_saved_before_its_time_or_without_a_file(detector, own, state):
    evaluate(detector, own, CONFIG, resume=state)
    assert not state.parent.exists()


def test_nothing_is_left_beside_the_file_and_writing_removes_it(detector, own, state):
    interrupted(detector, own, state, after=8)
    assert [path.name for path in state.parent.iterdir()] == [PROGRESS_NAME]
    with safe_open(str(state), framework="np") as file:
        assert len(file.get_tensor("scores")) == 8
    found, _, _ = resumed(detector, own, state)
    write_evaluation(replace(found, curves={}), state.parent)
    assert not state.exists() and (state.parent / "metrics.json").is_file()
