"""Draw docs/methods/blip.png: what changes where BLIP stands in CLIP's place.

    python scripts/make_blip_picture.py

A picture of what goes where, in place of maps: there are no weights of BLIP here, and maps of
drawn ones are noise. Every number in it is read from the specs that the code runs on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw

from faprompt.clip.known_backbones import BLIP_BASE
from faprompt.clip.spec import BackboneSpec, spec_from_open_clip
from faprompt.files import write_atomically
from faprompt.imaging import read_image
from faprompt.methods.faprompt import FAPromptConfig, count_parameters

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.lettering import FAINT, INK, PAPER, font  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "examples" / "pictures" / "pill-burn-1.jpg"
OUT = ROOT / "docs" / "methods" / "blip.png"
SIZE, MARGIN, ROOM = (800, 720), 16, 364  # of the sheet; beside it; width of a column
SIDE, BOX = 192, 26  # pixels of the picture in patches, and of a row of boxes
COLOURS = 96  # of the file
PLAIN, VALUE, READ, EMPTY = (214, 220, 228), (246, 206, 140), (126, 176, 224), (240, 240, 238)
LEARNED = (190, 222, 176)
_MEAN = Image.Resampling.BOX


@dataclass(frozen=True, slots=True)
class Column:
    """One backbone as FAPrompt's preset `paper` runs on it."""

    title: str
    spec: BackboneSpec
    ends: tuple[str, str]  # of the class token, of the patch tokens
    marks: tuple[str, str]  # first and last token of a prompt
    read: int  # the place of the prompt's feature: 0 or -1
    sight: str

    @property
    def image_size(self) -> int:
        """As `fit_to_backbone` chooses it."""
        patch = self.spec.vision.patch_size
        return round(FAPromptConfig().image_size / patch) * patch

    @property
    def learned(self) -> int:
        """Parameters of FAPrompt."""
        widths = {"embed_dim": self.spec.embed_dim, "text_width": self.spec.text.width}
        return count_parameters(FAPromptConfig(), **widths).live


def columns() -> tuple[Column, Column]:
    """The paper's CLIP, and BLIP."""
    clip = Column(
        "CLIP  ViT-L/14@336", spec_from_open_clip("ViT-L-14-336"),
        ends=("proj", "ln_post, proj"), marks=("[SOT]", "[EOT]"), read=-1,
        sight="each token sees those before it; read at [EOT]",
    )  # fmt: skip
    blip = Column(
        "BLIP  ViT-B/16", BLIP_BASE,
        ends=("norm, vision_proj", "norm, vision_proj"), marks=("[CLS]", "[SEP]"), read=0,
        sight="every token sees all of them; read at [CLS]",
    )  # fmt: skip
    return clip, blip


class Sheet:
    """What is drawn on, one column at a time."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", SIZE, PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def words(self, x: int, y: int, text: str, *, size: int = 12, bold: bool = False) -> None:
        """Black and bold, or grey; `y` is the middle of the line."""
        ink = INK if bold else FAINT
        self.draw.text((x, y), text, ink, font(size, bold=bold), anchor="lm")

    def boxes(self, x: int, y: int, texts: list[str], colours: list[tuple[int, int, int]]) -> None:
        """A row of boxes that fills the column, each as wide as its text needs or all alike."""
        face = font(11)
        widths = [face.getlength(text) for text in texts]
        spare = (ROOM - sum(widths)) / len(texts)
        left = float(x)
        for text, width, colour in zip(texts, widths, colours, strict=True):
            right = left + width + spare
            self.draw.rectangle((left, y, right - 2, y + BOX), fill=colour)
            self.draw.text(((left + right) / 2 - 1, y + BOX / 2), text, INK, face, anchor="mm")
            left = right

    def grid(self, x: int, y: int, column: Column) -> None:
        """A demo picture, each patch in its mean colour."""
        count = column.image_size // column.spec.vision.patch_size
        patches = Image.fromarray(read_image(PICTURE).array).resize((count, count), _MEAN)
        self.image.paste(patches.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y))


def draw_column(sheet: Sheet, x: int, column: Column) -> None:
    """From the picture at the top to the prompt at the bottom."""
    vision, text = column.spec.vision, column.spec.text
    size, patch = column.image_size, vision.patch_size
    sheet.words(x, 24, column.title, size=16, bold=True)
    sheet.grid(x, 44, column)
    beside = x + SIDE + 14
    for line, (words, bold) in enumerate((
        (f"{size} x {size} pixels", True), (f"patches of {patch},", False),
        ("in their mean colours", False), (f"{size // patch} x {size // patch} grid", True),
        (f"{(size // patch) ** 2:,} tokens", False), ("and the class token", False),
    )):  # fmt: skip
        sheet.words(beside, 62 + 24 * line, words, size=13, bold=bold)
    _blocks(sheet, x, 262, column)
    dim = column.spec.embed_dim
    sheet.words(x, 410, f"Ends of the image tower: {dim} channels", size=13, bold=True)
    sheet.boxes(x, 424, ["class token", column.ends[0], "score"], [PLAIN, EMPTY, READ])
    sheet.boxes(x, 456, ["patch tokens", column.ends[1], "map"], [VALUE, EMPTY, READ])
    sheet.words(x, 512, f"A prompt: at most {text.context_length} tokens", size=13, bold=True)
    first, last = column.marks
    tokens = [first, "V1 ... V5", "A1 A2", "damaged", "object", ".", last]
    colours = [EMPTY, LEARNED, LEARNED, EMPTY, EMPTY, EMPTY, EMPTY]
    colours[column.read] = READ
    sheet.boxes(x, 526, tokens, colours)
    sheet.words(x, 568, column.sight)
    sheet.words(x, 590, f"{text.layers} layers of {text.width} channels, then {dim}")
    sheet.words(x, 626, f"FAPrompt learns {column.learned:,} parameters", size=13, bold=True)
    sheet.words(x, 648, f"prior: {dim} x M channels in, {text.width} out")


def _blocks(sheet: Sheet, x: int, y: int, column: Column) -> None:
    """The plain path, the V-V path below it from its first block on, the quarters' ends."""
    vision = column.spec.vision
    start, step = vision.value_path_start, ROOM / vision.layers
    sheet.words(x, y, f"{vision.layers} blocks, {vision.width:,} channels", size=13, bold=True)
    for number in range(1, vision.layers + 1):
        left, right = x + (number - 1) * step, x + number * step - 2
        sheet.draw.rectangle((left, y + 14, right, y + 14 + BOX), fill=PLAIN)
        if number > start:
            sheet.draw.rectangle((left, y + 44, right, y + 44 + BOX), fill=VALUE)
        if number in vision.quarter_layers:
            middle = ((left + right) / 2, y + 82)
            sheet.draw.text(middle, str(number), INK, font(12, bold=True), anchor="mm")
    told = f"V-V path: blocks {start + 1} to {vision.layers}. Numbered: the ends of quarters"
    sheet.words(x, y + 104, told)


def main() -> None:
    """Both columns, a line between them, and what the colours mean."""
    sheet = Sheet()
    for number, column in enumerate(columns()):
        draw_column(sheet, MARGIN + number * (SIZE[0] // 2), column)
    middle = SIZE[0] // 2 - 4
    sheet.draw.line((middle, 16, middle, 664), fill=PLAIN)
    x = MARGIN
    for colour, words in (
        (PLAIN, "plain path"), (VALUE, "V-V path"), (LEARNED, "learned"), (READ, "read here"),
    ):  # fmt: skip
        sheet.draw.rectangle((x, 688, x + 14, 702), fill=colour)
        sheet.words(x + 20, 695, words)
        x += 34 + round(font(12).getlength(words)) + 20
    buffer = BytesIO()
    sheet.image.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    write_atomically(OUT, buffer.getvalue())
    print(OUT.relative_to(ROOT))


if __name__ == "__main__":
    main()
