"""A frozen CLIP: image tower, text tower, tokenizer and the fingerprint of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from faprompt.clip._open_clip import open_clip_module
from faprompt.clip.spec import BackboneSpec
from faprompt.clip.text import TextTower
from faprompt.clip.tokens import Tokenizer
from faprompt.clip.vision import ConvStem, ImageFeatures, VisionTower

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Backbone(nn.Module):
    """Both towers of one CLIP. Built frozen: no parameter asks for a gradient.

    `precision` concerns the matrices of the image tower, where the time goes. Sums, norms,
    projections and the whole text tower stay in float32.
    """

    def __init__(self, clip: nn.Module, spec: BackboneSpec, *, name: str) -> None:
        super().__init__()
        self.name = name
        self.spec = spec
        self.vision = VisionTower(clip.visual, spec.vision)
        self.text = TextTower(clip, spec.text)
        self.tokenizer = Tokenizer(spec.vocabulary, context_length=spec.text.context_length)
        self.precision: Precision = "fp32"
        self.requires_grad_(False)
        self.eval()

    def set_precision(self, precision: Precision) -> Backbone:
        """Hold the image tower's matrices as fp32, bf16 or fp16. Returns self.

        Raises:
            ValueError: another word.
        """
        if precision not in DTYPES:
            raise ValueError(f"precision should be one of {', '.join(DTYPES)}, got {precision!r}.")
        self.vision.set_compute_dtype(DTYPES[precision])
        self.precision = precision
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.text.positional_embedding.device

    def encode_image(
        self,
        pixels: Tensor,
        *,
        layers: Sequence[int] | None = None,
        value_path: bool = True,
        class_ln_post: bool = False,
    ) -> ImageFeatures:
        """One image pass; see `VisionTower.forward`."""
        return self.vision(
            pixels.to(self.device),
            layers=layers,
            value_path=value_path,
            class_ln_post=class_ln_post,
        )

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(N, D) features of plain sentences, not normalised."""
        return self.text.encode_tokens(self.tokenizer(texts).to(self.device))

    def state_fingerprint(self) -> str:
        """SHA-256 over names, shapes and float32 values of all weights; 64 hex digits.

        The same for any file format and precision-preserving copy, so a model folder can
        say which backbone it was trained on.
        """
        digest = hashlib.sha256()
        for key, tensor in sorted(self.state_dict().items()):
            digest.update(f"{key}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def build_clip(spec: BackboneSpec) -> Any:
    """An open_clip `CLIP` of this spec with drawn weights, in float32."""
    clip = open_clip_module().model.CLIP(**spec.open_clip_config())
    if spec.vision.stem_strides:
        clip.visual.conv1 = ConvStem(spec.vision)
    return clip


def build_backbone(
    spec: BackboneSpec, state: dict[str, Tensor] | None = None, *, name: str
) -> Backbone:
    """A backbone from a spec and, usually, a state dict under OpenAI's key names.

    Raises:
        ModelError: keys are missing, left over, or of another shape; all are named.
    """
    clip = build_clip(spec)
    if state is not None:
        _load_strictly(clip, state, name)
    return Backbone(clip, spec, name=name)


def _load_strictly(clip: nn.Module, state: dict[str, Tensor], name: str) -> None:
    from faprompt.errors import ModelError

    wanted = {key: tensor.shape for key, tensor in clip.state_dict().items()}
    missing = sorted(set(wanted) - set(state))
    unknown = sorted(set(state) - set(wanted))
    clash = [
        f"{key} is {tuple(state[key].shape)}, wanted {tuple(wanted[key])}"
        for key in sorted(set(wanted) & set(state))
        if state[key].shape != wanted[key]
    ]
    faults = [
        *(["missing: " + ", ".join(missing[:12])] if missing else []),
        *(["unknown: " + ", ".join(unknown[:12])] if unknown else []),
        *clash[:12],
    ]
    if faults:
        raise ModelError(f"The weights of {name!r} do not fit. " + "; ".join(faults))
    clip.load_state_dict({key: tensor.float() for key, tensor in state.items()})
