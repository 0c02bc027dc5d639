"""Base of all methods: image tokens in, scores and patch maps out, by one forward pass.

A method that learns adds `loss`; its parameters are exactly the ones that move. The backbone
is not part of the method and is never saved with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import DEFAULT_OPTIONS, ImageFeatures, ImageOptions
from faprompt.config import Count, check_fields
from faprompt.data.dataset_catalog import display_names
from faprompt.errors import ConfigError
from faprompt.imaging.image_reading import PictureHandling

Kind = Literal["training-free", "learned", "full-shot"]
Filter = Literal["bicubic", "bilinear"]
Table = Mapping[str, Mapping[str, Any]]  # preset -> option -> value
Names = Sequence[str] | None  # what each picture shows, one for each or one for all

_NAMES_SHOWN = 12  # class names in an error


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodConfig:
    """Options of every method."""

    image_size: Count = 518  # side in pixels the picture is resized to (AnomalyCLIP utils.py)
    sigma_px: float = 4.0  # Gaussian on the map, in pixels of `image_size`; 0 for none
    # of labelled sets, in training and evaluation: `read_image`, or `read_resized` as public code
    picture_handling: PictureHandling = "upright"

    def __post_init__(self) -> None:
        faults = self.faults()
        if not 0 <= self.sigma_px <= max(1, self.image_size):  # above it every map is flat
            faults.append(
                f"sigma_px should be 0 to image_size={self.image_size}, got {self.sigma_px}"
            )
        check_fields(self, faults)

    def faults(self) -> list[str]:
        """Return which fields contradict each other, in words; children override it."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodOutput:
    """Scores and maps of a batch.

    score: (B,) in 0..1. patch_map: (B, rows, columns) in 0..1 before smoothing, one value per
    patch, or per pixel where a method upsamples in its own way. prompt_scores: (B, K), one per
    abnormality prompt, on request.
    """

    score: Tensor
    patch_map: Tensor
    prompt_scores: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTerm:
    """Summand of the score, weight times value (B,); of weight 0, it is shown only."""

    name: str
    weight: float
    value: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodParts:
    """Parts of a forward pass; empty where a method has none.

    terms: summands of the score. stages: name -> (B, rows, columns) in 0..1, the maps that
    `patch_map` is made of, in order. prompt_maps: (B, K, rows, columns) in 0..1, `patch_map` with
    each abnormality prompt alone in place of all. selected: (B, M) int64, row-major numbers of
    patches that `selected_title` names, best first. distances: (B, M), the cosine distance of
    each of them to the first one, 0..2. notes: sentences on these parts. normal_tokens
    (T, width) and abnormal_tokens (K, T', width): the learned vectors of the prompts. prior:
    (B, width), what each picture adds to all of `abnormal_tokens`.
    """

    terms: tuple[ScoreTerm, ...] = ()
    stages: Mapping[str, Tensor] = field(default_factory=dict)
    prompt_maps: Tensor | None = None
    selected: Tensor | None = None
    selected_title: str = "Patches used for the prior"
    distances: Tensor | None = None
    notes: tuple[str, ...] = ()
    normal_tokens: Tensor | None = None
    abnormal_tokens: Tensor | None = None
    prior: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Parameters that move, and those the authors report, unused layers included."""

    live: int = 0
    reported: int = 0


def class_token_terms(output: MethodOutput) -> tuple[ScoreTerm, ...]:
    """Return the summands of a score that the class token makes alone."""
    peak = output.patch_map.amax(dim=(1, 2))
    return (
        ScoreTerm(name="class token", weight=1.0, value=output.score),
        ScoreTerm(name="maximum of the map", weight=0.0, value=peak),
    )


def within_depth(layers: Sequence[int], depth: int) -> None:
    """Refuse `map_layers` outside 1..depth by a ValueError."""
    if any(not 1 <= layer <= depth for layer in layers):
        raise ValueError(f"map_layers should lie in 1..{depth}, got {layers}")


class Method(nn.Module):
    """Base of all methods. Children set `name` and `config_class`, and write `score`."""

    name: ClassVar[str]
    config_class: ClassVar[type[MethodConfig]]
    presets: ClassVar[Table] = {"paper": {}}
    backbones: ClassVar[Mapping[str, str]] = {}  # preset -> its backbone, if not ViT-L-14-336
    recipes: ClassVar[Table] = {}  # preset -> training options that differ from FAPrompt's
    rate_factors: ClassVar[Mapping[str, float]] = {}  # start of a parameter's name -> its share
    staged: ClassVar[bool] = False  # what learns when depends on how many epochs there are
    full_shot: ClassVar[bool] = False  # one model per class, from its normal pictures; no words
    parameters_at_full_size: ClassVar[ParameterCount] = ParameterCount()  # on ViT-L/14@336

    config: MethodConfig
    image_options: ImageOptions = DEFAULT_OPTIONS  # which tokens of the image tower it needs
    interpolation: Filter = "bicubic"  # resizes pictures to `image_size`
    keeps_aspect: bool = False  # only the shorter edge of a picture is resized to `image_size`
    tiled: bool = False  # a picture that is not square is scored as overlapping squares
    needs_text: ClassVar[bool] = True  # it compares pictures with words of the backbone
    stacks_squares: bool = False  # patch tokens are those of several squares, one after the other
    uses_class_names: bool = False  # `forward` takes `class_names`: what each picture shows

    @classmethod
    def kind(cls) -> Kind:
        """Return how the method learns: "learned" if the class or a parent writes `loss`."""
        if cls.full_shot:
            return "full-shot"
        return "training-free" if cls.loss is Method.loss else "learned"

    @property
    def sigma_px(self) -> float:
        """Sigma by which `patch_map` still has to be smoothed, in pixels of `image_size`."""
        return self.config.sigma_px

    @property
    def sources(self) -> tuple[str, ...]:
        """SHA-256 of files that decide a score besides options and weights."""
        return ()

    @property
    def export_obstacle(self) -> str:
        """Why no graph of a fixed size computes the scores, as half a sentence; "" if one does."""
        if self.keeps_aspect:
            return (
                "it keeps the aspect ratio of every picture, and a graph takes pictures of one "
                "size; build the method with --set squares=false"
            )
        return ""

    @classmethod
    def option_sources(cls, config: Any) -> tuple[str, ...]:
        """Return those of `sources` that a config alone names, before weights are loaded."""
        return ()

    def encode_image(self, backbone: Backbone, pixels: Tensor) -> ImageFeatures:
        """Encode (B, 3, H, W) normalised pixels with `image_options`."""
        return backbone.encode_image(pixels, self.image_options)

    def static_text(self, text: TextTower) -> Any:
        """Compute the text side that depends on no image, once for inference; None if none."""
        return None

    def forward(
        self,
        features: ImageFeatures,
        text: TextTower,
        *,
        static: Any = None,
        with_prompt_scores: bool = False,
        class_names: Names = None,
    ) -> Any:
        """Compute the `MethodOutput` of a batch of features from `encode_image`.

        `static` is the result of `static_text`; None computes it here, with gradients.
        `class_names` are only for methods with `uses_class_names`.
        """
        output = self.score(features, text, static, class_names)
        if not with_prompt_scores:
            return output
        return replace(output, prompt_scores=self.score_prompts(features, output))

    def score(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> MethodOutput:
        """Compute the output of `forward`, without prompt scores."""
        raise NotImplementedError

    def score_prompts(self, features: ImageFeatures, output: Any) -> Tensor:
        """Return (B, K): the image score with each abnormality prompt alone."""
        score: Tensor = output.score
        return score[:, None]

    def loss(self, output: Any, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name; their sum is minimised.

        `output` is from `forward`; `label` is (B,) int64, 1 anomalous; `mask` is
        (B, image_size, image_size) float, 1 where anomalous. TypeError if nothing learns.
        """
        raise TypeError(f"{self.name!r} has no parameters to train.")

    def begin_training(self, class_names: Sequence[str]) -> None:
        """Prepare for training; `class_names` are the dataset's, each once, sorted.

        It is called once before the first step. Pictures without a class have the name "".
        """

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Prepare for an epoch, counted from 0, of so many; also called when one is resumed.

        A method that learns in stages sets `requires_grad` of its parameters here.
        """

    def explain(self, features: ImageFeatures, output: Any) -> MethodParts:
        """Return the parts of an output of `forward` on these features."""
        return MethodParts()

    @property
    def learns(self) -> bool:
        """Whether any parameter moves."""
        return any(True for _ in self.parameters())


class ClassNameMethod(Method):
    """A method with class names; its config has `class_word` and `use_class_names`.

    A dataset names the class of its pictures. Other pictures, and all pictures with
    `use_class_names=false`, show `class_word`.
    """

    config: Any  # of two families, which share these two options and no base
    shared_names: ClassVar[Mapping[str, str]] = {}  # of a dataset's folders of one product
    raw_class_names: bool = False  # as a dataset has them, "metal_nut" or "01", not in words

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.uses_class_names = config.use_class_names

    def name_classes(self, class_names: Names, count: int, *, shared: bool = True) -> list[str]:
        """Return in words what each of `count` pictures shows; `shared` applies `shared_names`.

        One name counts for all pictures.
        """
        asked = class_names if self.config.use_class_names else None
        word, raw = self.config.class_word, self.raw_class_names
        names = display_names(asked, count, otherwise=word, raw=raw)
        if shared:
            names = [self.shared_names.get(name, name) for name in names]
        return names * count if len(names) == 1 < count else names

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Turn a word without a token into a ConfigError."""
        try:
            yield
        except ValueError as error:
            raise ConfigError(
                f"{self.name}: {error} Choose another class_word; or set use_class_names=false, "
                f"and every picture shows {self.config.class_word!r}."
            ) from error


def number_classes(
    known: Sequence[str], class_names: Names, *, each: str, nothing: str, advice: str
) -> list[int]:
    """Return the index of each name in `known`; a single known class needs no name.

    `each`, `nothing` and `advice` are parts of the errors, such as "patchcore has a model for
    each", "patchcore has learned nothing" and what to do about unknown names.

    Raises:
        ConfigError: a class is unknown, or not named although there are several.
    """
    shown = ", ".join(known[:_NAMES_SHOWN]) + (", ..." if len(known) > _NAMES_SHOWN else "")
    if class_names is None and len(known) > 1:
        raise ConfigError(
            f"{each} of {len(known)} classes and was not told "
            f"which these pictures show; say it by --class-name. Known: {shown}."
        )
    names = [known[0]] if class_names is None else list(class_names)
    strange = sorted(set(names) - set(known))
    if strange:
        raise ConfigError(
            f"{nothing} of {', '.join(strange)}; known: {shown}. {advice}, "
            "or say by --class-name which of these they are."
        )
    return [known.index(name) for name in names]


def group_rows(numbers: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
    """Return the rows of each number, and the order that sorts the joined groups back.

    Example:
        >>> rows, order = group_rows([1, 0, 1])
        >>> [each.tolist() for each in rows.values()], order.tolist()
        ([[1], [0, 2]], [1, 0, 2])
    """
    every = torch.tensor(numbers)
    rows = {number: (every == number).nonzero()[:, 0] for number in sorted(set(numbers))}
    return rows, torch.cat(list(rows.values())).argsort()


def take_rows(features: ImageFeatures, rows: Tensor) -> ImageFeatures:
    """Return the class tokens, patches and windows of some pictures of a batch."""
    rows = rows.to(features.class_token.device)
    patches, windows = (
        {key: tokens[rows] for key, tokens in held.items()}
        for held in (features.patch_tokens, features.windows)
    )
    return ImageFeatures(features.class_token[rows], patches, features.grid, windows)
