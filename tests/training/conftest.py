import pytest

from faprompt.training import loss_log as curves
from tests.training import toys


@pytest.fixture(autouse=True)
def one_thread():
    with toys.one_thread():
        yield


@pytest.fixture
def samples(tmp_path):
    return toys.draw_samples(tmp_path)


@pytest.fixture(autouse=True)
def no_drawing(request, monkeypatch):
    """Drawing a picture of the losses takes longer than learning here; a few tests do."""
    if "draws" not in request.fixturenames:
        monkeypatch.setattr(curves, "_draw_curves", lambda *losses: b"")


@pytest.fixture
def draws():
    """Asked for by a test that looks at loss.png."""
