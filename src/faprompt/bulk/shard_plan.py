"""List the inputs of a run once, and write for each shard which pictures it has.

Without a plan every shard lists all inputs itself. With one, a shard reads its own list.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from faprompt import __version__
from faprompt.bulk.shard_files import PLAN, ShardFiles
from faprompt.bulk.shard_split import FileDigest, Shard, shard_of
from faprompt.errors import ConfigError, ShardError
from faprompt.storage import OutputFolder, StoredFile
from faprompt.work import ProgressCallback, no_progress

_MOST_WAITING = 500_000  # pictures in memory


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """`plan.json`."""

    shards: int
    inputs: list[str]  # as the user named them
    listing: FileDigest  # of all pictures
    seconds: float = 0.0
    version: str = __version__

    def check(self, shard: Shard) -> None:
        """Refuse a shard that is none of the planned ones.

        Raises:
            ConfigError: the plan has another number of shards.
        """
        if shard.whole or shard.count != self.shards:
            raise ConfigError(
                f"this output folder is planned for {self.shards} shards; run --shard "
                f"I/{self.shards}, or --shard plan/N again, or use another output folder."
            )


def plan_shards(
    files: Iterable[StoredFile],
    out: OutputFolder,
    count: int,
    *,
    inputs: Sequence[str] = (),
    progress: ProgressCallback = no_progress,
) -> ShardPlan:
    """Write the list of each shard, and `plan.json` at the end.

    More than half a million pictures wait in temporary files, about 100 bytes each.

    Args:
        files: all pictures of the run, in one pass; of a repeated one the first counts.
        out: output folder of the run.
        count: number of shards.
        inputs: what the user named, for `plan.json`.
        progress: gets the number of lists written.

    Raises:
        ConfigError: `count` is out of range.
        FolderInUseError: another process writes a plan or a table there.
    """
    started = time.perf_counter()
    shards = [Shard(index, count) for index in range(1, count + 1)] if count else []
    shards = shards or [Shard(1, count)]  # refuses 0
    listing = FileDigest()
    with out.lock(), TemporaryDirectory(prefix="faprompt-plan-") as folder:
        out.remove(PLAN)  # the lists below it are about to change
        spill = _Spill(Path(folder))
        for file in files:
            spill.add(shard_of(file.path, count), file)
        for shard in shards:
            found = list(spill.take(shard.index))
            for file in found:
                listing.add(file)
            ShardFiles(out, shard).write_manifest(found)
            progress("plan", shard.index, count)
        seconds = round(time.perf_counter() - started, 3)
        plan = ShardPlan(count, list(inputs), listing, seconds)
        values: dict[str, Any] = asdict(plan) | {"listing": listing.to_dict()}
        out.write(PLAN, (json.dumps(values, indent=2) + "\n").encode(), durable=True)
    return plan


def read_plan(out: OutputFolder) -> ShardPlan | None:
    """Return the plan of a run; None where there is none.

    Raises:
        ShardError: `plan.json` is damaged.
    """
    try:
        content = out.read(PLAN)
    except FileNotFoundError:
        return None
    try:
        values = json.loads(content)
        return ShardPlan(**values | {"listing": FileDigest.from_dict(values["listing"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ShardError(f"{PLAN} is damaged ({error}); run --shard plan/N again.") from error


class _Spill:
    """Pictures by shard: in memory, and in a file for each shard when they are many."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: defaultdict[int, list[StoredFile]] = defaultdict(list)
        self._count = 0

    def add(self, shard: int, file: StoredFile) -> None:
        self._waiting[shard].append(file)
        self._count += 1
        if self._count >= _MOST_WAITING:
            for number, files in self._waiting.items():
                with self._path(number).open("a", encoding="ascii", newline="\n") as stream:
                    stream.writelines(json.dumps(each) + "\n" for each in files)
            self._waiting.clear()
            self._count = 0

    def take(self, shard: int) -> Iterator[StoredFile]:
        """Yield the pictures of a shard in their order, each once."""
        seen: set[str] = set()
        for file in self._all(shard):
            if file.path not in seen:
                seen.add(file.path)
                yield file

    def _all(self, shard: int) -> Iterator[StoredFile]:
        if self._path(shard).exists():
            with self._path(shard).open(encoding="ascii") as stream:
                yield from (StoredFile(*json.loads(line)) for line in stream)
        yield from self._waiting.pop(shard, ())

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard}.jsonl"
