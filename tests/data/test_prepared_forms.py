"""Known datasets in the forms that other projects prepare: an MVTec tree or a `meta.json`."""

from __future__ import annotations

import pytest

from faprompt.data import read_dataset
from faprompt.errors import DatasetError
from tests.helpers import folders

# (dataset, class, normal pictures, kind of defect, anomalous pictures, do the trees hold masks)
TREES = [
    ("sdd", "SDD", ["kos01_Part5_1.png"], "defect", ["kos01_Part5_0.png"], True),
    ("aitex", "AITEX", ["2306_0001_000_05_3.png"], "Broken_end", ["0001_002_00_8.png"], True),
    ("dagm", "Class1", ["1.PNG"], "defect", ["2.PNG"], True),
    ("elpv", "elpv", ["1.png"], "defect", ["2.png"], False),
    ("lag", "lag", ["1.jpg"], "glaucoma", ["1.jpg"], False),
    ("brainmri", "brain", ["1.png"], "tumor", ["1.png"], False),
    ("headct", "brain", ["100.png"], "hemorrhage", ["1.png", "2.png"], False),
    ("headct", "headct", ["100.png"], "defect", ["1.png", "2.png"], False),
    ("tn3k", "thyroid", [], "nodule", ["0000.jpg", "0001.jpg"], True),
]


@pytest.mark.parametrize(("name", "class_name", "good", "defect", "bad", "masked"), TREES)
def test_a_tree_is_read_under_its_name(tmp_path, name, class_name, good, defect, bad, masked):
    folders.mvtec_class(
        tmp_path / class_name,
        normal={"good": good} if good else {},
        defects={defect: bad},
        mask_name="{stem}_mask.png" if masked else None,
    )
    found = read_dataset(tmp_path, dataset=name)
    assert (found.name, found.normal, found.anomalous) == (name, len(good), len(bad))
    assert {sample.dataset for sample in found} == {name}
    assert found.counts()[class_name].with_mask == masked * len(bad)
    assert any(sample.has_pixel_label for sample in found) is masked
    # by itself such a tree carries no mark of the dataset
    if good:
        assert read_dataset(tmp_path).name == "mvtec_style"
    with pytest.raises(DatasetError, match="mvtec_style, which has no subset 'all'.*sdd.*elpv"):
        read_dataset(tmp_path, dataset=name, subset="all")


@pytest.mark.parametrize("name", ["sdd", "realiad", "brainmri"])
def test_a_list_is_read_under_its_name(tmp_path, name):
    folders.write_meta(tmp_path / "meta.json", folders.listed(tmp_path))
    found = read_dataset(tmp_path, dataset=name)
    assert (found.name, len(found)) == (name, 5)
    assert {sample.dataset for sample in found} == {name}
