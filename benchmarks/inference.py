"""Inference speed: the naive way and ours, side by side in one process.

    python -m benchmarks.inference                ViT-L/14@336 size, 518x518, drawn weights
    python -m benchmarks.inference --small        the same road in seconds, to see it work

One image at a time, as the naive way knows no other. Measured: the whole image the naive
way (fp32), ours in fp32 and in bf16; the text side alone, both ways; how far the scores and
maps are apart. `--images` takes real pictures; without it, drawn ones serve.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import append_csv, machine_record, median_seconds
from benchmarks.naive import encode_prompts, naive_score
from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.spec import BackboneSpec, TextSpec, VisionSpec, spec_from_open_clip
from faprompt.detector import Detector
from faprompt.imaging.image_reading import read_image
from faprompt.imaging.transform import Transform
from faprompt.methods.faprompt import FAPrompt, FAPromptConfig

RESULTS = Path(__file__).parent / "results" / "inference.csv"
SMALL = BackboneSpec(
    embed_dim=64,
    quick_gelu=True,
    vision=VisionSpec(image_size=56, patch_size=14, width=64, layers=4, heads=1),
    text=TextSpec(width=64, layers=4, heads=1),
)


def drawn_backbone(spec: BackboneSpec) -> Backbone:
    """Seeded weights, scaled so that attention is as decided as in a trained tower."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(111)
        backbone = build_backbone(spec, name="drawn")
        for name, weight in backbone.named_parameters():
            if weight.ndim == 2 and "blocks" in name:
                gain = 1.5 if "in_proj" in name else 1.0
                torch.nn.init.normal_(weight, std=gain * weight.shape[1] ** -0.5)
    return backbone


def pictures(paths: list[Path], side: int, count: int) -> Tensor:
    """(count, 3, side, side) normalised pixels of the given pictures, or of drawn ones."""
    transform = Transform(image_size=(side, side))
    if paths:
        arrays = [read_image(path).array for path in paths[:count]]
    else:
        drawn = np.random.default_rng(111).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
        arrays = list(drawn)
    return torch.stack([torch.from_numpy(transform.to_pixels(array)) for array in arrays])


def text_seconds(detector: Detector, method: FAPrompt, repeats: int) -> tuple[float, float]:
    """One image's text side: naive (both passes, 77 positions) and ours (the refined prompts)."""
    backbone = detector.backbone
    static = method.static_text(backbone.text)
    shift = torch.zeros(1, backbone.spec.text.width)
    tokens = method.prompts.abnormal_tokens

    def naive() -> None:
        encode_prompts(backbone, method, tokens)
        encode_prompts(backbone, method, tokens + shift[0])

    with torch.no_grad():
        return (
            median_seconds(naive, repeats),
            median_seconds(
                lambda: method.prompts.encode_refined(backbone.text, static.prefix, shift), repeats
            ),
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--images", type=Path, nargs="*", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compare", type=int, default=4, help="pictures whose scores are compared")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    spec = SMALL if options.small else spec_from_open_clip("ViT-L-14-336", quick_gelu=True)
    side = 70 if options.small else 518
    backbone = drawn_backbone(spec)
    torch.manual_seed(111)
    method = FAPrompt(FAPromptConfig(image_size=side), backbone).requires_grad_(False)
    detector = Detector(backbone, method, name="drawn")
    pixels = pictures(options.images, side, options.compare)
    one = pixels[:1]

    def ours(batch: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            return detector(batch)

    naive_text, our_text = text_seconds(detector, method, options.repeats)
    naive = median_seconds(lambda: naive_score(backbone, method, one), options.repeats)
    fp32 = median_seconds(lambda: ours(one), options.repeats)
    reference = naive_score(backbone, method, pixels)
    exact = [torch.cat(parts) for parts in zip(*(ours(p[None]) for p in pixels), strict=True)]
    backbone.set_precision("bf16")
    bf16 = median_seconds(lambda: ours(one), options.repeats)
    rough = [torch.cat(parts) for parts in zip(*(ours(p[None]) for p in pixels), strict=True)]
    same = bool((rough[0].argsort() == exact[0].argsort()).all())
    row = {
        **machine_record(),
        "size": "small" if options.small else "ViT-L-14-336",
        "pixels": side,
        "threads": options.threads,
        "pictures": "real" if options.images else "drawn",
        "compared": len(pixels),
        "naive_s": naive,
        "fp32_s": fp32,
        "bf16_s": bf16,
        "naive_text_s": naive_text,
        "text_s": our_text,
        "fp32_score_error": float((exact[0] - reference[0]).abs().max()),
        "fp32_map_error": float((exact[1] - reference[1]).abs().max()),
        "bf16_score_error": float((rough[0] - exact[0]).abs().max()),
        "bf16_map_error": float((rough[1] - exact[1]).abs().max()),
        "bf16_same_ranking": same,
        "score_spread": float(exact[0].std()),
        "fp32_ratio": naive / fp32,
        "bf16_ratio": naive / bf16,
        "text_ratio": naive_text / our_text,
    }
    append_csv(RESULTS, row)
    for name, value in row.items():
        print(f"{name:>20}  {value:.4g}" if isinstance(value, float) else f"{name:>20}  {value}")
    print(
        f"naive / ours: fp32 {naive / fp32:.2f}x, bf16 {naive / bf16:.2f}x, "
        f"text {naive_text / our_text:.1f}x"
    )


if __name__ == "__main__":
    main()
