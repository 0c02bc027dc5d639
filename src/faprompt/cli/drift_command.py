"""Define `faprompt drift`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faprompt.cli import options as o

if TYPE_CHECKING:
    import numpy as np

    from faprompt.calibration import Calibration
    from faprompt.inspection import ProductDrift
    from faprompt.inspection.score_drift import Share


def drift(
    run: Annotated[Path, typer.Argument(help="Output folder of `faprompt predict`.")],
    model: Annotated[
        str,
        typer.Option(help="Calibrated model that scored the run: a folder or a Hugging Face id."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Also draw the histograms into this .png or .svg file."),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Names the part in the path, as in the calibration: its pictures count once, "
            "with their highest score.",
        ),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Tell whether the scores of a run still look like those of the calibration.

    Compares the scores of RUN with the good scores in the model folder, product by product: a
    two-sample test, the population stability index, and the rates of NG and REVIEW. Many
    defective parts look like drift too, so compare runs of mostly good parts. Exits with 0
    whatever the finding is; scripts read "level" of --json.
    """
    from faprompt.calibration import read_calibration
    from faprompt.cli.terminal import note, say
    from faprompt.errors import ModelError
    from faprompt.inspection import measure_drift
    from faprompt.inspection.drift_figure import check_figure_path, write_drift_figure
    from faprompt.models import find_model

    if out is not None:
        check_figure_path(out)
    calibration = read_calibration(find_model(model))
    if calibration is None:
        raise ModelError(
            f"{model} has no calibration to compare with; run `faprompt calibrate` on good "
            "pictures, and give the folder that it writes."
        )
    _require_same_model(run, calibration, model)
    scores = _scores_by_product(run, calibration, group)
    found = measure_drift(scores, calibration)
    if out is not None:
        write_drift_figure(out, found, scores, calibration)
    if as_json:
        print(json.dumps(found.to_dict()))
    else:
        say("\n\n".join(_page(one) for one in found.products))
        say(f"\ndrift: {found.level}")
        note(found.warning)
    if found.absent:
        note(f"without a picture in {run}: {', '.join(found.absent)}")
    if out is not None:
        note(f"wrote {out}")


def _require_same_model(run: Path, calibration: Calibration, model: str) -> None:
    """Refuse a run that another model or other settings scored, and say what differs."""
    from faprompt.config import read_json
    from faprompt.errors import ConfigError

    try:
        settings = read_json(run / "run.json")
        scored_by = settings["detector"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{run} is no output folder of `faprompt predict`: its run.json cannot be used "
            f"({error})."
        ) from error
    found = settings.get("decided_by")
    if isinstance(found, dict):
        calibration.check_decided_by(found, where=f"{run}: {model}")
    elif scored_by != calibration.fingerprint:
        raise ConfigError(
            f"{run} was scored by {settings.get('model')} with fingerprint "
            f"{str(scored_by)[:12]}, but the calibration of {model} is for "
            f"{calibration.fingerprint[:12]}: weights, options, precision, tiles, mask or "
            f"references differ. Score the pictures again with --model {model}."
        )


def _scores_by_product(
    run: Path, calibration: Calibration, group: str | None
) -> dict[str, np.ndarray]:
    """Return the scores of a run's pictures or parts, by the product of each."""
    import numpy as np

    from faprompt.calibration import highest_by_part, parts_of
    from faprompt.errors import ConfigError
    from faprompt.prediction.result_rows import read_rows

    found: dict[str, tuple[list[str], list[float]]] = {}
    for row in read_rows(run / "results.jsonl"):
        if row.score is not None:
            product = calibration.check_product(row.product or calibration.product_of(row.path))
            paths, scores = found.setdefault(product, ([], []))
            paths.append(row.path)
            scores.append(row.score)
    if not found:
        raise ConfigError(f"{run} has no scored picture to compare with the calibration.")
    return {
        name: highest_by_part(parts_of(paths, group) if group else paths, np.array(scores))
        for name, (paths, scores) in found.items()
    }


def _page(drift: ProductDrift) -> str:
    """Return what is printed on one product."""
    from faprompt.inspection.drift_figure import text_histogram

    lines = [f"product {drift.product}"] if drift.product else []
    lines += [f"{'up to score':>12} {'good':>7} {'today':>7}", *text_histogram(drift)]
    lines += [
        f"{drift.n_today} scores today, {drift.n_good} good ones in the calibration",
        f"two-sample test (KS): distance {drift.ks:.3f}, p = {drift.p_value:.2g}",
        f"PSI {drift.psi:.3f}; without drift, 95 % of runs of this size are below "
        f"{drift.psi_without_drift:.3f}",
        f"median {drift.median_today:.4f}, of the good pictures {drift.median_good:.4f}",
        f"NG {_rate(drift.ng)}",
        f"NG or REVIEW {_rate(drift.ng_or_review)}",
        drift.words,
    ]
    return "\n".join(lines)


def _rate(share: Share) -> str:
    low, high, stated = (f"{100 * rate:.3g} %" for rate in (share.low, share.high, share.stated))
    return (
        f"{share.count}: {100 * share.share:.3g} % ({low} to {high}); good parts: {stated} stated, "
        f"p = {share.p_value:.2g}"
    )
