"""Real pictures on which bundled models are measured: sets, cached scores, metrics of each kind.

Magnetic tiles and brain MRI are labelled folders. The textile pictures are those of the PyPI
package conformal-clip-data (MIT licence), simulated, 1,000 of its 2,000 drawn with a seed. Copies
of a picture count once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from faprompt import Detector
from faprompt.data import read_dataset, read_mask
from faprompt.data.masks import resize_mask
from faprompt.files import file_digest
from faprompt.imaging import read_image
from faprompt.methods.relations import RelationsOutput
from faprompt.metrics import AnomalyMetrics, mean_replicates, percentile_intervals
from faprompt.records import Sample
from faprompt.scoring import render_map

SIZE = (256, 256)  # of maps and masks in pixel metrics: the input of the bundled models
REPLICATES = 200
MEAN = "mean"  # over the kinds of defect
METRICS = ("image_auroc", "pixel_auroc")
TILES, BRAIN, TEXTILE = "magnetic tiles", "brain MRI", "textile"
TEXTILE_COUNTS = {"nominal": 500, "local": 250, "global": 250}  # pictures of each folder
TEXTILE_SEED = 15
GREY_SIDE = 16  # px
BATCH = 8


@dataclass(frozen=True, slots=True, eq=False)
class PictureSet:
    """Labelled pictures. `origins` has the folder of each; kinds are compared within a folder."""

    name: str
    samples: tuple[Sample, ...]
    origins: tuple[str, ...]
    digest: str  # of the pictures' bytes

    @property
    def labels(self) -> np.ndarray:
        """(N,) 0 for good pictures, 1 for defective ones."""
        return np.array([sample.label for sample in self.samples])

    @property
    def paths(self) -> list[Path]:
        """The files, in the order of the samples."""
        return [sample.image_path for sample in self.samples]

    @property
    def has_masks(self) -> bool:
        """Whether every picture has a pixel label."""
        return all(sample.has_pixel_label for sample in self.samples)

    def kinds(self) -> dict[str, np.ndarray]:
        """Kind of defect -> rows of its pictures and of the good ones of the same folders."""
        names = np.array([s.defect_type if s.label else "" for s in self.samples])
        origins = np.array(self.origins)
        found = {}
        for kind in dict.fromkeys(names[names != ""].tolist()):
            beside = np.isin(origins, origins[names == kind])
            found[kind] = np.flatnonzero((names == kind) | ((names == "") & beside))
        return found

    def subset(self, rows: Sequence[int]) -> PictureSet:
        """Some of the pictures."""
        samples, origins = (tuple(v[row] for row in rows) for v in (self.samples, self.origins))
        digest = hashlib.sha256(f"{self.digest} {list(rows)}".encode()).hexdigest()
        return replace(self, samples=samples, origins=origins, digest=digest)

    def read_masks(self) -> list[np.ndarray] | None:
        """Read the masks at `SIZE`; None where the set has none."""
        if not self.has_masks:
            return None
        return [resize_mask(read_mask(sample), SIZE) for sample in self.samples]


def read_tiles(data: Path) -> PictureSet:
    """Magnetic tiles: blowholes and cracks with 120 good ones, breaks and frays with 150 others."""
    folders = ("magnetic_tile", "magnetic_tile_more")
    return _unique(TILES, {n: read_dataset(data / n).samples for n in folders})


def read_brain(data: Path) -> PictureSet:
    """Brain MRI slices with and without tumour; no masks."""
    samples = [
        replace(s, defect_type="tumour" if s.label else "")
        for s in read_dataset(data / "brain_mri").samples
    ]
    return _unique(BRAIN, {"brain_mri": samples})


def read_textile(root: Path) -> PictureSet:
    """Simulated textile: `root` has the folders nominal, local and global; no masks."""
    rng = np.random.default_rng(TEXTILE_SEED)
    samples = []
    for folder, count in TEXTILE_COUNTS.items():
        paths = sorted((root / folder).glob("*.jpg"))
        label = int(folder != "nominal")
        samples += [
            Sample(paths[row], label, "textile", folder if label else "")
            for row in sorted(rng.choice(len(paths), count, replace=False))
        ]
    return _unique(TEXTILE, {"textile": samples})


def _unique(name: str, folders: Mapping[str, Sequence[Sample]]) -> PictureSet:
    """Join folders to a set; of copies the first one counts."""
    kept: dict[str, tuple[Sample, str]] = {}
    for folder, samples in folders.items():
        for sample in samples:
            kept.setdefault(file_digest(sample.image_path), (sample, folder))
    samples, origins = zip(*kept.values(), strict=True)
    return PictureSet(name, samples, origins, hashlib.sha256("".join(kept).encode()).hexdigest())


def textile_root(given: Path | None) -> Path:
    """Return the folder of the textile pictures, by default that of the installed package."""
    if given is not None:
        nested = given / "conformal_clip_data" / "data" / "textile_images" / "simulated"
        return nested if nested.is_dir() else given
    try:
        from conformal_clip_data import textile_simulated_root
    except ImportError as error:
        raise SystemExit(
            "The textile pictures are those of a package: pip install conformal-clip-data==0.1.4, "
            f"or give --textile DIR ({error})."
        ) from error
    return Path(textile_simulated_root())


@torch.inference_mode()
def run_model(
    detector: Detector, pictures: PictureSet, cache: Path, *, with_tokens: bool = False
) -> Mapping[str, np.ndarray]:
    """Run the model once on every picture, or open what an earlier run kept.

    Returns:
        "scores" (N,), "maps" (N, rows, columns), "features" (N, D); of the method `relations`
        also "relations" (N, R, rows, columns), and "text scores" and "text maps" where a text
        method is joined; with tokens, "tokens <layer>" (N, P, D).
    """
    name = f"{detector.fingerprint()[:16]}-{pictures.digest[:16]}-{int(with_tokens)}.npz"
    path = cache / name
    if not path.is_file():
        parts: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(pictures.paths), BATCH):
            images = [read_image(p).array for p in pictures.paths[start : start + BATCH]]
            pixels = torch.stack([detector.to_pixels(image) for image in images])
            features = detector.encode_image(pixels)
            output = detector.score_features(features)
            found = {"scores": output.score, "maps": output.patch_map}
            found["features"] = features.class_token
            if isinstance(output, RelationsOutput):
                found["relations"] = output.relations
                if output.text is not None:
                    found |= {"text scores": output.text.score, "text maps": output.text.patch_map}
            if with_tokens:
                found |= {f"tokens {k}": t for k, t in features.patch_tokens.items()}
            for key, values in found.items():
                parts.setdefault(key, []).append(values.float().numpy())
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"part-{name}")
        np.savez(partial, **{key: np.concatenate(each) for key, each in parts.items()})
        partial.replace(path)
    return np.load(path)


def mirror_of_grey(image: np.ndarray) -> np.ndarray:
    """Compare each cell of a grey picture with the left-right mirrored place; (16, 16) in 0..1.

    The smallest difference to the cells within one step of that place counts. Nothing is learned.
    """
    box = Image.Resampling.BOX
    grey = Image.fromarray(image).convert("L").resize((GREY_SIDE, GREY_SIDE), box)
    values = np.asarray(grey, np.float32) / 255
    padded = np.pad(values[:, ::-1], 1, mode="edge")
    steps = range(3)
    shifted = [padded[a : a + GREY_SIDE, b : b + GREY_SIDE] for a in steps for b in steps]
    return np.abs(values - np.stack(shifted)).min(axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores (N,) and maps (N, rows, columns) of a set, and the smoothing of the maps."""

    values: np.ndarray
    maps: np.ndarray
    sigma_px: float  # in pixels of `SIZE`

    def rendered(self, row: int) -> np.ndarray:
        """Return one smoothed map at `SIZE`."""
        grid = torch.from_numpy(np.array(self.maps[row], np.float32))[None]
        return render_map(grid, model_size=SIZE, sigma_px=self.sigma_px)[0].numpy()


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """AUROCs of one kind of defect, and the same in every replicate."""

    values: Mapping[str, float]
    replicates: Mapping[str, np.ndarray]
    good: int
    defective: int

    def row(self, metric: str) -> list[float] | None:
        """Return value, low and high; the ends are missing where there is no interval."""
        if metric not in self.values:
            return None
        ends = percentile_intervals(self.replicates, self.values).get(metric, ())
        return [round(float(v), 5) for v in (self.values[metric], *ends)]


def rank(
    pictures: PictureSet, scores: Scores, masks: Sequence[np.ndarray] | None = None,
    *, pixel_replicates: int = REPLICATES,
) -> dict[str, Ranking]:  # fmt: skip
    """Measure every kind of defect, and their mean."""
    found = {}
    maps = {} if masks is None else {row: scores.rendered(row) for row in range(len(masks))}
    for kind, rows in pictures.kinds().items():
        images = AnomalyMetrics(replicates=REPLICATES)
        pixels = AnomalyMetrics(replicates=pixel_replicates)
        labels = pictures.labels[rows]
        keys = ["/".join(pictures.paths[row].parts[-3:]) for row in rows]
        images.update(scores.values[rows], labels, keys=keys)
        if masks is not None:
            for row, label, key in zip(rows, labels, keys, strict=True):
                score = [float(scores.values[row])]
                pixels.update(score, [label], [maps[row]], [masks[row]], keys=[key])
        values, replicates = {}, {}
        for metric, source in zip(METRICS, (images, pixels), strict=True):
            if metric in source.compute():
                values[metric] = source.compute()[metric]
                replicates |= {k: v for k, v in source.replicate_values().items() if k == metric}
        defective = int(labels.sum())
        found[kind] = Ranking(values, replicates, len(rows) - defective, defective)
    return found | {MEAN: mean_ranking(list(found.values()))}


def mean_ranking(rankings: Sequence[Ranking]) -> Ranking:
    """Return the mean over kinds of defect, or over heads of several seeds."""
    first = rankings[0]
    values = {m: float(np.mean([r.values[m] for r in rankings])) for m in first.values}
    replicates = {m: mean_replicates([r.replicates[m] for r in rankings]) for m in first.replicates}
    good, defective = (max(getattr(r, n) for r in rankings) for n in ("good", "defective"))
    return Ranking(values, replicates, good, defective)
