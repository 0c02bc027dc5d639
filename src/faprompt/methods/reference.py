"""The authors' checkpoints: `{"prompt_learner": state dict}` into our parameter names.

Both files carry tensors that no forward pass reads: eight `compound_prompt_projections`
layers left over from MaPLe, and token buffers (prefix, suffix, tokenised prompts) that
follow from the backbone. They are recognised and left behind; anything else unknown is
an error, and so is anything missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.errors import ModelError

_DEAD = re.compile(
    r"^(compound_prompt_projections\.|token_(prefix|suffix)|tokenized_prompts|meta_net\.unused)"
)


@dataclass(frozen=True, slots=True)
class ReferenceState:
    """Our parameters and the options their shapes imply; `left_behind` names dead tensors."""

    state: dict[str, Tensor]
    options: dict[str, int]
    left_behind: tuple[str, ...]


def read_faprompt(reference: Mapping[str, Tensor]) -> ReferenceState:
    """FAPrompt's prompt learner (FAPrompt.py) under our names.

    Raises:
        ModelError: missing, unknown or misshapen tensors, all named.
    """
    live, dead = _split(reference)
    deep = _take_deep(live)
    normal, abnormal = _take(live, "ctx_pos", 4), _take(live, "ctx_neg", 4)
    state = {
        "prompts.normal_context": normal[0, 0],
        "prompts.abnormal_tokens": abnormal[0],
        "prompts.deep_prompts": deep,
    }
    for layer in ("linear1", "linear2"):
        for kind, dims in (("weight", 2), ("bias", 1)):
            state[f"prior.{layer}.{kind}"] = _take(live, f"patch_meta_net.{layer}.{kind}", dims)
    _refuse_rest(live)
    psi_input = state["prior.linear1.weight"].shape[1]
    options = {
        "prompts": abnormal.shape[1],
        "normal_tokens": normal.shape[2],
        "abnormal_tokens": abnormal.shape[2],
        "deep_depth": len(deep) + 1,
        "deep_length": deep.shape[1],
        "patches": psi_input,  # tokens x channels; `with_embed_dim` divides
    }
    return ReferenceState(state, options, dead)


def read_anomalyclip(reference: Mapping[str, Tensor]) -> ReferenceState:
    """AnomalyCLIP's prompt learner (prompt_ensemble.py) under our names.

    Raises:
        ModelError: missing, unknown or misshapen tensors, all named.
    """
    live, dead = _split(reference)
    deep = _take_deep(live)
    normal, abnormal = _take(live, "ctx_pos", 4), _take(live, "ctx_neg", 4)
    _refuse_rest(live)
    state = {
        "normal_context": normal[0, 0],
        "abnormal_context": abnormal[0, 0],
        "deep_prompts": deep,
    }
    options = {
        "context_tokens": normal.shape[2],
        "deep_depth": len(deep) + 1,
        "deep_length": deep.shape[1],
    }
    return ReferenceState(state, options, dead)


def _split(reference: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    live = {k: v.float() for k, v in reference.items() if not _DEAD.match(k)}
    return live, tuple(sorted(k for k in reference if _DEAD.match(k)))


def _take(live: dict[str, Tensor], key: str, dims: int) -> Tensor:
    if key not in live:
        raise ModelError(f"The checkpoint lacks {key!r}; it holds {', '.join(sorted(live))}.")
    tensor = live.pop(key)
    if tensor.ndim != dims:
        raise ModelError(f"{key!r} should have {dims} axes, got shape {tuple(tensor.shape)}.")
    return tensor


def _take_deep(live: dict[str, Tensor]) -> Tensor:
    prefix = "compound_prompts_text."
    keys = sorted((k for k in live if k.startswith(prefix)), key=lambda k: int(k[len(prefix) :]))
    if not keys:
        raise ModelError(f"The checkpoint lacks the deep prompts, {prefix}0 and on.")
    return torch.stack([live.pop(key) for key in keys])


def _refuse_rest(live: Mapping[str, Tensor]) -> None:
    if live:
        raise ModelError(
            f"The checkpoint holds tensors this method does not know: {', '.join(sorted(live))}. "
            "Is it another method's? Choose it with --method."
        )
