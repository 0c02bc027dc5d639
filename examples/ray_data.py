"""Score pictures inside a Ray Data pipeline of your own: paths go in, rows come out.

    python examples/ray_data.py "examples/pictures/*.jpg"

A picture that cannot be scored is a row with an error. `faprompt predict --engine ray` does more:
it goes on after an interruption, and finds the one picture that ends its process.
"""

import glob
import sys

import ray

from faprompt.bulk import BulkScorer


def score(paths, *, actors=1, **options):
    """Return a Dataset with a row for each path; `options` are those of `BulkScorer`."""
    table = ray.data.from_items([{"path": str(path)} for path in paths])
    return table.map_batches(
        BulkScorer,
        fn_constructor_kwargs=options,
        batch_size=64,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,  # of an actor; leave a processor to the other steps. With GPUs: num_gpus=1
    )


def main(pattern, model="small"):
    """Print a line for each picture that a pattern names."""
    rows = score(sorted(glob.glob(pattern)), model=model)
    rows = rows.filter(lambda row: row["status"] == "ok")  # a step of your own
    for row in sorted(rows.take_all(), key=lambda row: -row["score"]):
        print(f"{row['score']:.3f} {row['path']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
