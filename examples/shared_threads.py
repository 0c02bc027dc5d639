"""Share one detector between threads: it keeps nothing between calls, so no lock is needed.

    python examples/shared_threads.py examples/lot/wood

Threads read and decode pictures while others score. For a folder of files, `faprompt predict`
does the same and also writes a report.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faprompt


def judge(detector, path):
    """Return the result of a picture, or the reason why it has none."""
    try:
        return detector.predict(path)
    except faprompt.errors.ImageReadError as error:
        return str(error)


def main(folder, model="small", threads="4"):
    """Print the score of each picture in a folder, in the order of their names."""
    detector = faprompt.load_detector(model)
    paths = sorted(path for path in Path(folder).iterdir() if path.is_file())
    with ThreadPoolExecutor(int(threads)) as pool:
        found = pool.map(lambda path: judge(detector, path), paths)  # in the order of `paths`
        for path, result in zip(paths, found, strict=True):
            readable = isinstance(result, faprompt.AnomalyResult)
            print(f"{path.name:24}", f"{result.score:.3f}" if readable else result)


if __name__ == "__main__":
    main(*sys.argv[1:])
