"""Base of all methods: image tokens in, scores and patch maps out, by one forward pass.

Training, evaluation, export and serving all call `Method.forward`. A method that learns adds
`loss`; its parameters are exactly the ones that move. The backbone is not part of the method
and is never saved with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import DEFAULT_OPTIONS, ImageFeatures, ImageOptions
from faprompt.config import Count, check_fields
from faprompt.imaging.image_reading import PictureHandling

Kind = Literal["training-free", "learned", "full-shot"]
Filter = Literal["bicubic", "bilinear"]
Table = Mapping[str, Mapping[str, Any]]  # preset -> option -> value
Names = Sequence[str] | None  # what each picture shows, one for each or one for all


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodConfig:
    """Options of every method: what it sees and how its map is finished."""

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
    """A summand of the score, weight times value (B,). Weight 0: it takes no part."""

    name: str
    weight: float
    value: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodParts:
    """What a forward pass was made of; a method leaves empty what it does not have.

    terms: summands of the score. stages: name -> (B, rows, columns) in 0..1, the maps whose
    mean is `patch_map`, in order. prompt_maps: (B, K, rows, columns) in 0..1, `patch_map` with
    each abnormality prompt alone in place of all. selected: (B, M) int64, row-major numbers of
    the patches that fed the prior, best first. normal_tokens (T, width) and abnormal_tokens
    (K, T', width): the learned vectors of the prompts. prior: (B, width), what each picture
    adds to all of `abnormal_tokens`.
    """

    terms: tuple[ScoreTerm, ...] = ()
    stages: Mapping[str, Tensor] = field(default_factory=dict)
    prompt_maps: Tensor | None = None
    selected: Tensor | None = None
    normal_tokens: Tensor | None = None
    abnormal_tokens: Tensor | None = None
    prior: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """live: what moves. reported: as the authors count, unused layers included."""

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
    """Refuse `map_layers` with blocks a tower does not have.

    Raises:
        ValueError: one lies outside 1..depth.
    """
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
        """Compute `MethodOutput` of a batch.

        Args:
            features: from `encode_image`.
            text: the backbone's text tower.
            static: result of `static_text`; None computes it here, with gradients.
            with_prompt_scores: also score the image by each abnormality prompt alone.
            class_names: what each picture shows, one name for each or one for all; only for
                methods with `uses_class_names`.
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

        Args:
            output: of `forward` on the same batch.
            label: (B,) int64, 1 anomalous.
            mask: (B, image_size, image_size) float, 1 where anomalous.

        Raises:
            TypeError: the method does not learn.
        """
        raise TypeError(f"{self.name!r} has no parameters to train.")

    def begin_training(self, class_names: Sequence[str]) -> None:
        """Prepare for training; called once before the first step.

        Args:
            class_names: of the dataset, each once, sorted; "" for pictures without one.
        """

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Prepare for an epoch; called before its first step, also when one is resumed.

        A method that learns in stages sets `requires_grad` of its parameters here.

        Args:
            epoch: counted from 0.
            epochs: of the whole training.
        """

    def explain(self, features: ImageFeatures, output: Any) -> MethodParts:
        """Return the parts of an output of `forward` on these features."""
        return MethodParts()

    @property
    def learns(self) -> bool:
        """Whether any parameter moves."""
        return any(True for _ in self.parameters())
