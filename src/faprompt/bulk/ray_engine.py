"""Score pictures on a Ray cluster, or with the processes of a local one, through Ray Data.

Blocks of paths go to a pool of actors and rows come back, so that no pixel is in the object store.
A block whose process or node was lost is scored again in smaller blocks, at the end picture by
picture: one that ends its process each time is an error row.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import faprompt
from faprompt.bulk.bulk_scorer import BulkScorer
from faprompt.bulk.shard_run import RowSource
from faprompt.errors import ConfigError, FapromptError
from faprompt.prediction.result_rows import ResultRow
from faprompt.storage import StoredFile, is_url, local_path, read_url
from faprompt.work import load_extra, logger

_WINDOW = 200_000  # pictures whose paths are in the object store at one time
_STORE_BYTES = 2**28  # object store of a local Ray: paths and rows, no pixels
_STALLED_S = 3 * 3600  # without one finished block


class _Round(NamedTuple):
    """One pass over the pictures that have no row yet."""

    pictures: int  # of a block
    in_flight: int  # blocks that an actor has or waits for
    retries: int  # of a block whose actor was lost


_ROUNDS = (_Round(64, 2, 1), _Round(8, 1, 1), _Round(1, 1, 2))


@contextmanager
def ray_rows(
    scorer: BulkScorer,
    *,
    address: str | None = None,
    cpus: float = 1,
    gpus: float | None = None,
    actors: int | None = None,
    quiet: bool = True,
) -> Iterator[RowSource]:
    """Yield a function that scores files on Ray: files in, one row for each, as they are finished.

    A local Ray is started and shut down again, unless there is an address, or this process is
    connected already.

    Args:
        scorer: what every actor does. Its model, mask and output have to be reachable, and
            faprompt has to be importable, on every node with processors.
        address: of a running cluster: "auto", "host:port" or "ray://host:port". None: the
            variable RAY_ADDRESS, else a local Ray.
        cpus: logical processors of an actor; `scorer.threads` are what it really uses.
        gpus: of an actor; None: 1 if the cluster has GPUs and the device of `scorer` is not
            "cpu", else 0.
        actors: most actors; None: as many as the cluster, or its autoscaler, has room for.
        quiet: without the log, the progress and the worker output of Ray.

    Raises:
        MissingExtraError: Ray Data is not installed.
        ConfigError: no cluster at the address, or a node that cannot score.
        FapromptError: raised by the function: the workers cannot load the detector.
    """
    with _session(address, quiet=quiet) as ray:
        _check_size(ray, cpus)
        if gpus is None:
            has_gpus = ray.cluster_resources().get("GPU", 0) > 0
            gpus = 1.0 if has_gpus and scorer.device != "cpu" else 0.0
        pool = _Pool(ray, scorer, cpus, gpus, actors, quiet)

        def rows(files: Sequence[StoredFile]) -> Iterator[ResultRow]:
            if files:
                _check_nodes(ray, scorer, files[0].path)
            for start in range(0, len(files), _WINDOW):
                yield from pool.rows([file.path for file in files[start : start + _WINDOW]])

        yield rows


@dataclass(frozen=True, slots=True)
class _Pool:
    """Actors that score blocks of paths."""

    ray: Any
    scorer: BulkScorer
    cpus: float
    gpus: float
    actors: int | None
    quiet: bool

    def rows(self, paths: list[str]) -> Iterator[ResultRow]:
        """Yield one row for each path, in the order in which they are finished."""
        waiting = dict.fromkeys(paths)
        for number, rules in enumerate(_ROUNDS):
            if not waiting:
                return
            if number:
                logger.warning(
                    "%d pictures were lost with their process or node; scoring them again in "
                    "blocks of %d", len(waiting), rules.pictures,
                )  # fmt: skip
            try:
                with closing(self._pass(list(waiting), rules)) as found:  # type: ignore[type-var]
                    for row in found:
                        if row.path in waiting:
                            del waiting[row.path]
                            yield row
            except self.ray.exceptions.RayError as error:
                if rules == _ROUNDS[-1]:
                    raise
                logger.warning("Ray stopped (%s); going on", str(error).partition("\n")[0])
        name = self.scorer.detector.name if waiting else ""
        for path in waiting:
            reason = (
                f"{path}: the process that scored it ended {1 + _ROUNDS[-1].retries} times, "
                "without an error of Python; look for a crash or for too little memory in the "
                "log of Ray."
            )
            yield ResultRow(path, name, status="error", error=reason)

    def _pass(self, paths: list[str], rules: _Round) -> Iterator[ResultRow]:
        """Yield the rows of one execution; blocks whose process ended are left out."""
        import pyarrow as pa

        size = rules.pictures
        blocks = [
            pa.table({"path": pa.array(map(os.fsencode, paths[start : start + size]), pa.binary())})
            for start in range(0, len(paths), size)
        ]
        data = self._scored(self.ray.data.from_arrow(blocks), len(blocks), rules)
        for batch in data.iter_batches(batch_size=None, batch_format="pyarrow"):
            for line in batch["row"].to_pylist():
                values = json.loads(line)
                if "stop" in values:
                    raise FapromptError(values["stop"])
                yield ResultRow.from_dict(values)

    def _scored(self, blocks: Any, count: int, rules: _Round) -> Any:
        """Return the dataset of rows; nothing runs before it is read."""
        blocks.context.max_errored_blocks = -1  # they have a round of their own
        blocks.context.execution_no_progress_timeout_s = _STALLED_S
        blocks.context.enable_progress_bars = not self.quiet
        most = min(count, self.actors or count)
        with warnings.catch_warnings():
            # Ray 2.64 is to take neither max_restarts nor max_task_retries; see the extra `ray`
            warnings.simplefilter("ignore", DeprecationWarning)
            return blocks.map_batches(
                _Actor,
                fn_constructor_args=(self.scorer,),
                batch_size=rules.pictures,  # a whole block
                batch_format="pyarrow",
                compute=self.ray.data.ActorPoolStrategy(
                    min_size=1,
                    initial_size=min(most, max(1, self._room())),
                    max_size=most,
                    max_tasks_in_flight_per_actor=rules.in_flight,
                ),
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                max_restarts=-1,  # a dead actor would stay in the pool and be waited for
                max_task_retries=rules.retries,
            )

    def _room(self) -> int:
        """Return how many actors the nodes of now have room for."""
        return sum(
            int(min(
                node["Resources"].get(kind, 0) // each
                for kind, each in (("CPU", self.cpus), ("GPU", self.gpus))
                if each
            ))
            for node in _working_nodes(self.ray)
        )  # fmt: skip


class _Actor:
    """Score blocks of paths inside an actor of Ray Data."""

    def __init__(self, scorer: BulkScorer) -> None:
        self._scorer = scorer

    def __call__(self, block: Any) -> dict[str, Any]:
        """Return a line of JSON for each path; in its place the reason to stop the run."""
        try:
            rows = self._scorer.rows(block["path"].to_pylist())
            return {"row": [row.to_line() for row in rows]}
        except FapromptError as error:
            return {"row": [json.dumps({"stop": f"{type(error).__name__}: {error}"}).encode()]}
        except Exception:  # such as a GPU that is gone: another process may do better
            logging.getLogger("faprompt").exception("this process ends")
            os._exit(1)


@contextmanager
def _session(address: str | None, *, quiet: bool) -> Iterator[Any]:
    """Connect to Ray, or start one here; what was started or connected here ends here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning
    ray = load_extra("ray", "ray")
    load_extra("ray", "ray.data")
    if ray.is_initialized():
        yield ray
        return
    place = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    if place == "local":
        options = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    if quiet:
        options |= {"log_to_driver": False, "logging_level": "ERROR"}
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        try:
            ray.init(place, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"There is no Ray cluster at {place!r}: {error}") from error
        # Ray prints lost workers on stdout, which belongs to our rows; `rows` logs them
        ray._private.worker._worker_logs_enabled = not quiet
        yield ray
    finally:
        ray.shutdown()


def _working_nodes(ray: Any) -> list[dict[str, Any]]:
    """Return the nodes that have processors; a head node often has none."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]


def _check_size(ray: Any, cpus: float) -> None:
    most = max((node["Resources"]["CPU"] for node in _working_nodes(ray)), default=None)
    if most is not None and cpus > most:
        raise ConfigError(f"An actor wants {cpus:g} CPUs, the largest node has {most:g}.")


def _check_nodes(ray: Any, scorer: BulkScorer, picture: str) -> None:
    """Refuse a cluster with a node that lacks faprompt, or what this process can read."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    places = [place for place in (scorer.model, scorer.mask, scorer.out, picture) if place]
    here = _missing([str(place) for place in places])
    probes = {
        node["NodeManagerAddress"]: ray.remote(num_cpus=0, max_retries=0)(_probe)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True))
        .remote([str(place) for place in places if str(place) not in here])
        for node in _working_nodes(ray)
    }
    for node, probe in probes.items():
        try:
            version, missing = ray.get(probe)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            raise ConfigError(
                f"Node {node} of the Ray cluster cannot import faprompt "
                f"({str(cause).strip().splitlines()[-1]}); install it on every node."
            ) from error
        if version != faprompt.__version__:
            raise ConfigError(
                f"Node {node} of the Ray cluster has faprompt {version}, this process "
                f"{faprompt.__version__}; install one version on every node."
            )
        if missing:
            raise ConfigError(
                f"Node {node} of the Ray cluster cannot read {', '.join(missing)}; use an object "
                "storage, or a file system that all nodes share."
            )


def _probe(places: list[str]) -> tuple[str, list[str]]:
    return faprompt.__version__, _missing(places)


def _missing(places: list[str]) -> list[str]:
    """Return those of some paths and URLs that cannot be read here."""
    return [place for place in places if not _is_there(place)]


def _is_there(place: str) -> bool:
    place = local_path(place)
    if not is_url(place):
        return Path(place).exists()
    try:
        read_url(place)
    except (OSError, FapromptError):
        return False
    return True
