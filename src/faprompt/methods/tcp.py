"""TCP: frozen CLIP's feature of a class, written into the learned prompt half way up.

    F_c       frozen text feature of a hand-made sentence, one each for normal and abnormal
    Z_c       = W2 quickgelu(W1 F_c), four vectors, hidden width D/4
    prompt    [SOT] V1..V4 {class}. and [SOT] V1..V4 damaged {class}.
              positions 1..4 become Z_c before layer 9, so V acts through layers 1..8 only
    loss      cross entropy + 4 (focal + 2 Dice) + 8 (1 - mean cos(T_c, F_c)), the mean over
              both states of all classes of the training set, whatever a batch shows; a name
              that several classes share counts once for each of them

`tcp-v1` takes "This is a photo of {class}." and "... damaged {class}." for F, `tcp-v2` the
mean of all WinCLIP sentences: the two forms of the FAPrompt paper's section C.2, which keeps
the rest of TCP's design. The original has no map; published ones are far above plain tokens,
so `paper` reads V-V patch tokens and adds AnomalyCLIP's local loss; `image-only` leaves the
latter out.

Paper: Yao et al., TCP: Textual-based Class-aware Prompt tuning, CVPR 2024. Public code:
trainers/tcp.py of htyao89/Textual-based_Class-aware_prompt_tuning at bd97bec6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import Injection, TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.config import Count, Range, Weight
from faprompt.methods.anomalyclip import TextPair
from faprompt.methods.base import MethodConfig, Names, ParameterCount, Table
from faprompt.methods.coop import COSINE_RECIPE, ClassPromptConfig, ClassPromptMethod, distinct
from faprompt.prompts import templates
from faprompt.prompts.prompt_parts import MetaNet, SentenceEncoder, encode_prompts, learned_vectors
from faprompt.prompts.templates import StateTexts

REDUCTION = 4  # hidden width of the meta-net is D/4 (trainers/tcp.py)
# trainers/tcp.py and the README, with the batches of the other methods here
RECIPE: Mapping[str, Any] = {**COSINE_RECIPE, "betas": (0.9, 0.999), "eps": 1e-3}
KNOWLEDGE_FORMS = {
    "plain": (("This is a photo of {}.",), (("{}",), ("damaged {}",))),
    "winclip": (templates.WINCLIP_TEMPLATES, templates.WINCLIP_STATES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TCPConfig(ClassPromptConfig):
    """Options of TCP for anomalies, with the plain sentences (TCP_V1)."""

    context_tokens: Count = 4
    normal_word: str = ""
    abnormal_word: str = "damaged"
    knowledge: Literal["plain", "winclip"] = "plain"
    knowledge_weight: Weight = 8.0  # hard-coded in trainers/tcp.py
    knowledge_classes: tuple[str, ...] = ()  # in its loss with the batch's; () all of the set
    # from 1; the last one of a shallower tower
    injection_layer: Annotated[int, Range(low=2)] = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class TCPV2Config(TCPConfig):
    """Options of `tcp-v2`: the whole set of WinCLIP's sentences."""

    knowledge: Literal["plain", "winclip"] = "winclip"


class TCPV1(ClassPromptMethod):
    """Prompts with class knowledge injected."""

    name = "tcp-v1"
    config_class: ClassVar[type[MethodConfig]] = TCPConfig
    parameters_at_full_size = ParameterCount(743_616, 743_616)
    presets: ClassVar[Table] = {"paper": {}, "image-only": {"local_weight": 0.0}}
    recipes: ClassVar[Table] = dict.fromkeys(presets, RECIPE)
    config: TCPConfig
    training_classes: tuple[str, ...] = ()  # of the training set

    def __init__(self, config: TCPConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        text = backbone.spec.text
        self.context = learned_vectors(config.context_tokens, text.width)
        self.injection_layer = min(config.injection_layer, text.layers)
        self.meta_net = MetaNet(
            backbone.spec.embed_dim,
            config.context_tokens * text.width,
            reduction=REDUCTION,
            activation=lambda values: values * torch.sigmoid(1.702 * values),  # CLIP's own
        )
        lines, states = KNOWLEDGE_FORMS[config.knowledge]
        self._known = StateTexts(states, lambda _: lines)

    def begin_training(self, class_names: Sequence[str]) -> None:
        """Keep the classes for the knowledge term of every step."""
        self.training_classes = tuple(class_names)

    def static_text(self, text: TextTower) -> Tensor:
        """Encode (2, D): the pair of `class_word`, not normalised."""
        return self.encode_pairs(text, [self.config.class_word])[0][0]

    def text_pair(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> TextPair:
        """Return each image's pair and, in training, the knowledge term over all classes."""
        if class_names is None and static is not None:
            return TextPair(static)
        asked = [self.config.class_word]
        if class_names is not None:
            asked = self.name_classes(class_names, len(class_names))
        learned = self._knowledge_names(asked, class_names) if static is None else []
        names, places = distinct([*asked, *learned])
        pairs, known = self.encode_pairs(text, names)
        shown = places[0] if class_names is None else places[: len(asked)]
        if not learned:  # inference
            return TextPair(pairs[shown])
        cosines = F.cosine_similarity(pairs, known, dim=-1)[places[len(asked) :]]
        distance = 1 - cosines.mean()
        return TextPair(pairs[shown], terms={"knowledge": self.config.knowledge_weight * distance})

    def _knowledge_names(self, asked: Sequence[str], class_names: Names) -> list[str]:
        """Names of `knowledge_classes`, or of all classes in training, and of others in the batch.

        `asked` is what each picture shows, in words. A name that classes share is repeated.
        """
        whole = self.training_classes if self.training else ()
        names = self.name_classes(self.config.knowledge_classes or whole, 0)
        said = dict(zip(class_names or asked, asked, strict=True))  # each class once
        return [*names, *(name for name in said.values() if name not in names)]

    def encode_pairs(self, text: TextTower, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode T (C, 2, D), not normalised, and frozen CLIP's F (C, 2, D), unit length."""
        words, end = (table.flatten(0, 1) for table in self.encode_words(text, names))
        speaker = SentenceEncoder(text, self._tokenizer)
        known = torch.stack([self._known.pair(speaker, name) for name in names])
        vectors = self.meta_net(known).flatten(0, 1).unflatten(-1, self.context.shape)
        injected = Injection(vectors, self.injection_layer)
        start = text.encode_prefix(self.start_word)
        encoded = encode_prompts(text, start, self.context, words, end, injected)
        return encoded.unflatten(0, (-1, 2)), known


class TCPV2(TCPV1):
    """TCP with the knowledge of WinCLIP's sentences."""

    name = "tcp-v2"
    config_class: ClassVar[type[MethodConfig]] = TCPV2Config
