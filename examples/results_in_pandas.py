"""Read `results.jsonl` of a run into pandas: verdicts by product, worst parts, regions.

`python examples/results_in_pandas.py results`, with the folder that `faprompt predict` wrote.
"""

import sys
from pathlib import Path

import pandas as pd


def read_results(folder):
    """Return one row per picture; files that could not be read have status "error"."""
    return pd.read_json(Path(folder) / "results.jsonl", lines=True, dtype={"path": str})


def regions_of(results):
    """Return one row per region, with its box in pixels of the picture."""
    rows = results.explode("regions").dropna(subset="regions")
    found = pd.json_normalize(rows["regions"].tolist())
    boxes = pd.DataFrame(found.pop("bbox").tolist(), columns=["x0", "y0", "x1", "y1"])
    return rows[["path", "score"]].reset_index(drop=True).join([boxes, found])


def main(folder="faprompt-results"):
    """Print what a run found."""
    results = read_results(folder)
    scored = results[results["status"] == "ok"]
    kinds = scored[["product", "verdict"]].astype(object).fillna("none")
    print(pd.crosstab(kinds["product"], kinds["verdict"]), "\n")
    print(scored.nlargest(5, "score")[["path", "verdict", "score"]].to_string(index=False), "\n")
    if scored["regions"].map(len).any():
        print(regions_of(scored).nlargest(5, "area_px").to_string(index=False))
    for row in results[results["status"] == "error"].itertuples():
        print(f"not read: {row.path}: {row.error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
