"""Memory of good pictures: which are chosen, how far others are from them, and the file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save

from faprompt.errors import ConfigError, ModelError
from faprompt.references import (
    MOST_TOKENS,
    REFERENCES,
    ReferenceBank,
    References,
    farthest_first,
    highest_mean,
    read_references,
    save_references,
)
from faprompt.scoring import nearest_distance, top_mean

DIM = 6


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def chances(*shape):
    return 1 / (1 + np.exp(-drawn(*shape)))


def tokens(seed, rows=12, layers=(2, 3)):
    return {layer: drawn(rows, DIM, seed=seed + 50 * layer) for layer in layers}


def bank(*seeds, **options):
    return ReferenceBank.of({f"p{seed}": [tokens(seed, **options)] for seed in seeds})


def unit_rows(values):
    values = np.asarray(values, np.float64)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def rival_distance(patches, memory):
    """Half the cosine distance of each row to the nearest one, of each layer, then the mean."""
    layers = [
        (1 - (unit_rows(patches[k]) @ unit_rows(memory[k]).T).max(axis=-1)) / 2 for k in memory
    ]
    return np.mean(layers, axis=0)


class TestChoice:
    def test_every_next_picture_is_the_farthest_of_those_chosen(self):
        features = drawn(30, DIM, seed=1)
        chosen, rows = farthest_first(features, 9), unit_rows(features)
        assert chosen[0] == int((rows @ rows.mean(axis=0)).argmax())
        for number in range(1, 9):
            nearest = (1 - rows @ rows[chosen[:number]].T).min(axis=1)
            assert nearest[chosen[number]] == pytest.approx(nearest.max(), abs=1e-9)
        assert farthest_first(features, 4) == chosen[:4]

    def test_the_order_of_files_and_the_length_of_features_do_not_matter(self):
        features, order = drawn(20, DIM, seed=2), np.random.default_rng(4).permutation(20)
        shuffled = farthest_first(7 * features[order], 6)
        assert [int(order[row]) for row in shuffled] == farthest_first(features, 6)

    def test_copies_come_last_and_all_can_be_chosen(self):
        features = drawn(4, DIM, seed=3)[[0, 0, 1, 2, 3]]
        chosen = farthest_first(features, 5)
        assert sorted(chosen) == [0, 1, 2, 3, 4]
        assert chosen[-1] in (0, 1)

    @pytest.mark.parametrize("count", [0, 4])
    def test_more_than_there_are_is_refused(self, count):
        with pytest.raises(ConfigError, match=f"should be 1 to 3 of the pictures, got {count}"):
            farthest_first(drawn(3, DIM), count)


class TestBank:
    def test_distances_are_those_to_the_nearest_token_of_any_reference(self):
        ours, patches = bank(1, 2, 3), tokens(9)
        found = ours.distances({layer: each[None] for layer, each in patches.items()})
        memory = {k: np.concatenate([tokens(seed)[k] for seed in (1, 2, 3)]) for k in (2, 3)}
        np.testing.assert_allclose(found[0], rival_distance(patches, memory), rtol=2e-3)

    def test_a_reference_itself_has_no_distance(self):
        ours = bank(1, 2)
        assert ours.distances({k: v[None] for k, v in tokens(1).items()}).max() < 1e-3

    def test_typical_is_the_median_of_the_leave_one_out_distances(self):
        ours, wanted = bank(1, 2, 3), []
        for seed in (1, 2, 3):
            rest = [tokens(other) for other in (1, 2, 3) if other != seed]
            memory = {k: np.concatenate([one[k] for one in rest]) for k in (2, 3)}
            wanted.append(rival_distance(tokens(seed), memory).max())  # 2 % of 12 patches is one
        np.testing.assert_allclose(ours.leave_one_out(), wanted, rtol=2e-3)
        assert ours.typical == float(np.median(ours.leave_one_out()))

    def test_surprise_is_one_half_at_the_typical_distance_and_grows_with_the_distance(self):
        ours, patches = bank(1, 2, 3), {k: v[None] for k, v in tokens(9).items()}
        distance, surprise = ours.distances(patches)[0], ours.surprise(patches)[0]
        np.testing.assert_allclose(surprise, distance / (distance + ours.typical), rtol=1e-6)
        assert np.array_equal(surprise > 0.5, distance > np.float32(ours.typical))
        assert surprise.min() >= 0 and surprise.max() < 1

    def test_a_single_reference_is_compared_with_itself(self):
        one = bank(1)
        odd, even = ({k: v[start::2] for k, v in tokens(1).items()} for start in (1, 0))
        wanted = max(rival_distance(even, odd).max(), rival_distance(odd, even).max())
        assert one.typical == pytest.approx(wanted, rel=2e-3)
        assert one.suspects() == ()

    def test_equal_pictures_and_a_single_patch_have_a_typical_distance_above_0(self):
        same = ReferenceBank.of({name: [tokens(1)] for name in "abcde"})
        assert same.typical == 1e-4 and same.suspects() == ()
        assert bank(1, rows=1).typical == 1e-4

    def test_more_than_one_part_of_a_picture_belongs_to_it(self):
        ours = ReferenceBank.of({"a": [tokens(1), tokens(2, rows=5)], "b": [tokens(3)]})
        assert np.bincount(ours.owners).tolist() == [17, 12]
        assert {len(each) for each in ours.tokens.values()} == {29}
        assert len(ours.leave_one_out()) == 2

    def test_large_and_small_tokens_keep_their_direction(self):
        for factor in (1e-7, 1e7):  # out of the range of half precision
            scaled = ReferenceBank.of(
                {f"p{s}": [{k: factor * v for k, v in tokens(s).items()}] for s in (1, 2)}
            )
            np.testing.assert_allclose(scaled.tokens[2], bank(1, 2).tokens[2], rtol=0, atol=1e-3)

    def test_a_picture_of_which_nothing_is_left_is_refused(self):
        for parts in ([], [{2: np.zeros((0, DIM))}]):
            with pytest.raises(ConfigError, match=r"p1 cannot be a reference, because its mask"):
                ReferenceBank.of({"p0": [tokens(0)], "p1": parts})

    def test_an_odd_reference_is_named(self):
        alike = {f"good{i}": [{2: drawn(12, DIM) + 0.05 * drawn(12, DIM, seed=i)}]
                 for i in range(1, 7)}  # fmt: skip
        odd = {2: next(iter(alike.values()))[0][2].copy()}
        odd[2][4] = -odd[2][4]
        made = ReferenceBank.of({**alike, "scratched": [odd]})
        assert made.suspects() == ("scratched",)
        assert ReferenceBank.of(alike).suspects() == ()
        few = dict(list(alike.items())[:2])
        assert ReferenceBank.of({**few, "scratched": [odd]}).suspects() == ()

    def test_more_references_come_after_the_first_and_keep_the_scale(self):
        first, more = bank(1, 2), {"p7": [tokens(7)], "p8": [tokens(8)]}
        both, at_once = first.extended(more), bank(1, 2, 7, 8)
        assert both.names == at_once.names == ("p1", "p2", "p7", "p8")
        assert np.array_equal(both.owners, at_once.owners)
        assert all(np.array_equal(both.tokens[k], at_once.tokens[k]) for k in (2, 3))
        assert both.typical == first.typical != at_once.typical
        patches = {k: v[None] for k, v in tokens(9).items()}
        assert (both.distances(patches) <= first.distances(patches)).all()

    def test_layers_that_were_not_computed_are_named(self):
        with pytest.raises(ConfigError, match=r"references are of layers \[3\], which were not"):
            bank(1).distances({2: drawn(1, 4, DIM)})


def test_the_highest_mean_is_that_of_the_highest_fiftieth_and_of_one_at_least():
    values = np.random.default_rng(0).permutation(np.arange(200.0))[None]
    small = np.arange(10.0)[None]
    for mean, of in ((highest_mean, np.asarray), (top_mean, torch.from_numpy)):
        assert mean(of(values)).tolist() == [(199 + 198 + 197 + 196) / 4]
        assert mean(of(small)).tolist() == [9.0]


def test_a_detector_may_compare_the_tokens_elsewhere():
    ours, patches = bank(1, 2, 3), {k: v[None] for k, v in tokens(9).items()}
    asked = []

    def measure(layer, own):
        asked.append(layer)
        return nearest_distance(torch.from_numpy(own), torch.from_numpy(ours.tokens[layer])).numpy()

    np.testing.assert_allclose(ours.surprise(patches, measure), ours.surprise(patches), rtol=1e-5)
    assert asked == [2, 3]


class TestJoin:
    def test_score_and_map_are_weighted_sums(self):
        joined = References({"": bank(1)}, weight=0.3)
        score, grid, surprise = np.array([0.2, 0.9]), chances(2, 3, 4), chances(2, 12)
        found, patch_map = joined.join(score, grid, surprise, (3, 4))
        np.testing.assert_allclose(found, 0.7 * score + 0.3 * surprise.max(axis=1), rtol=1e-6)
        np.testing.assert_allclose(
            patch_map, 0.7 * grid + 0.3 * surprise.reshape(2, 3, 4), rtol=1e-6
        )

    def test_a_map_in_pixels_gets_upsampled_distances(self):
        joined = References({"": bank(1)}, weight=1.0)
        surprise = np.full((1, 12), 0.25)
        score, patch_map = joined.join(np.array([0.9]), drawn(1, 42, 56), surprise, (3, 4))
        assert patch_map.shape == (1, 42, 56)
        np.testing.assert_allclose(patch_map, np.full((1, 42, 56), 0.25))
        assert score.tolist() == [0.25]

    def test_products_have_banks_of_their_own(self):
        several = References({"cap": bank(1), "nut": bank(2)})
        assert several.bank("nut").names == ("p2",)
        with pytest.raises(ConfigError, match=r"references of cap, nut, got 'bolt'; name the prod"):
            several.bank("bolt")
        with pytest.raises(ConfigError, match=r"references of cap, nut, got no name"):
            several.check_product(None)
        assert References({"": bank(1)}).check_product("bolt") == ""

    @pytest.mark.parametrize("weight", [0, 1.5, float("nan")])
    def test_a_weight_out_of_range_is_refused(self, weight):
        with pytest.raises(ValueError, match="weight should be"):
            References({"": bank(1)}, weight=weight)

    def test_no_bank_is_refused(self):
        with pytest.raises(ValueError, match="banks should have at least one product"):
            References({})

    def test_the_digest_is_that_of_all_that_decides_a_score(self):
        made = References({"": bank(1, 2)})
        assert made.digest() == References({"": bank(1, 2)}).digest()
        others = [References({"": bank(1, 2)}, weight=0.4), References({"a": bank(1, 2)}),
                  References({"": bank(1, 3)}), References({"": bank(1)})]  # fmt: skip
        others.append(References({"": bank(1).extended({"p2": [tokens(2)]})}))  # other scale
        assert len({made.digest(), *(other.digest() for other in others)}) == 6


class TestFile:
    def test_loaded_references_equal_the_saved_ones_to_the_bit(self, tmp_path):
        made = References({"nut": bank(1, 2), "a cap": bank(3, layers=(5,))}, weight=0.25)
        save_references(made, tmp_path)
        found = read_references(tmp_path)
        assert found.weight == 0.25 and found.digest() == made.digest()
        for product, one in made.banks.items():
            other = found.bank(product)
            assert (other.names, other.typical) == (one.names, one.typical)
            assert np.array_equal(other.owners, one.owners)
            assert other.tokens.keys() == one.tokens.keys()
            assert all(np.array_equal(other.tokens[k], t) for k, t in one.tokens.items())
        assert load_file(tmp_path / REFERENCES)["1/2"].dtype == np.float16

    def test_a_folder_without_references_has_none(self, tmp_path):
        assert read_references(tmp_path) is None

    @pytest.mark.parametrize(
        ("changes", "tensors", "told"),
        [
            ({"format": 2}, {}, "format 2, this version reads 1"),
            ({"weight": 2.0}, {}, "weight should be"),
            ({"weight": None}, {}, "float"),
            ({"products": {}}, {}, "at least one product"),
            ({"products": 3}, {}, "items"),
            ({"typical": 0.0}, {}, "typical distance of 0"),
            ({"typical": float("inf")}, {}, "typical distance of 0"),
            ({"names": "p1"}, {}, "without names"),
            ({"names": ["p1"]}, {}, "other pictures than it names"),
            ({}, {"0/owners": np.zeros(24, np.int32)}, "other pictures than it names"),
            ({}, {"0/owners": None}, "owners"),
            ({}, {"0/2": None, "0/3": None}, "without names or tokens"),
            ({}, {"0/2": np.zeros((3, DIM))}, "another shape"),
            ({}, {"0/2": np.full((24, DIM), np.nan)}, "not finite"),
            ({}, {"0/x": np.zeros((24, DIM))}, "invalid literal"),
        ],
    )
    def test_damage_is_told(self, tmp_path, changes, tensors, told):
        save_references(References({"": bank(1, 2)}), tmp_path)
        kept = {**load_file(tmp_path / REFERENCES), **tensors}
        values = {"format": 1, "weight": 0.5, "products": {
            "": {"number": 0, "names": ["p1", "p2"], "typical": 0.1}}}  # fmt: skip
        for name, value in changes.items():
            (values if name in values else values["products"][""])[name] = value
        kept = {name: tensor for name, tensor in kept.items() if tensor is not None}
        content = save(kept, metadata={"references": json.dumps(values)})
        (tmp_path / REFERENCES).write_bytes(content)
        with pytest.raises(ModelError, match=f"{REFERENCES} cannot be used .*{told}.*calibrate ag"):
            read_references(tmp_path)

    def test_what_is_no_such_file_is_told(self, tmp_path):
        deep = save({"a": np.zeros(1)}, metadata={"references": "[" * 5000})
        for content in (b"", b"rubbish" * 9, save({"a": np.zeros(1)}), deep):
            (tmp_path / REFERENCES).write_bytes(content)
            with pytest.raises(ModelError, match=f"{REFERENCES} cannot be used .*calibrate again"):
                read_references(tmp_path)


def test_a_reference_of_many_tiles_keeps_evenly_spread_rows():
    tiles = [{1: np.eye(8)[np.full(1000, i % 8)]} for i in range(16)]
    bank = ReferenceBank.of({"large": tiles, "small": [{1: np.eye(8)[:3]}]})
    counts = np.bincount(bank.owners)
    assert counts.tolist() == [MOST_TOKENS, 3]
    kept = bank.tokens[1][:MOST_TOKENS].argmax(axis=1).reshape(16, -1)  # 256 rows of each tile
    assert all(set(row.tolist()) == {i % 8} for i, row in enumerate(kept))
