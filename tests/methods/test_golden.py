"""Every number in the golden files, which the authors' own code produced."""

import importlib.util
from pathlib import Path

import pytest

from tests.helpers import golden
from tests.helpers.golden_rows import Row


@pytest.fixture(scope="module", params=golden.FILES)
def compared(request):
    return request.param, golden.compare(request.param)


def test_no_number_is_left_out(compared):
    name, found = compared
    assert set(found) == set(golden.load(name))


@pytest.mark.parametrize("stage", ["eval/", "step0/", "step1/", "step2/", "grad/", "after/"])
def test_stages_equal_the_authors(compared, stage):
    """Absolute for the first forward and all losses, relative 1e-3 for what follows."""
    _, found = compared
    chosen = {key: pair for key, pair in found.items() if key.startswith(stage)}
    far = {key: pair for key, pair in chosen.items() if not pair[0] <= pair[1]}
    assert chosen and not far


@pytest.mark.parametrize(
    ("name", "key", "wanted", "limit"),
    [
        ("faprompt_official", "step0/loss_orthogonal", 20.5, 2.05e-4),
        ("faprompt_topk", "step1/loss_orthogonal", -20.5, 6.15e-4),
        ("faprompt_topk", "step0/loss_prior", 0.5, 1e-4),
        ("anomalyclip", "step2/loss_local", 0.5, 3e-4),
        ("faprompt_topk_fp32", "step2/loss_orthogonal", 20.5, 1e-4),
    ],
)
def test_large_losses_and_those_after_a_rounded_step_may_differ_by_more(name, key, wanted, limit):
    assert golden.loss_limit(name, key, wanted) == pytest.approx(limit, rel=1e-12)


def test_the_files_differ_as_their_options_do():
    """Or the tolerance would hide an option that has no effect."""
    official, topk, exact = (
        golden.load(name)["after/eval/image_score"] for name in golden.FAPROMPT_FILES
    )
    assert abs(official - topk).max() > 1e-3
    wrong = golden.difference(
        golden.first_forward("faprompt_topk", golden.method("faprompt_topk"))["eval/prior"],
        golden.load("faprompt_official")["eval/prior"],
    )
    assert wrong > 1e-2 and abs(topk - exact).max() > 0


def test_the_script_prints_each_stage_and_notices_a_difference(monkeypatch, capsys):
    path = Path(__file__).resolve().parents[2] / "scripts" / "compare_golden.py"
    spec = importlib.util.spec_from_file_location("compare_golden", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    near = {key: (1e-6, 1e-4) for key in golden.load("anomalyclip")}
    monkeypatch.setattr(golden, "FILES", ("anomalyclip",))
    monkeypatch.setattr(script, "COMPARISONS", {"other": lambda: [Row("map", 2e-5, 1e-4)]})
    monkeypatch.setattr(golden, "compare", lambda name: near)
    assert script.main() == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(near) + 5 and printed[-1] == "all stages agree"
    assert printed[len(near)].split() == ["other", "map", "2.0e-05", "of", "1.0e-04", "ok"]
    assert printed[-2].split() == ["other", "2.0e-05", "of", "1.0e-04,", "map"]
    monkeypatch.setattr(golden, "compare", lambda name: near | {"eval/image_score": (1e-3, 1e-4)})
    assert script.main() == 1
    assert "TOO FAR" in capsys.readouterr().out
    monkeypatch.setattr(golden, "compare", lambda name: dict(list(near.items())[1:]))
    assert script.main() == 1
    assert "not compared" in capsys.readouterr().out
    monkeypatch.setattr(golden, "compare", lambda name: near)
    monkeypatch.setattr(script, "COMPARISONS", {"other": lambda: [Row("map", 2e-4, 1e-4)]})
    assert script.main() == 1
    assert "TOO FAR" in capsys.readouterr().out
