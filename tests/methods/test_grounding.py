"""Grounding: boxes by hand, transformers' own post-processing, and a tiny model end to end."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from faprompt.errors import ConfigError
from faprompt.methods.grounding import (
    GENERAL_WORDS,
    GroundingDino,
    box_position,
    box_text,
    dim_outside,
    likely_boxes,
    peak_cell,
    says_one_of,
)
from tests.helpers import dino as tiny_dino
from tests.helpers import small

BLACK = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # pixels are the picture itself


def boxes(*rows) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def at(x_px: float, y_px: float) -> Tensor:
    return boxes((x_px / 518, y_px / 518, 0.1, 0.1))


class TestPosition:
    @pytest.mark.parametrize(
        ("place", "cell"),
        [(0, 0), (171.9, 0), (172.5, None), (173.1, 1), (343.9, 1), (344.5, None), (345.1, 2),
         (516.9, 2), (517.5, None)],
    )  # fmt: skip
    def test_cells_have_gaps_between_them(self, place, cell):
        assert box_position(at(place, 259)) == (None if cell is None else 3 + cell)
        assert box_position(at(30, place)) == (None if cell is None else 3 * cell)

    def test_the_best_box_decides_and_without_one_the_centre(self):
        two = torch.cat([at(500, 20), at(20, 500)])
        assert box_position(two) == 2 and box_position(two.flip(0)) == 6
        assert box_position(boxes()) == 4

    def test_a_peak_has_the_cell_of_its_pixel_and_no_gap(self):
        cells = [0] * 173 + [1] * 172 + [2] * 173
        for row, column in [(0, 0), (172, 173), (173, 172), (344, 345), (345, 344), (517, 517)]:
            score_map = torch.zeros(518, 518)
            score_map[row, column] = 1
            assert peak_cell(score_map) == 3 * cells[row] + cells[column]

    def test_a_peak_of_a_map_of_any_shape(self):
        found = []
        for place in range(6 * 9):
            score_map = torch.zeros(6, 9)
            score_map.view(-1)[place] = 1
            found.append(peak_cell(score_map))
        assert found == [3 * (row // 2) + column // 3 for row in range(6) for column in range(9)]


class TestWhichBoxes:
    def test_chance_above_a_quarter_and_area_below_seven_tenths_best_first(self):
        chances = torch.tensor([0.3, 0.9, 0.5, 0.25, 0.26, 0.8])
        found = boxes(
            (0.5, 0.5, 0.2, 0.2), (0.5, 0.5, 0.9, 0.9), (0.5, 0.5, 0.7, 0.99),
            (0.5, 0.5, 0.1, 0.1), (0.5, 0.5, 0.3, 0.3), (0.5, 0.5, 1.0, 0.7),
        )  # fmt: skip
        assert likely_boxes(chances, found).tolist() == [2, 0, 4]

    def test_where_none_is_good_enough_the_single_best(self):
        chances = torch.tensor([0.1, 0.24, 0.2])
        assert likely_boxes(chances, boxes(*[(0.5, 0.5, 0.1, 0.1)] * 3)).tolist() == [1]
        too_large = boxes(*[(0.5, 0.5, 1, 1)] * 3)
        assert likely_boxes(torch.tensor([0.3, 0.4, 0.9]), too_large).tolist() == [2]

    def test_the_public_code_cuts_chances_and_takes_the_last_of_equal_ones(self):
        same = boxes(*[(0.5, 0.5, 0.1, 0.1)] * 5)
        chances = torch.tensor([0.349, 0.342, 0.41, 0.416, 0.9])
        assert likely_boxes(chances, same).tolist() == [4, 3, 2, 0, 1]
        assert likely_boxes(chances, same, slips=True).tolist() == [4, 3, 2, 1, 0]
        weak = torch.tensor([0.204, 0.203, 0.201, 0.1, 0.1])  # none above 0.25: the highest
        assert likely_boxes(weak, same, slips=True).tolist() == [0]

    def test_a_phrase_holds_a_whole_entry_of_the_text(self):
        words = (*GENERAL_WORDS, "Burn mark")
        assert says_one_of("broken .", words) and says_one_of("a burn mark", words)
        assert not any(says_one_of(phrase, words) for phrase in ("burn", "mark", "", "."))

    def test_the_text_is_lower_case_between_full_stops(self):
        assert box_text((*GENERAL_WORDS, "Burn mark")) == (
            "anomaly . damage . broken . defect . contamination . burn mark ."
        )


class TestDimming:
    maps = torch.rand(2, 10, 20, generator=torch.Generator().manual_seed(0))

    def test_outside_all_boxes_seven_tenths_are_left(self):
        found = [boxes((0.2125, 0.325, 0.2, 0.4), (0.75, 0.9, 0.3125, 0.5)), boxes()]
        wanted = 0.7 * self.maps
        wanted[0, 1:5, 2:6] = self.maps[0, 1:5, 2:6]  # from 1.25 to 5.25 and 2.25 to 6.25
        wanted[0, 6:, 11:18] = self.maps[0, 6:, 11:18]  # from 6.5, and 11.875 to 18.125
        torch.testing.assert_close(dim_outside(self.maps, found), wanted)
        torch.testing.assert_close(dim_outside(self.maps, found, slips=True), wanted)

    @pytest.mark.parametrize(
        ("box", "rows", "columns"),
        [
            ((0.1, 0.5, 0.5, 0.5), slice(2, 7), slice(0, 7)),  # from -3 to 7 of 20
            ((0.5, 0.1, 0.5, 0.5), slice(0, 3), slice(5, 15)),  # from -1.5 to 3.5 of 10
            ((0.05, 0.05, 0.5, 0.5), slice(0, 3), slice(0, 6)),
        ],
    )
    def test_a_box_that_starts_outside_is_cut_or_lost_as_in_the_public_code(
        self, box, rows, columns
    ):
        found = [boxes(box), boxes()]
        lost = 0.7 * self.maps
        wanted = lost.clone()
        wanted[0, rows, columns] = self.maps[0, rows, columns]
        torch.testing.assert_close(dim_outside(self.maps, found), wanted)
        torch.testing.assert_close(dim_outside(self.maps, found, slips=True), lost)

    def test_less_than_a_pixel_outside_is_not_lost(self):
        found = [boxes((0.1, 0.5, 0.24, 0.5)), boxes()]  # from -0.4 to 4.4 of 20
        dimmed = dim_outside(self.maps, found, slips=True)
        assert torch.equal(dimmed, dim_outside(self.maps, found))
        assert torch.equal(dimmed[0, 2:7, :4], self.maps[0, 2:7, :4])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("transformers")
    return tiny_dino.write(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def dino(folder):
    return GroundingDino(str(folder), side_px=64, **BLACK)


class Spoken:
    """Fake of the model: returns the given output and keeps its inputs."""

    def __init__(self, model, logits: Tensor, found: Tensor) -> None:
        self.config, self.seen = model.config, {}
        self.output = SimpleNamespace(logits=logits[None], pred_boxes=found[None])

    def to(self, device):
        return self

    def __call__(self, **inputs):
        self.seen = inputs
        return self.output


class TestModel:
    def test_a_drawn_model_finds_boxes_and_the_same_ones_again(self, dino):
        pixels = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(1))
        found = dino.find(pixels, ["a flaw"])
        assert found.ndim == 2 and found.shape[1] == 4 and len(found) <= 7
        assert len(found) and found.min() >= 0 and found.max() <= 1
        assert torch.equal(found, dino.find(pixels, ["a flaw"]))
        assert not torch.equal(found, dino.find(pixels.flip(-1), ["a flaw"]))
        assert not any(p.requires_grad for p in dino.model.parameters())

    def test_boxes_and_phrases_are_those_of_transformers_own_processor(self, dino, monkeypatch):
        from transformers import GroundingDinoImageProcessor, GroundingDinoProcessor

        words = (*GENERAL_WORDS, "burn mark")
        inputs = dino.tokenizer(box_text(words), return_tensors="pt")
        generator = torch.Generator().manual_seed(3)
        logits = torch.full((40, 64), -torch.inf)
        logits[:, : inputs["input_ids"].shape[1]] = torch.randn(
            40, inputs["input_ids"].shape[1], generator=generator
        ) - 2  # fmt: skip
        found = torch.rand(40, 4, generator=generator) * torch.tensor([1.0, 1.0, 1.2, 1.2])
        monkeypatch.setattr(dino, "model", Spoken(dino.model, logits, found))
        kept = dino.find(torch.zeros(3, 30, 30), ["burn mark"])
        processor = GroundingDinoProcessor(GroundingDinoImageProcessor(), dino.tokenizer)
        (rival,) = processor.post_process_grounded_object_detection(
            dino.model.output, inputs["input_ids"], threshold=0.25, text_threshold=0.25
        )
        rows = [
            (float(score), box)
            for score, box, phrase in zip(
                rival["scores"], rival["boxes"], rival["text_labels"], strict=True
            )
            if (box[2] - box[0]) * (box[3] - box[1]) < 0.7 and any(word in phrase for word in words)
        ]
        wanted = torch.stack([box for _, box in sorted(rows, key=lambda row: -row[0])])
        corners = torch.cat([kept[:, :2] - kept[:, 2:] / 2, kept[:, :2] + kept[:, 2:] / 2], dim=1)
        torch.testing.assert_close(corners, wanted)
        assert 1 < len(kept) < len(rival["scores"]) < 40
        assert torch.equal(dino.model.seen["input_ids"], inputs["input_ids"])

    def test_the_best_of_bad_ones_says_nothing_and_is_dropped(self, dino, monkeypatch):
        logits = torch.full((3, 64), -torch.inf)
        logits[:, 1] = torch.tensor([-3.0, -1.2, -2.0])  # "anomaly", below a quarter
        weak = Spoken(dino.model, logits, boxes(*[(0.5, 0.5, 0.1, 0.1)] * 3))
        monkeypatch.setattr(dino, "model", weak)
        assert dino.find(torch.zeros(3, 30, 30), []).shape == (0, 4)
        weak.output.logits[0, 1, 1] = -1.0  # 0.27
        assert len(dino.find(torch.zeros(3, 30, 30), [])) == 1

    def test_the_first_token_is_no_part_of_a_phrase(self, dino):
        ids = torch.tensor([tiny_dino.CLS + 2, tiny_dino.CLS + 4, tiny_dino.STOP])
        assert dino._phrase(torch.tensor([0.9, 0.26, 0.25, 0.9]), ids) == "broken"

    def test_the_picture_is_undone_resized_and_normalised_anew(self, folder):
        own = {"mean": (0.2, 0.4, 0.6), "std": (0.5, 0.25, 0.1)}
        dino = GroundingDino(str(folder), side_px=48, **own)
        picture = torch.tensor([0.9, 0.3, 0.5])[:, None, None].expand(3, 24, 36)
        mean, std = (torch.tensor(own[name])[:, None, None] for name in ("mean", "std"))
        prepared = dino.prepare((picture - mean) / std)
        wanted = [(0.9 - 0.485) / 0.229, (0.3 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
        assert prepared.shape == (3, 48, 72)
        for channel, value in zip(prepared, wanted, strict=True):
            torch.testing.assert_close(channel, torch.full((48, 72), value), rtol=0, atol=1e-5)

    def test_the_fingerprint_is_of_the_weights(self, dino, folder):
        again = GroundingDino(str(folder), side_px=64, **BLACK)
        assert again.fingerprint == dino.fingerprint and len(dino.fingerprint) == 64
        changed = GroundingDino(str(folder), side_px=64, **BLACK)
        with torch.no_grad():
            next(changed.model.parameters()).view(-1)[0] += 1e-3
        assert changed.fingerprint != dino.fingerprint


class TestRefusals:
    def load(self, source):
        return GroundingDino(str(source), side_px=64, **BLACK)

    @pytest.mark.parametrize("source", ["nowhere", "/nowhere/dino", "./dino", "~/dino"])
    def test_no_folder_and_no_hub_name(self, source):
        pytest.importorskip("transformers")
        small.backbone()
        with pytest.raises(ConfigError, match=r"grounding_model=.*no such folder.*grounding=self"):
            self.load(source)

    def test_a_folder_without_a_config(self, folder, tmp_path):
        with pytest.raises(ConfigError, match=r"cannot be read: .*config\.json.*safetensors"):
            self.load(tmp_path)

    def test_another_kind_of_model(self, folder, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(ConfigError, match="its config.json has model_type 'bert'. Wanted"):
            self.load(tmp_path)

    def test_pickled_weights_are_not_opened(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "pickled")
        (tmp_path / "pickled" / "model.safetensors").unlink()
        (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"a trap")
        with pytest.raises(ConfigError, match="cannot be read: .*safetensors"):
            self.load(tmp_path / "pickled")

    def test_a_damaged_file(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "damaged")
        (tmp_path / "damaged" / "model.safetensors").write_bytes(b"\0" * 40)
        with pytest.raises(ConfigError, match="damaged' cannot be read: .*grounding=none"):
            self.load(tmp_path / "damaged")

    def test_weights_that_lack_a_part(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "deeper")
        config = json.loads((folder / "config.json").read_text())
        config["encoder_layers"] = 2
        (tmp_path / "deeper" / "config.json").write_text(json.dumps(config))
        with pytest.raises(ConfigError, match="its weights lack model.encoder.layers.1"):
            self.load(tmp_path / "deeper")

    def test_a_folder_without_a_tokenizer(self, folder, tmp_path):
        shutil.copytree(
            folder, tmp_path / "mute", ignore=lambda *_: ["tokenizer.json", "tokenizer_config.json"]
        )
        with pytest.raises(
            ConfigError, match="grounding_model=.*mute' cannot be read: .*tokenizer"
        ):
            self.load(tmp_path / "mute")

    def test_without_transformers_it_says_how_to_get_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ConfigError, match=r"faprompt\[baselines\].*grounding=none"):
            self.load("owner/name")
