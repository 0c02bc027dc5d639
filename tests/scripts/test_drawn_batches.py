"""draw_batch: what a batch promises, and what it refuses."""

import random

import pytest
import torch

from faprompt.synthetic import defects_of, objects_of
from scripts.caption_grammar import vocabulary_texts
from scripts.drawn_batches import draw_batch, plan_batch

SIZE = 48


@pytest.fixture(scope="module")
def batch():
    return draw_batch(96, size=SIZE, seed=5, kinds="all")


def test_shapes_types_and_range(batch):
    assert batch.images.shape == (96, 3, SIZE, SIZE) and batch.images.dtype == torch.float32
    assert batch.masks.shape == (96, SIZE, SIZE) and batch.masks.dtype == torch.bool
    assert batch.labels.dtype == torch.int64
    assert {len(batch.captions), len(batch.object_kinds), len(batch.defect_kinds)} == {96}
    assert batch.images.isfinite().all()
    assert batch.images.min() >= 0 and batch.images.max() <= 1


def test_mask_label_and_defect_name_agree(batch):
    marked = batch.masks.flatten(1).any(1)
    assert torch.equal(marked, batch.labels == 1)
    assert [bool(name) for name in batch.defect_kinds] == marked.tolist()
    assert 20 < marked.sum() < 76  # about half


def test_no_mask_covers_most_of_its_picture(batch):
    assert batch.masks.float().mean((1, 2)).max() < 0.6


def test_every_picture_shows_something(batch):
    assert (batch.images.flatten(1).std(1) > 0.004).all()


def test_grey_and_coloured_pictures_both_occur(batch):
    spread = (batch.images.amax(1) - batch.images.amin(1)).amax((1, 2))
    assert (spread == 0).float().mean() > 0.3 and (spread > 0.05).any()


def test_same_seed_same_batch_other_seed_other_batch():
    first, again = (draw_batch(6, size=SIZE, seed=9, kinds="all") for _ in range(2))
    other = draw_batch(6, size=SIZE, seed=10, kinds="all")
    assert torch.equal(first.images, again.images) and torch.equal(first.masks, again.masks)
    assert first.captions == again.captions and first.object_kinds == again.object_kinds
    assert not torch.equal(first.images, other.images)


def test_global_dice_are_neither_used_nor_moved():
    torch.manual_seed(1)
    random.seed(1)
    before, python_before = torch.get_rng_state(), random.getstate()
    first = draw_batch(3, size=SIZE, seed=2)
    assert torch.equal(torch.get_rng_state(), before) and random.getstate() == python_before
    torch.manual_seed(77)
    assert torch.equal(draw_batch(3, size=SIZE, seed=2).images, first.images)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_anomaly_share_at_its_ends(share):
    labels = draw_batch(8, size=SIZE, seed=3, anomaly_share=share).labels
    assert labels.tolist() == [int(share)] * 8


@pytest.mark.parametrize("kinds", ["train", "aux", "test"])
def test_a_set_shows_its_own_kinds_only(kinds):
    batch = draw_batch(24, size=SIZE, seed=4, kinds=kinds)
    assert set(batch.object_kinds) <= {kind.name for kind in objects_of(kinds)}
    assert set(batch.defect_kinds) <= {kind.name for kind in defects_of(kinds)} | {""}


def test_views_show_the_same_thing():
    plans = plan_batch(7, random.Random(0), kinds="all", anomaly_share=0.5, views=3)
    assert [plan.thing for plan in plans] == [0, 0, 0, 1, 1, 1, 2]
    for plan in plans:
        twin = plans[plan.thing * 3]
        assert (plan.kind, plan.grey) == (twin.kind, twin.grey)
    assert draw_batch(5, size=SIZE, seed=1, views=2).images.shape[0] == 5


def test_views_of_normal_things_are_alike_up_to_side_and_light():
    def likeness(images, first, second):
        grey = images.mean(1)
        sides = [grey[second], grey[second].flip(-1), grey[second].flip(-2)]
        sides.append(grey[second].flip(-1).flip(-2))
        pairs = [torch.stack((grey[first].flatten(), side.flatten())) for side in sides]
        return max(torch.corrcoef(pair)[0, 1].item() for pair in pairs)

    images = draw_batch(24, size=SIZE, seed=6, anomaly_share=0.0, views=2).images
    twins = [likeness(images, row, row + 1) for row in range(0, 24, 2)]
    strangers = [likeness(images, row, row + 3) for row in range(0, 20, 2)]
    assert sum(twins) / len(twins) > sum(strangers) / len(strangers) + 0.3


def test_captions_come_from_the_vocabulary(batch):
    known = {word for text in vocabulary_texts() for word in text.split()}
    assert {word for caption in batch.captions for word in caption.split()} <= known


def test_generic_word_stands_in_two_captions_of_five():
    captions = draw_batch(150, size=32, seed=8).captions
    assert sum("object" in caption.strip(".").split() for caption in captions) >= 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count should be at least 1, got 0"),
        ({"views": 0}, "views should be at least 1, got 0"),
        ({"size": 31}, "size should be at least 32 pixels, got 31"),
        ({"anomaly_share": 1.5}, "anomaly_share should be in 0..1, got 1.5"),
        ({"anomaly_share": -0.1}, "anomaly_share should be in 0..1"),
        ({"kinds": "both"}, "kinds should be one of train, aux, test, all, got 'both'"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        draw_batch(**{"count": 2, "seed": 0, "size": SIZE, **options})
