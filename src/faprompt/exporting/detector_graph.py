"""A detector as one graph of tensors: pixels in; score, map and tokens out.

    pixels (B, 3, H, W) float32     normalised, as `Transform.to_pixels` makes them
    kept (B, N) int64               row of the patch that replaces each one: 0..N-1 where no mask
                                    leaves patches out
    kept_<side> (B, W) int64        the same of windows of side x side patches (WinCLIP)

    score (B,), patch_map (B, rows, columns), class_token (B, D), tokens_<layer> (B, N, D), and
    prompt_scores (B, K) where there is more than one abnormality prompt

What depends on no picture is computed while the graph is made and stored as constants: texts of
the first pass, position tables, words. Text that depends on the picture (the second pass of
FAPrompt, the contexts of CoCoOp and FiLo) is part of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from faprompt.clip.vision import ImageFeatures
from faprompt.detector import Detector
from faprompt.errors import ConfigError, ModelError
from faprompt.methods.base import MethodOutput

KEPT = "kept"
MOST_PICTURES = 1024  # of one batch
_TRACED_PICTURES = 3  # a trace may take 1 or 2 for constants
_CHANGES_NO_VALUE = (torch.ops.aten.detach_.default,)  # of `torch.tensor` in a trace
_LARGEST_CONSTANT = 1 << 26  # bytes of one that is computed while the graph is made


class DetectorGraph(nn.Module):
    """A detector without pictures: the numbers are those of `Detector.run_model`.

    Raises:
        ConfigError: the detector has no graph of a fixed size; the message has the reason.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        _check_exportable(detector)
        self.detector = detector
        self.modules_of_detector = nn.ModuleList([detector.backbone, detector.method])
        with torch.no_grad():
            self._static = detector.method.static_text(detector.backbone.text)
            features, output = self._run(self.example_pixels(1), {})
        patches = features.grid[0] * features.grid[1]
        windows = {f"{KEPT}_{side}": t.shape[1] for side, t in features.windows.items() if side > 1}
        replaced = features.patch_tokens and not detector.method.stacks_squares
        prompts = 0 if output.prompt_scores is None else output.prompt_scores.shape[1]
        self.kept_rows: dict[str, int] = {KEPT: patches, **windows} if replaced else {}
        self.layers = tuple(sorted(features.patch_tokens))
        self.grid = features.grid
        self.has_prompts = prompts > 1

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return ("pixels", *self.kept_rows)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        tokens = (f"tokens_{layer}" for layer in self.layers)
        prompts = ("prompt_scores",) if self.has_prompts else ()
        return ("score", "patch_map", "class_token", *tokens, *prompts)

    def example_pixels(self, count: int) -> Tensor:
        """Return drawn pixels (count, 3, H, W) of the model's size."""
        draw = torch.Generator().manual_seed(0)
        return torch.randn(count, 3, *self.detector.transform.image_size, generator=draw)

    def example_inputs(self, count: int) -> tuple[Tensor, ...]:
        """Return inputs of `count` pictures without masks."""
        kept = (torch.arange(rows).repeat(count, 1) for rows in self.kept_rows.values())
        return (self.example_pixels(count), *kept)

    def forward(self, pixels: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs, in the order of `output_names`, from the inputs."""
        features, output = self._run(pixels, dict(zip(self.kept_rows, kept, strict=True)))
        tokens = (features.patch_tokens[layer] for layer in self.layers)
        prompts = (cast(Tensor, output.prompt_scores),) if self.has_prompts else ()
        return (output.score, output.patch_map, features.class_token, *tokens, *prompts)

    def _run(
        self, pixels: Tensor, kept: Mapping[str, Tensor]
    ) -> tuple[ImageFeatures, MethodOutput]:
        features = self.detector.encode_image(pixels)
        if kept:
            windows = {
                side: _take(tokens, kept[KEPT if side == 1 else f"{KEPT}_{side}"])
                for side, tokens in features.windows.items()
            }
            tokens = {k: _take(each, kept[KEPT]) for k, each in features.patch_tokens.items()}
            features = replace(features, patch_tokens=tokens, windows=windows)
        return features, self.detector.score_features(
            features, static=self._static, with_prompt_scores=True
        )


def _check_exportable(detector: Detector) -> None:
    method, backbone = detector.method, detector.backbone
    if method.export_obstacle:
        raise ConfigError(f"{detector.name} cannot be exported: {method.export_obstacle}.")
    if backbone.precision != "fp32" or backbone.device.type != "cpu":
        raise ConfigError(
            f"An export begins at fp32 on the CPU, and {detector.name} is at {backbone.precision} "
            f"on {backbone.device}; load it with device='cpu' and precision='fp32'."
        )


def trace(graph: DetectorGraph) -> ExportedProgram:
    """Trace a graph with a free number of pictures; its constants are computed now.

    Raises:
        ModelError: torch cannot trace it.
    """
    batch, examples = Dim("batch", min=1, max=MOST_PICTURES), graph.example_inputs(_TRACED_PICTURES)
    free = {0: batch}
    graph = graph.eval().requires_grad_(False)
    try:
        with torch.no_grad():
            program = torch.export.export(
                graph, examples, dynamic_shapes=(free, tuple(free for _ in examples[1:]))
            )
            folded = fold_constants(program.module(check_guards=False))
            program = torch.export.export(
                folded, examples, dynamic_shapes=tuple(free for _ in examples)
            )
            return program.run_decompositions({torch.ops.aten.group_norm.default: _group_norm})
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{graph.detector.name} cannot be exported: torch cannot trace it ({reason})."
        ) from error


def _group_norm(
    values: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5, _: bool = True
) -> Tensor:
    """Normalise groups of channels of (B, C, H, W), with means taken in two steps.

    ONNX has no group norm, and onnxruntime sums all values of its instance norm in one float32:
    on pictures of little contrast tokens were off by 1e-3, with two steps by 1e-5.
    """
    rows = values.reshape(values.shape[0], groups, -1, values.shape[-1])
    centred = rows - rows.mean(dim=-1, keepdim=True).mean(dim=-2, keepdim=True)
    variance = (centred * centred).mean(dim=-1, keepdim=True).mean(dim=-2, keepdim=True)
    whole = (centred / (variance + eps).sqrt()).reshape(values.shape)
    return whole * weight[:, None, None] + bias[:, None, None]


def fold_constants(module: fx.GraphModule) -> fx.GraphModule:
    """Replace what depends on no input by its value; returns the module, which is changed.

    Weights that nothing else needs, such as a text tower's, leave the graph with it. A graph that
    writes over such a value stays as it is.
    """
    nodes = list(module.graph.nodes)
    values: dict[fx.Node, Any] = {}
    for node in nodes:
        if node.op == "get_attr":
            values[node] = _attribute(module, str(node.target))
        elif _writes_in_place(node):
            if node.args[0] in values:
                return module  # a value that is written over is no constant
        elif node.op == "call_function" and all(each in values for each in node.all_input_nodes):
            found = _evaluate(node, values)
            if _is_small(found):
                values[node] = found
    for number, node in enumerate(nodes):
        needed = any(user not in values for user in node.users)
        if node.op == "call_function" and isinstance(values.get(node), Tensor) and needed:
            name = f"constant_{number}"
            module.register_buffer(name, values[node].detach().clone())
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(module.graph.get_attr(name))
    for node in reversed(nodes):
        if node in values and not node.users:
            module.graph.erase_node(node)
    module.recompile()
    return module


def _writes_in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or node.target in _CHANGES_NO_VALUE:
        return False
    return bool(schema.is_mutable)


def _attribute(module: nn.Module, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _evaluate(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda each: values[each])
    return cast(Any, node.target)(*args, **kwargs)


def _is_small(value: Any) -> bool:
    return not isinstance(value, Tensor) or value.nbytes <= _LARGEST_CONSTANT


def _take(tokens: Tensor, rows: Tensor) -> Tensor:
    """Return (B, N, D) tokens at (B, N) rows of each picture."""
    return tokens.gather(1, rows[..., None].expand_as(tokens))
