"""FAPrompt: compound abnormality prompts (CAP) shifted by a data-dependent prior (DAP).

    first pass    F_n, F_a1..F_aK -> mean F_a -> coarse map       (depends on no image)
    prior         M strangest patches, in order -> psi -> Omega   (one vector per image)
    second pass   A + Omega -> F'_a1..F'_aK -> mean F'_a -> refined map
    score         (p + (2 max coarse + max refined) / 3) / 2      p from the class token
    map           (coarse + refined) / 2, smoothed

Paper: Zhu et al., Fine-grained Abnormality Prompt Learning for Zero-shot Anomaly
Detection, ICCV 2025. Facts about the public code are about FAPrompt.py, train.py, test.py and
loss.py of mala-lab/FAPrompt at 7e9d9d2; the implementation is our own.
Each difference between the paper and that code is an option. Preset `paper` sets them as the
paper describes the method, `official` as the code computes it, `first-upload` as the code of
16 July 2025 did; docs/faprompt.md lists them. The modules of the paper's ablation (Tables 15
and 16) are presets too; its Base is method `anomalyclip`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt import losses
from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.config import Count, Positive, Range
from faprompt.methods.base import (
    Method,
    MethodConfig,
    MethodOutput,
    MethodParts,
    Names,
    ParameterCount,
    ScoreTerm,
)
from faprompt.prompts.compound import CompoundPrompts, EncodedPrompts
from faprompt.prompts.prior import (
    AbnormalityPrior,
    RankBy,
    Selection,
    gather_patches,
    select_patches,
)
from faprompt.scoring import (
    CLIP_AD_TEMPERATURE,
    grid_map,
    pair_logits,
    probability_by_prompt,
    unit,
)

BEFORE, AFTER = "before the prior", "after the prior"  # names of both maps
DEAD_PROJECTION_WIDTH = 896  # MaPLe's leftover layers, in every reference checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class FAPromptConfig(MethodConfig):
    """All constants of FAPrompt.

    Sources: [B.1] is that section of the paper's appendix, [C] the public code (see above).
    """

    sigma_px: float = 10.0  # [B.1], [C]
    prompts: Count = 10  # K [B.1]
    normal_tokens: Count = 5  # E [B.1]
    abnormal_tokens: Count = 2  # E' [B.1]
    patches: Count = 10  # M [B.1]
    refine: bool = True  # DAP's prior and second pass; False is CAP alone, tables 15 and 16
    deep_depth: Count = 9  # layers 2..9 are written, "the first 9 layers" [B.1]
    deep_length: Count = 4  # t [B.1]
    class_word: str = "object"  # [C]
    abnormal_word: str = "damaged"  # [C]
    temperature: Positive = CLIP_AD_TEMPERATURE  # [C]
    # of the two map maxima in the image score [C]
    coarse_share: Annotated[float, Range(low=0, high=1)] = 2 / 3
    selection: Selection = "topk"  # Algorithm 1, step 9; "first" in train.py and test.py
    rank_by: RankBy = "similarity"  # Algorithm 1, step 9; "probability" in train.py and test.py
    image_cross_entropy: bool = False  # train.py adds it to the focal term
    focal_as_logit: bool = False  # loss.py, FocalLoss_img, puts the score through a sigmoid again
    round_deep_to_half: bool = False  # the code rounds D to fp16 where it is inserted
    coarse_weight: float = 1.0  # of the local losses [C]
    refined_weight: float = 0.5  # [C]
    orthogonal_weight: float = 0.1  # [C]
    prior_weight: float = 1.0  # [C]
    # where deep_length is above normal_tokens; the code overwrites the words behind them
    long_deep_prompts: Literal["refuse", "overwrite"] = "refuse"

    def faults(self) -> list[str]:
        if self.deep_length <= self.normal_tokens or self.long_deep_prompts == "overwrite":
            return []
        return [
            f"deep prompts of length {self.deep_length} would overwrite more than the "
            f"{self.normal_tokens} context tokens; shorten them, or set "
            "long_deep_prompts=overwrite to do as the released code does"
        ]


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},  # the method as described; the defaults above
    "official": {  # what the newest public code computes
        "selection": "first",
        "rank_by": "probability",
        "image_cross_entropy": True,
        "focal_as_logit": True,
        "round_deep_to_half": True,
        "long_deep_prompts": "overwrite",
        "picture_handling": "released",
    },
    # tables 15 and 16; DAP is the prior on a single abnormal prompt
    "cap": {"refine": False},
    "cap-without-oc": {"refine": False, "orthogonal_weight": 0.0},
    "dap": {"prompts": 1},
    "dap-without-prior": {"prompts": 1, "prior_weight": 0.0},
}
# The public code as first uploaded (16 July 2025): one abnormal token a prompt, and the cross
# entropy was logged without a share in the gradient. All else as in `official`.
PRESETS["first-upload"] = PRESETS["official"] | {"abnormal_tokens": 1, "image_cross_entropy": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class FAPromptOutput(MethodOutput):
    """All values of one forward pass, for the loss and `explain`.

    image_logits (B, 2) before softmax; coarse, refined (B, rows, columns); prior (B, width);
    selected (B, M) patch indices; normal_text (D,); abnormal_text (K, D) of the first pass;
    refined_text (B, K, D); text_pair (B, 2, D), unit length. Without refinement the second
    pass repeats the first: nothing is selected, and the prior is 0.
    """

    image_logits: Tensor
    coarse: Tensor
    refined: Tensor
    prior: Tensor
    selected: Tensor
    normal_text: Tensor
    abnormal_text: Tensor
    refined_text: Tensor
    text_pair: Tensor


def count_parameters(
    config: FAPromptConfig, *, embed_dim: int = 768, text_width: int = 768
) -> ParameterCount:
    """Count the parameters both ways: 4,100,064 and 9,612,256 at the paper's size.

    The difference is (d-1) layers Linear(width, 896) inherited from MaPLe through
    AnomalyCLIP: registered, saved and counted by FAPrompt.py, called by no forward pass.
    """
    hidden = embed_dim * config.patches // 16
    prompt_vectors = config.normal_tokens + config.prompts * config.abnormal_tokens
    deep = config.deep_length * (config.deep_depth - 1)
    psi = (embed_dim * config.patches + 1) * hidden + (hidden + 1) * text_width
    live = text_width * (prompt_vectors + deep) + (psi if config.refine else 0)
    dead = (config.deep_depth - 1) * (text_width + 1) * DEAD_PROJECTION_WIDTH
    return ParameterCount(live=live, reported=live + dead)


class FAPrompt(Method):
    """CAP and DAP on a frozen CLIP."""

    name = "faprompt"
    config_class = FAPromptConfig
    parameters_at_full_size = count_parameters(FAPromptConfig())
    presets: ClassVar = PRESETS
    recipes: ClassVar = {"first-upload": {"epochs": 15}}  # the default of that upload's train.py

    def __init__(self, config: FAPromptConfig, backbone: Backbone) -> None:
        super().__init__()
        available = (config.image_size // backbone.spec.vision.patch_size) ** 2
        if config.refine and available < config.patches:
            raise ValueError(
                f"patches={config.patches} feed the prior, but image_size={config.image_size} "
                f"has only {available}; use a larger image size or fewer patches"
            )
        self.config: FAPromptConfig = config
        self.prompts = CompoundPrompts(
            backbone,
            prompts=config.prompts,
            normal_tokens=config.normal_tokens,
            abnormal_tokens=config.abnormal_tokens,
            deep_depth=config.deep_depth,
            deep_length=config.deep_length,
            class_word=config.class_word,
            abnormal_word=config.abnormal_word,
            round_to_half=config.round_deep_to_half,
        )
        width = backbone.spec.text.width
        self.prior = (
            AbnormalityPrior(backbone.spec.embed_dim, config.patches, width)
            if config.refine
            else None
        )

    def static_text(self, text: TextTower) -> EncodedPrompts:
        """Return the features of the first pass; they depend on no image."""
        return self.prompts.encode(text)

    def score(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> FAPromptOutput:
        config = self.config
        first: EncodedPrompts = self.static_text(text) if static is None else static
        patches = unit(features.patch_tokens[max(features.patch_tokens)])  # (B, N, D)
        normal, prototype = unit(first.normal_text), unit(first.abnormal_text.mean(dim=0))
        logits = pair_logits(
            patches, torch.stack([normal, prototype]), temperature=config.temperature
        )
        coarse = logits.softmax(dim=-1)[..., 1]  # (B, N)
        selected, prior = self._draw_prior(patches, logits[..., 1], coarse)
        refined_text = (
            self.prompts.encode_refined(text, first.prefix, prior)
            if config.refine
            else first.abnormal_text.expand(patches.shape[0], -1, -1)
        )  # (B, K, D)
        refined_prototype = unit(refined_text.mean(dim=1))
        pair = torch.stack([normal.expand_as(refined_prototype), refined_prototype], dim=1)
        refined = pair_logits(patches, pair, temperature=config.temperature).softmax(-1)[..., 1]
        image_logits = pair_logits(
            features.class_token[:, None], pair, temperature=config.temperature
        )[:, 0]
        return FAPromptOutput(
            score=self._image_score(image_logits.softmax(dim=-1)[:, 1], coarse, refined),
            patch_map=grid_map((coarse + refined) / 2, features.grid),
            image_logits=image_logits,
            coarse=grid_map(coarse, features.grid),
            refined=grid_map(refined, features.grid),
            prior=prior,
            selected=selected,
            normal_text=first.normal_text,
            abnormal_text=first.abnormal_text,
            refined_text=refined_text,
            text_pair=pair,
        )

    def loss(self, output: FAPromptOutput, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms; see `Method.loss`.

        "local" is focal and Dice of both maps, "image_focal" the focal loss of the score,
        "orthogonal" Eq. 2, "prior" Eq. 5, "image_cross_entropy" of the logits where it is asked
        for. Source: Algorithm 1, steps 5, 13, 17 and 18; forms and weights: train.py, loss.py.
        """
        config = self.config
        terms = {
            "local": config.coarse_weight * losses.upsampled_local_loss(output.coarse, mask),
            "image_focal": losses.score_focal(output.score, label, as_logit=config.focal_as_logit),
            "orthogonal": config.orthogonal_weight * losses.orthogonality(output.abnormal_text),
        }
        if config.refine:
            refined = losses.upsampled_local_loss(output.refined, mask)
            terms["local"] = terms["local"] + config.refined_weight * refined
            terms["prior"] = config.prior_weight * losses.prior_penalty(output.prior, label)
        if config.image_cross_entropy:
            terms["image_cross_entropy"] = F.cross_entropy(output.image_logits, label)
        return terms

    def explain(self, features: ImageFeatures, output: FAPromptOutput) -> MethodParts:
        """Return the class token's chance, both maxima and maps, psi's patches and vector."""
        chance = output.image_logits.softmax(dim=-1)[:, 1]
        peaks = [grid.amax(dim=(1, 2)) for grid in (output.coarse, output.refined)]
        share = self.config.coarse_share
        rows = [("class token", 1.0, chance), ("maximum of the map", 1.0, peaks[0])]
        if self.config.refine:
            rows[1:] = [
                ("maximum of the map before the prior", share, peaks[0]),
                ("maximum of the map after it", 1 - share, peaks[1]),
            ]
        alone = self._maps_by_prompt(features, output)
        refined = self.config.refine
        return MethodParts(
            terms=tuple(ScoreTerm(name=n, weight=w / 2, value=v) for n, w, v in rows),
            stages={BEFORE: output.coarse, AFTER: output.refined} if refined else {},
            prompt_maps=grid_map((alone[0] + alone[1]) / 2, features.grid),
            selected=output.selected if refined else None,
            normal_tokens=self.prompts.normal_context,
            abnormal_tokens=self.prompts.abnormal_tokens,
            prior=output.prior if refined else None,
        )

    def _draw_prior(
        self, patches: Tensor, similarity: Tensor, coarse: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the selected patches (B, M) and the prior psi computes from them (B, width)."""
        config = self.config
        if self.prior is None:
            nothing = torch.empty(patches.shape[0], 0, dtype=torch.int64, device=patches.device)
            return nothing, patches.new_zeros(patches.shape[0], self.prompts.width)
        selected = select_patches(
            similarity,
            coarse,
            count=config.patches,
            selection=config.selection,
            rank_by=config.rank_by,
        )
        return selected, self.prior(gather_patches(patches, selected))

    def _image_score(self, probability: Tensor, coarse: Tensor, refined: Tensor) -> Tensor:
        """Combine (...,) chances and (..., N) maps; the maxima weigh 2:1 (test.py)."""
        share = self.config.coarse_share
        peak = share * coarse.amax(dim=-1) + (1 - share) * refined.amax(dim=-1)
        return (probability + peak) / 2

    def score_prompts(self, features: ImageFeatures, output: FAPromptOutput) -> Tensor:
        """Score the image with one abnormality prompt in place of the prototype (ours)."""
        image = probability_by_prompt(
            features.class_token[:, None], output.normal_text, output.refined_text,
            temperature=self.config.temperature,
        )[..., 0]  # fmt: skip
        return self._image_score(image, *self._maps_by_prompt(features, output))

    def _maps_by_prompt(
        self, features: ImageFeatures, output: FAPromptOutput
    ) -> tuple[Tensor, Tensor]:
        """(B, K, N) of both passes: each abnormality prompt in place of the prototype."""
        patches = unit(features.patch_tokens[max(features.patch_tokens)])
        chances = partial(
            probability_by_prompt, patches, output.normal_text,
            temperature=self.config.temperature,
        )  # fmt: skip
        return chances(output.abnormal_text), chances(output.refined_text)
