"""Score pictures on a Ray cluster, or with the processes of a local one, through Ray Data.

Blocks of paths go to a pool of actors and rows come back, so that no pixel is in the object store.
A block whose process or node was lost is started again. One that ends its process twice is scored
in smaller blocks, at the end picture by picture: one that ends its process each time is an error
row. Ray itself repeats without end, because a node that is lost fails whatever is sent to it until
the cluster knows; so starts of a block are counted where all processes can read them.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
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
    starts: int  # of a block that ends its process each time


_ROUNDS = (_Round(64, 2, 2), _Round(8, 1, 2), _Round(1, 1, 3))
_HOPELESS = 10  # blocks that ended their processes before there was any row


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
        address: of a running cluster: "auto" or "host:port". None: the variable RAY_ADDRESS,
            else a local Ray.
        cpus: logical processors of an actor; `scorer.threads` are what it really uses.
        gpus: of an actor; None: 1 if the cluster has GPUs and the device of `scorer` is not
            "cpu", else 0.
        actors: most actors; None: as many as the cluster, or its autoscaler, has room for.
        quiet: without the log, the progress and the worker output of Ray.

    Raises:
        MissingExtraError: Ray Data is not installed.
        ConfigError: no cluster at the address, a node that cannot score, or a device with a
            number.
        FapromptError: raised by the function: the workers cannot load the detector.
    """
    if ":" in scorer.device:
        raise ConfigError(f"Ray hands out GPUs; device should be cuda, got {scorer.device!r}.")
    with _session(address, quiet=quiet) as ray, ExitStack() as reading:
        _check_size(ray, cpus)
        if gpus is None:
            has_gpus = ray.cluster_resources().get("GPU", 0) > 0
            gpus = 1.0 if has_gpus and scorer.device != "cpu" else 0.0
        pool = _Pool(ray, scorer, cpus, gpus, actors, quiet)

        def scored(files: Sequence[StoredFile]) -> Generator[ResultRow]:
            if files:
                _check_nodes(ray, scorer, files[0].path)
            for start in range(0, len(files), _WINDOW):
                yield from pool.rows([file.path for file in files[start : start + _WINDOW]])

        yield lambda files: reading.enter_context(closing(scored(files)))  # ends before Ray does


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
        waiting, name = dict.fromkeys(paths), ""
        for number, rules in enumerate(_ROUNDS):
            if not waiting:
                return
            if number:
                gc.collect()  # lost actors that a cycle holds keep their processors
                logger.warning(
                    "%d pictures were lost with their process or node; scoring them again in "
                    "blocks of %d", len(waiting), rules.pictures,
                )  # fmt: skip
            try:
                with closing(self._pass(list(waiting), rules, hopeful=bool(name))) as found:
                    for row in found:
                        name = row.model
                        if row.path in waiting:
                            del waiting[row.path]
                            yield row
            except self.ray.exceptions.RayError as error:
                if rules == _ROUNDS[-1]:
                    raise
                logger.warning("Ray stopped (%s); going on", str(error).partition("\n")[0])
        if waiting and not name:
            name = self.scorer.detector.name
        for path in waiting:
            reason = (
                f"{path}: the process that scored it ended {_ROUNDS[-1].starts} times, "
                "without an error of Python; look for a crash or for too little memory in the "
                "log of Ray."
            )
            yield ResultRow(path, name, status="error", error=reason)

    def _pass(self, paths: list[str], rules: _Round, *, hopeful: bool) -> Generator[ResultRow]:
        """Yield the rows of one execution; blocks that end their process are left out.

        Raises FapromptError if `_HOPELESS` blocks did so before any row; never if `hopeful`.
        """
        lost = 0
        blocks = -(-len(paths) // rules.pictures)
        # `from_arrow` would wait for a processor, which lost actors of an earlier pass may hold
        items = self.ray.data.from_items(
            [{"path": os.fsencode(path)} for path in paths], override_num_blocks=blocks
        )
        data = self._scored(items, blocks, rules)
        for batch in data.iter_batches(batch_size=None, batch_format="pyarrow"):
            for line in batch["row"].to_pylist():
                values = json.loads(line)
                if values is None:
                    lost += 1
                    if lost == _HOPELESS and not hopeful:
                        raise FapromptError(
                            "The processes of Ray end before there is one row; look for a crash "
                            "or for too little memory in the log of Ray."
                        )
                    continue
                if "stop" in values:
                    raise FapromptError(values["stop"])
                hopeful = True
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
                fn_constructor_args=(self.scorer, os.getcwd(), rules.starts, os.urandom(8)),
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
                max_task_retries=-1,
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

    def __init__(self, scorer: BulkScorer, home: str, starts: int, name: bytes) -> None:
        self._scorer, self._starts, self._name = scorer, starts, name
        with suppress(OSError):  # a node without the folder needs absolute paths
            os.chdir(home)

    def __call__(self, block: Any) -> dict[str, Any]:
        """Return a line of JSON for each path; else the reason to stop the run, or null.

        Null says that this block ended its process each time.
        """
        from ray.experimental import internal_kv as counts  # kept by the head of the cluster

        paths = block["path"].to_pylist()
        key = self._name + paths[0]
        started = int(counts._internal_kv_get(key) or 0)
        if started >= self._starts:
            lines = [b"null"]
        else:
            counts._internal_kv_put(key, str(started + 1).encode())
            lines = self._lines(paths)
        counts._internal_kv_del(key)
        return {"row": lines}

    def _lines(self, paths: list[bytes]) -> list[bytes]:
        try:
            return [row.to_line() for row in self._scorer.rows(paths)]
        except FapromptError as error:
            return [json.dumps({"stop": f"{type(error).__name__}: {error}"}).encode()]
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
    if quiet:
        # who keeps its records of lost actors keeps these actors, and with them their processors
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield ray
        return
    place = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    if place == "local":
        options = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    if quiet:
        options |= {"log_to_driver": False, "logging_level": "ERROR"}
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        _check_reachable(place)
        try:
            ray.init(place, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"There is no Ray cluster at {place!r}: {error}") from error
        # Ray prints lost workers on stdout, which belongs to our rows; `rows` logs them
        ray._private.worker._worker_logs_enabled = not quiet
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(place: str) -> None:
    """Refuse "host:port" where nothing listens; Ray itself would try for minutes."""
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(f"There is no Ray cluster at {place!r}: {error}.") from error


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

    named = (scorer.model, scorer.backbone, scorer.mask, scorer.out, picture)
    places = [_absolute(str(place)) for place in named if place]
    missing = _missing(places)  # such as the name of a bundled model
    probes = {
        node["NodeManagerAddress"]: ray.remote(num_cpus=0, max_retries=0)(_probe)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True))
        .remote([place for place in places if place not in missing])
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


def _absolute(place: str) -> str:
    return place if is_url(place) else os.path.abspath(local_path(place))


def _missing(places: list[str]) -> list[str]:
    """Return those of some paths and URLs that cannot be read here."""
    return [place for place in places if not _is_there(place)]


def _is_there(place: str) -> bool:
    if not is_url(place):
        return Path(place).exists()
    try:
        read_url(place)
    except (OSError, FapromptError):
        return False
    return True
