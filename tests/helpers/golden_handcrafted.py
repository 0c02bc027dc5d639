"""The golden comparisons of APRIL-GAN, AnoVL and WinCLIP, by golden file."""

from collections.abc import Callable, Iterable

from tests.helpers.golden_anovl import anovl_mvtec, anovl_visa
from tests.helpers.golden_april_gan import april_gan
from tests.helpers.golden_rows import Row
from tests.helpers.golden_winclip import winclip

COMPARISONS: dict[str, Callable[[], Iterable[Row]]] = {
    "april_gan": april_gan,
    "anovl": anovl_mvtec,
    "anovl_visa": anovl_visa,
    "winclip_anomalib": winclip,
}
