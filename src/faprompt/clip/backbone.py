"""Build a frozen CLIP: image tower, text tower, tokenizer and the fingerprint of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from faprompt.clip.int8_linear import check_int8
from faprompt.clip.spec import BackboneSpec
from faprompt.clip.tensor_files import state_faults
from faprompt.clip.text import TextTower
from faprompt.clip.tokens import Tokenizer
from faprompt.clip.transformer import CLIP
from faprompt.clip.vision import DEFAULT_OPTIONS, ConvStem, ImageFeatures, ImageOptions, VisionTower
from faprompt.errors import ConfigError, ModelError

Precision = Literal["fp32", "bf16", "fp16", "int8"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = (*DTYPES, "int8")


class Backbone(nn.Module):
    """Hold both towers of one CLIP or BLIP, frozen: no parameter has a gradient.

    `precision` is that of the image tower's matrices; sums, norms, projections and the text
    tower stay in float32. `logit_scale` is CLIP's log temperature, which no tower reads.
    """

    logit_scale: Tensor

    def __init__(
        self,
        spec: BackboneSpec,
        vision: VisionTower,
        text: TextTower,
        tokenizer: Tokenizer,
        *,
        logit_scale: Tensor,
        name: str,
    ) -> None:
        super().__init__()
        self.name = name
        self.spec = spec
        self.vision = vision
        self.text = text
        self.tokenizer = tokenizer
        self.register_buffer("logit_scale", logit_scale.detach().clone(), persistent=False)
        self.precision: Precision = "fp32"
        self._fingerprint: tuple[list[tuple[int, int]], str] = ([], "")
        self.requires_grad_(False)
        self.eval()

    def set_precision(self, precision: Precision) -> Backbone:
        """Convert the image tower's matrices to a precision, and return self.

        int8 multiplies matrices in 8 bits (see `int8_linear`) and attends in float32.

        Raises:
            ValueError: an unknown precision, or the weights are rounded already.
            ConfigError: int8 on a device other than a CPU, or for a convolutional network.
        """
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision should be one of {', '.join(PRECISIONS)}, got {precision!r}."
            )
        if precision == self.precision:
            return self
        if self.precision != "fp32":
            raise ValueError(
                f"These weights were rounded to {self.precision} already; "
                f"load the backbone again for {precision}."
            )
        if precision == "int8":
            self._check_int8()
        self.state_fingerprint()  # computed before the weights are rounded
        if precision == "int8":
            self.vision.use_int8()
        else:
            self.vision.set_compute_dtype(DTYPES[precision])
        self.precision = precision
        return self

    def _check_int8(self) -> None:
        if not isinstance(self.vision, VisionTower):
            raise ConfigError(
                f"precision int8 is for vision transformers; {self.name} is a convolutional "
                "network: use fp32."
            )
        check_int8(self.device)

    @property
    def has_text(self) -> bool:
        """True if there is a text tower; methods that compare images with text need one."""
        return self.spec.text.layers > 0

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.logit_scale.device

    def encode_image(
        self, pixels: Tensor, options: ImageOptions = DEFAULT_OPTIONS
    ) -> ImageFeatures:
        """Encode a batch of images; see `VisionTower.forward`."""
        return self.vision(pixels.to(self.device), options)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (N, D) features of plain sentences, not normalised.

        Raises:
            TypeError: there is no text tower.
        """
        if not self.has_text:
            raise TypeError(f"{self.name} has no text tower.")
        return self.text.encode_tokens(self.tokenizer(texts).to(self.device))

    def state_fingerprint(self) -> str:
        """Return the SHA-256 of the activation and all weights, 64 hex digits.

        It covers names, shapes and float32 values, so it is the same for any file format,
        device and `precision`. A model folder stores it to name the backbone it was trained
        on. The value is cached until a weight changes.
        """
        state = self.state_dict()
        stamps = [(t.data_ptr(), -1 if t.is_inference() else t._version) for t in state.values()]
        if self.precision == "fp32" and stamps != self._fingerprint[0]:
            digest = hashlib.sha256(b"quick_gelu" if self.spec.quick_gelu else b"")
            for key, tensor in sorted(state.items()):
                digest.update(f"{key}{tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
            self._fingerprint = (stamps, digest.hexdigest())
        return self._fingerprint[1]


def build_clip(spec: BackboneSpec) -> CLIP:
    """Return both towers of this spec with random weights, in float32."""
    clip = CLIP(spec)
    if spec.vision.stem_strides:
        clip.visual.conv1 = ConvStem(spec.vision)
    return clip


def build_backbone(
    spec: BackboneSpec, state: dict[str, Tensor] | None = None, *, name: str
) -> Backbone:
    """Build a backbone from a spec and a state dict under OpenAI's key names.

    Without a state dict the weights are random.

    Raises:
        ModelError: the spec cannot be built, or the weights do not fit (see `load_strictly`).
    """
    if faults := spec.faults():
        raise ModelError(f"No CLIP can be built for {name!r}: {'; '.join(faults)}.")
    if state is None:
        clip = build_clip(spec)
    else:
        with torch.device("meta"):  # no random weights that are overwritten at once
            clip = build_clip(spec)
        load_strictly(clip, state, name)
    return Backbone(
        spec,
        VisionTower(clip.visual, spec.vision),
        TextTower(clip, spec.text),
        Tokenizer(spec.vocabulary, context_length=spec.text.context_length),
        logit_scale=clip.logit_scale,
        name=name,
    )


def load_strictly(module: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load float32 copies of the weights into a module built on the meta device.

    Raises:
        ModelError: keys are missing, unknown, of another shape, not floating-point numbers,
            or not finite; they are named.
    """
    if faults := state_faults(module.state_dict(), state):
        raise ModelError(f"The weights of {name!r} do not fit. {'; '.join(faults)}.")
    copies = {
        key: tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for key, tensor in state.items()
    }
    module.load_state_dict(copies, assign=True)
