"""Pictures to results, for any way to run the model: read, cut, score, join, judge.

All of it is numpy and Pillow. `Detector` runs the model with torch, `ExportedDetector` with
another runtime; both inherit everything about pictures, so their results differ by rounding only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter

import numpy as np

from faprompt.config import check_whole_number
from faprompt.detector_parts import (
    OnError,
    Picture,
    as_windows,
    check_arrays,
    check_class_names,
    check_patch_tokens,
    fill_left_out,
    join_results,
    open_picture,
    read_batches,
)
from faprompt.detector_setup import check_mask
from faprompt.errors import ConfigError, ModelError
from faprompt.imaging.map_rendering import render_grid, stretched_rows
from faprompt.imaging.picture_sources import ImageSource
from faprompt.imaging.picture_views import tile_boxes
from faprompt.imaging.picture_windows import PictureWindows
from faprompt.imaging.reading_options import MAX_PIXELS, ReadingOptions, Window
from faprompt.imaging.tiles import TilePlan, join_tile_maps, patch_mask, plan_tiles
from faprompt.picture_model import PictureModel, ScoredBatch
from faprompt.regions import check_threshold, find_regions, marked_regions, verdict
from faprompt.results import AnomalyResult

TILES_AT_ONCE = 8  # in one pass


class PictureDetector(PictureModel):
    """Score pictures of any kind; many threads may share a detector."""

    def predict(
        self,
        image: ImageSource,
        *,
        threshold: float | None = None,
        with_prompt_scores: bool = False,
        bit_depth: int | None = None,
        window: Window | None = None,
        max_pixels: int = MAX_PIXELS,
        product: str | None = None,
    ) -> AnomalyResult:
        """Score one picture: a path, bytes, a PIL image or an array (H, W) or (H, W, 3).

        Args:
            image: the picture.
            threshold: verdict and regions at this score, 0 to 1; default: the calibrated ones,
                or the model's own.
            with_prompt_scores: also return one score per abnormality prompt.
            bit_depth, window, max_pixels: see `read_image`.
            product: whose thresholds and references count, for a model calibrated by product;
                default: the nearest folder of the path that is a product.

        Raises:
            ConfigError: no such product, or a bit depth or window that differs from the
                calibrated one.
            ImageReadError: the picture cannot be read, or its mask does not fit.
            ValueError, TypeError: an option is out of range, or of another type.
        """
        (result,) = self.stream(
            [image],
            threshold=threshold,
            with_prompt_scores=with_prompt_scores,
            bit_depth=bit_depth,
            window=window,
            max_pixels=max_pixels,
            product=product,
        )
        return result

    def stream(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int = 8,
        threshold: float | None = None,
        with_prompt_scores: bool = False,
        bit_depth: int | None = None,
        window: Window | None = None,
        max_pixels: int = MAX_PIXELS,
        product: str | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[AnomalyResult]:
        """Score many pictures batch by batch; results come in order.

        Args:
            images: pictures as `predict` takes them.
            batch_size: pictures scored together.
            threshold, with_prompt_scores, bit_depth, window, max_pixels, product: as in `predict`.
            on_error: for a picture that cannot be read, "raise" returns the results of all
                pictures before it, then raises its error; "skip" leaves it out and logs its
                path and the reason as a warning of `faprompt`.

        Raises:
            ConfigError: as `predict`.
            ImageReadError: a picture cannot be read and `on_error` is "raise".
            ValueError, TypeError: an option is unknown, out of range or of another type.
        """
        check_whole_number("batch_size", batch_size, low=1)
        check_threshold(threshold)
        options = ReadingOptions(bit_depth=bit_depth, window=window, max_pixels=max_pixels)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error should be 'raise' or 'skip', got {on_error!r}.")
        self.setup.reading(options)
        if product is not None:
            self.setup.check_product(product)
        read = partial(open_picture, self.setup, options=options, product=product)

        def results() -> Iterator[AnomalyResult]:
            for batch in read_batches(images, batch_size, on_error, read):
                scored = self.predict_batch(
                    [picture.windows for picture in batch],
                    threshold=threshold,
                    with_prompt_scores=with_prompt_scores,
                    masks=[picture.mask for picture in batch],
                    products=[picture.product for picture in batch],
                )
                for picture, result in zip(batch, scored, strict=True):
                    picture.close()
                    yield replace(result, notes=picture.windows.notes)

        return results()

    def predict_batch(
        self,
        images: Sequence[np.ndarray | PictureWindows],
        *,
        threshold: float | None = None,
        with_prompt_scores: bool = False,
        class_names: Sequence[str] | None = None,
        masks: Sequence[np.ndarray | None] | None = None,
        products: Sequence[str | None] | None = None,
    ) -> list[AnomalyResult]:
        """Score decoded pictures, each (H, W, 3) uint8 RGB of any size.

        Args:
            images: the pictures, in memory or read in parts while they are scored.
            threshold, with_prompt_scores: as in `predict`.
            class_names: what each picture shows, for methods with class names.
            masks: (H, W) bool for each picture, True pixels are left out; default: the setup's.
            products: the product of each picture, for a model calibrated by product.

        Raises:
            ConfigError: no such product.
            ImageReadError: a mask has another size than its picture, or leaves out all of it.
            ModelError: a score is not finite, because the model's values overflow.
            TypeError: a picture is no array.
            ValueError: an array of another shape or dtype, a threshold outside 0 to 1, or not
                one class name for each picture.
        """
        check_threshold(threshold)
        check_arrays(images)
        check_class_names(class_names, len(images))
        names: Sequence[str | None] = class_names or [None] * len(images)
        given = zip(masks or [None] * len(images), products or [None] * len(images), strict=True)
        pictures = [
            self._picture(image, name, mask, product)
            for image, name, (mask, product) in zip(images, names, given, strict=True)
        ]
        plans = [self._plan(picture.size) for picture in pictures]
        whole = [p for p, plan in zip(pictures, plans, strict=True) if plan is None]
        results = self._score_whole(whole, with_prompt_scores)
        return [
            self._judge(
                self._score_tiles(picture, plan, with_prompt_scores) if plan else next(results),
                threshold,
                picture.product,
            )
            for picture, plan in zip(pictures, plans, strict=True)
        ]

    def _picture(
        self,
        image: np.ndarray | PictureWindows,
        class_name: str | None = None,
        mask: np.ndarray | None = None,
        product: str | None = None,
    ) -> Picture:
        """Fill what a mask leaves out, and look up the product."""
        owner, windows = self.setup.check_product(product), as_windows(image)
        mask = self.setup.mask_of(None) if mask is None else mask
        if mask is not None or self.setup.references is not None:
            self._refuse_squares()
        if mask is not None:
            check_mask(mask, windows.image_size)
            windows = fill_left_out(windows, mask)
        return Picture(windows, mask, class_name, owner)

    def _refuse_squares(self) -> None:
        if self.geometry.stacks_squares:
            raise ConfigError(
                f"{self.name} reads a picture as several squares, to whose patches neither masks "
                "nor references fit; build the method with --set squares=false."
            )

    def model_maps(
        self, images: Sequence[np.ndarray], *, class_names: Sequence[str] | None = None
    ) -> list[tuple[float, np.ndarray]]:
        """Return score and map of whole pictures, each map at `model_size`: no mask, no tiles.

        These are the values of the tensor interface, `detector(pixels)`, but for rounding.

        Args:
            images: (H, W, 3) uint8 RGB of any size.
            class_names: what each picture shows, for methods with class names.
        """
        pictures = [Picture(as_windows(image)) for image in images]
        step = 1 if self.geometry.keeps_aspect else max(1, len(images))
        found = []
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            names = None if class_names is None else class_names[part]
            scored = self._run(pictures[part], names, with_prompt_scores=False)
            for picture, score, grid in zip(
                pictures[part], scored.score.tolist(), scored.patch_map, strict=True
            ):
                size = self.model_size(picture.size)
                found.append(
                    (score, render_grid(grid, model_size=size, sigma_px=self.geometry.sigma_px))
                )
        return found

    def image_feature(
        self, image: np.ndarray | PictureWindows, mask: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the class token (D,) of a decoded picture; arguments as in `reference_tokens`."""
        picture = self._picture(image, mask=mask)
        return self.encode_picture(self.model_input(picture.image)).class_token

    def reference_tokens(
        self, image: np.ndarray | PictureWindows, mask: np.ndarray | None = None
    ) -> list[dict[int, np.ndarray]]:
        """Return what a memory of good pictures keeps of one: layer -> (N, D) patch tokens.

        Args:
            image: (H, W, 3) uint8 RGB.
            mask: (H, W) bool, True pixels are left out; default: the setup's.

        Returns:
            The tokens of the whole picture and of each of its tiles, float32, without patches
            that the mask leaves out.

        Raises:
            ConfigError: the method has no patch tokens, or those of several squares.
            ImageReadError: the mask has another size, or leaves out all of the picture.
        """
        self._refuse_squares()
        picture = self._picture(image, mask=mask)
        plan = self._plan(picture.size)
        parts = [picture, *(map(picture.cut, plan.boxes) if plan else ())]
        kept = map(self._kept_tokens, parts)
        return [tokens for tokens in kept if len(next(iter(tokens.values())))]

    def _kept_tokens(self, picture: Picture) -> dict[int, np.ndarray]:
        """Return layer -> (N, D) tokens of the patches of a picture that no mask leaves out."""
        encoded = self.encode_picture(self.model_input(picture.image))
        check_patch_tokens(encoded.patch_tokens)
        if picture.left_out is None:
            return dict(encoded.patch_tokens)
        kept = ~patch_mask(picture.left_out, encoded.grid).ravel()
        return {layer: tokens[kept] for layer, tokens in encoded.patch_tokens.items()}

    def _plan(self, image_size: tuple[int, int]) -> TilePlan | None:
        """Return the tiles of a picture; None if it is scored whole, or as the method does."""
        if self.setup.tiles == "off":
            return None
        plan = plan_tiles(
            image_size, self.setup.tiles, model_size=self.geometry.transform.image_size
        )
        return plan if plan.whole else None

    def _score_whole(
        self, pictures: Sequence[Picture], with_prompt_scores: bool
    ) -> Iterator[AnomalyResult]:
        """Score pictures whole, or as the method's own squares, in as few passes as possible."""
        squares = self.geometry.tiled and self.setup.tiles == "off"
        boxes = [tile_boxes(picture.size, tiled=squares) for picture in pictures]
        tiles = [p.cut(box) for p, places in zip(pictures, boxes, strict=True) for box in places]
        step = 1 if self.geometry.keeps_aspect else len(pictures)  # inputs of a pass have one size
        results: list[AnomalyResult] = []
        for start in range(0, len(tiles), max(1, step)):
            results += self._score(tiles[start : start + step], with_prompt_scores)
        rest = iter(results)
        for picture, places in zip(pictures, boxes, strict=True):
            yield join_results([next(rest) for _ in places], places, picture.size)

    def _score_tiles(
        self, picture: Picture, plan: TilePlan, with_prompt_scores: bool
    ) -> AnomalyResult:
        """Score a picture as tiles and once whole; the highest of these scores counts."""
        size = self.model_size(picture.size)
        (whole,) = self._score([picture], with_prompt_scores, map_size=size)
        scores = [(whole.score, whole.prompt_scores)]

        def tile_maps() -> Iterator[np.ndarray]:
            for start in range(0, len(plan.boxes), TILES_AT_ONCE):
                tiles = [picture.cut(box) for box in plan.boxes[start : start + TILES_AT_ONCE]]
                seen = [tile for tile in tiles if not tile.ignored]
                results = iter(self._score(seen, with_prompt_scores) if seen else ())
                for tile in tiles:
                    if tile.ignored:
                        yield np.zeros(plan.tile_size, np.float32)
                        continue
                    result = next(results)
                    scores.append((result.score, result.prompt_scores))
                    yield result.score_map

        rows = stretched_rows(whole.score_map, picture.size)
        score_map = join_tile_maps(tile_maps(), plan, rows)
        if picture.left_out is not None:
            score_map[picture.left_out] = 0
        score, prompts = max(scores, key=itemgetter(0))
        return replace(
            whole, score=score, prompt_scores=prompts, score_map=score_map, image_size=picture.size
        )

    def _score(
        self,
        pictures: Sequence[Picture],
        with_prompt_scores: bool,
        *,
        map_size: tuple[int, int] | None = None,
    ) -> list[AnomalyResult]:
        """Score pictures in one pass; the results have no verdict yet.

        `map_size` is the size of the maps, where it is not that of the pictures.
        """
        named = [picture.class_name for picture in pictures if picture.class_name is not None]
        scored = self._run(pictures, named or None, with_prompt_scores=with_prompt_scores)
        return self._results(pictures, scored, map_size)

    def _run(
        self,
        pictures: Sequence[Picture],
        class_names: Sequence[str] | None,
        *,
        with_prompt_scores: bool,
    ) -> ScoredBatch:
        return self.run_model(
            self._pixels(pictures),
            masks=[picture.left_out for picture in pictures],
            products=[picture.product for picture in pictures],
            class_names=class_names,
            with_prompt_scores=with_prompt_scores,
        )

    def _pixels(self, pictures: Sequence[Picture]) -> np.ndarray:
        return np.stack([self.model_input(picture.image) for picture in pictures])

    def _results(
        self,
        pictures: Sequence[Picture],
        scored: ScoredBatch,
        map_size: tuple[int, int] | None = None,
    ) -> list[AnomalyResult]:
        """Join what the model said with the references, and render the maps."""
        score, patch_map, prompts = scored.score, scored.patch_map, scored.prompt_scores
        if self.setup.references is not None and scored.surprise is not None:
            joined = self.setup.references.join(score, patch_map, scored.surprise, scored.grid)
            score, patch_map = joined
        if not np.isfinite(score).all():
            raise ModelError(
                f"{self.name} gives a score that is no number: its values overflow at precision "
                f"{self.identity.precision}. Use precision fp32, or train the model again."
            )
        results = []
        for index, picture in enumerate(pictures):
            size = map_size or picture.size
            score_map = render_grid(
                patch_map[index],
                model_size=self.model_size(picture.size),
                sigma_px=self.geometry.sigma_px,
                image_size=size,
            )
            if picture.left_out is not None and map_size is None:
                score_map[picture.left_out] = 0
            result = AnomalyResult(
                score=float(score[index]),
                score_map=score_map,
                image_size=size,
                model=self.name,
                prompt_scores=None if prompts is None else tuple(prompts[index].tolist()),
            )
            results.append(result)
        return results

    def _judge(self, result: AnomalyResult, threshold: float | None, product: str) -> AnomalyResult:
        """Add verdict, p-value and regions to a result."""
        calibration = self.setup.calibration
        if calibration is not None:
            result = replace(
                result,
                p_value=calibration.p_value(result.score, product),
                product=product or None,
            )
            if threshold is None:
                limits = calibration.limits(product)
                above = float(np.nextafter(np.float32(limits.map_threshold), np.float32(np.inf)))
                return replace(
                    result,
                    verdict=limits.verdict(result.score),
                    threshold=limits.threshold,
                    review_threshold=limits.review_threshold,
                    map_threshold=limits.map_threshold,
                    regions=find_regions(result.score_map, above),
                )
        threshold = self.threshold if threshold is None else threshold
        return replace(
            result,
            verdict=verdict(result.score, threshold),
            threshold=threshold,
            map_threshold=threshold,
            regions=marked_regions(result.score_map, result.score, threshold),
        )
