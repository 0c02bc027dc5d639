"""`faprompt serve` before it serves."""

from __future__ import annotations

import pytest

from faprompt.cli.serve_command import named_models
from faprompt.errors import ConfigError


def test_addresses_and_tokens_are_checked_before_a_model_is_loaded(faprompt, tmp_path):
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    told = faprompt("serve", "no-such-model", "--host", "0.0.0.0")
    assert told.code == 2 and "--token-file" in told.err
    told = faprompt("serve", "no-such-model", "--token-file", tmp_path / "missing")
    assert told.code == 2 and "cannot be read" in told.err
    told = faprompt("serve", "no-such-model", "--queue", "4")
    assert told.code == 2 and "max_batch" in told.err
    told = faprompt("serve", "no-such-model")
    assert told.code == 1 and "no-such-model" in told.err


def test_without_the_extra_it_says_how_to_install_it(faprompt, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fastapi", None)
    told = faprompt("serve", "tiny")
    assert told.code == 1 and "pip install 'faprompt[serve]'" in told.err


def test_models_have_ids_of_their_own():
    assert named_models(["tiny", "models/left", "right=models/x"]) == {
        "tiny": "tiny",
        "left": "models/left",
        "right": "models/x",
    }
    for wrong in (["a/line", "b/line"], ["=x"], ["a="]):
        with pytest.raises(ConfigError, match="id of its own"):
            named_models(wrong)
