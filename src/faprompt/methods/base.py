"""What a method is: image tokens in, scores and patch maps out, by one forward.

Training, evaluation, export and serving all call `Method.forward`. A method that learns
adds `loss`; its parameters are exactly the ones that move. The backbone is not part of
the method and never saved with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import DEFAULT_OPTIONS, ImageFeatures, ImageOptions
from faprompt.config import Count, check_fields
from faprompt.imaging.image_reading import PictureHandling

Kind = Literal["training-free", "learned", "full-shot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodConfig:
    """Options every method has: what it sees and how its map is finished."""

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
        """Return in words which fields contradict each other; children override it."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodOutput:
    """A method's word on a batch.

    score: (B,) in 0..1. patch_map: (B, rows, columns) in 0..1, before smoothing; of the
    grid, or of the pixels where a method does not upsample as others do.
    prompt_scores: (B, K), one per abnormality prompt, on request.
    """

    score: Tensor
    patch_map: Tensor
    prompt_scores: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTerm:
    """A summand of the score: weight times value (B,); weight 0 where it takes no part."""

    name: str
    weight: float
    value: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodParts:
    """What one forward was made of, as far as the method tells; empty where it does not.

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
    """The summands where the class token alone makes the score."""
    peak = output.patch_map.amax(dim=(1, 2))
    return (
        ScoreTerm(name="class token", weight=1.0, value=output.score),
        ScoreTerm(name="maximum of the map", weight=0.0, value=peak),
    )


def within_depth(layers: Sequence[int], depth: int) -> None:
    """Refuse an option `map_layers` that names blocks a tower does not have.

    Raises:
        ValueError: one lies outside 1..depth.
    """
    if any(not 1 <= layer <= depth for layer in layers):
        raise ValueError(f"map_layers should lie in 1..{depth}, got {layers}")


class Method(nn.Module):
    """Base of all methods. Children set `name`, `config_class` and write `forward`."""

    name: ClassVar[str]
    config_class: ClassVar[type[MethodConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}
    backbones: ClassVar[Mapping[str, str]] = {}  # preset -> its own, where not ViT-L-14-336
    # preset -> options of training by name, where its authors do not train as FAPrompt's do
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    rate_factors: ClassVar[Mapping[str, float]] = {}  # start of a parameter's name -> its share
    staged: ClassVar[bool] = False  # what learns when depends on how many epochs there are
    full_shot: ClassVar[bool] = False  # a model for each class, of its normal pictures; no words

    parameters_at_full_size: ClassVar[ParameterCount] = ParameterCount()  # on ViT-L/14@336

    config: MethodConfig

    @classmethod
    def kind(cls) -> Kind:
        """Return how the method learns, derived from what the class writes.

        "full-shot" where `full_shot` is set, "learned" where the class or a parent writes `loss`,
        else "training-free".
        """
        if cls.full_shot:
            return "full-shot"
        return "training-free" if cls.loss is Method.loss else "learned"

    @property
    def image_options(self) -> ImageOptions:
        """Which tokens of the image tower the method needs."""
        return DEFAULT_OPTIONS

    @property
    def interpolation(self) -> Literal["bicubic", "bilinear"]:
        """The filter that brings pictures to `image_size`."""
        return "bicubic"

    @property
    def keeps_aspect(self) -> bool:
        """Whether only a picture's shorter edge is brought to `image_size`."""
        return False

    @property
    def tiled(self) -> bool:
        """Whether a picture that is not square is seen as overlapping squares."""
        return False

    @property
    def uses_class_names(self) -> bool:
        """Whether `forward` also takes `class_names`, what each picture shows, where known."""
        return False

    @property
    def sigma_px(self) -> float:
        """What `patch_map` is still to be smoothed by, in pixels of `image_size`."""
        return self.config.sigma_px

    @property
    def sources(self) -> tuple[str, ...]:
        """SHA-256 of files that decide a score besides options and weights."""
        return ()

    @classmethod
    def option_sources(cls, config: Any) -> tuple[str, ...]:
        """Those of `sources` that options alone name; known before any weights are loaded.

        Args:
            config: of `config_class`.
        """
        return ()

    def encode_image(self, backbone: Backbone, pixels: Tensor) -> ImageFeatures:
        """Encode (B, 3, H, W) normalised pixels with `image_options`."""
        return backbone.encode_image(pixels, self.image_options)

    def static_text(self, text: TextTower) -> Any:
        """The text side that depends on no image; computed once for inference."""
        raise NotImplementedError

    def forward(
        self,
        features: ImageFeatures,
        text: TextTower,
        *,
        static: Any = None,
        with_prompt_scores: bool = False,
    ) -> MethodOutput:
        """Scores and maps of a batch.

        Args:
            features: from the backbone's image pass.
            text: the backbone's text tower.
            static: what `static_text` gave; None computes it here, with gradients.
            with_prompt_scores: also score the image by each abnormality prompt alone.
        """
        raise NotImplementedError

    def loss(self, output: Any, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Named terms, already weighted; they add up to what is minimised.

        Args:
            output: of `forward` on the same batch.
            label: (B,) int64, 1 anomalous.
            mask: (B, image_size, image_size) float, 1 where anomalous.

        Raises:
            TypeError: the method does not learn.
        """
        raise TypeError(f"{self.name!r} has nothing to train.")

    def begin_training(self, class_names: Sequence[str]) -> None:
        """Training says once, before the first step, what its pictures show.

        Args:
            class_names: as the dataset has them, each once, sorted; "" where nobody says.
        """

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Training asks before the first step of an epoch, and where it goes on within one.

        A method that learns in stages says here, by `requires_grad`, which parameters move.

        Args:
            epoch: counted from 0.
            epochs: of the whole training.
        """

    def explain(self, features: ImageFeatures, output: Any) -> MethodParts:
        """What the output of `forward` on these features was made of; nothing is scored anew."""
        return MethodParts()

    @property
    def learns(self) -> bool:
        """Whether any parameter moves."""
        return any(True for _ in self.parameters())
