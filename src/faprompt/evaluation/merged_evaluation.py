"""Join the shards of an evaluation: the files of one process, without model and pictures.

The counts of all chunks are added in the order of the dataset, as one process adds them, so the
result is the same to the bit. One chunk is in memory at a time.
"""

from __future__ import annotations

from pathlib import Path

import faprompt
from faprompt.errors import ShardError
from faprompt.evaluation.evaluation_run import Evaluation, conclude
from faprompt.evaluation.evaluation_shards import (
    SHARDS_FOLDER,
    EvaluationShard,
    ShardedRun,
    read_run,
)
from faprompt.evaluation.metric_files import write_evaluation
from faprompt.evaluation.metric_groups import Groups, group_names, plan_chunks, read_counts
from faprompt.evaluation.saved_progress import (
    DAMAGED,
    ImageScore,
    read_identity,
    read_progress,
    saved_images,
    with_format,
)
from faprompt.files import natural_key
from faprompt.work import ProgressCallback, hold_folders, logger, no_progress


def holds_evaluation(out: Path) -> bool:
    """Return whether a folder holds shards of an evaluation, of one dataset or of several."""
    return bool(_folders(out))


def merge_evaluation(out: Path, *, progress: ProgressCallback = no_progress) -> list[Evaluation]:
    """Write the files of an evaluation from its shards, and return the result.

    Neither the model nor the pictures are needed. The files are those of one process to the
    byte; contact sheets of mistakes are not drawn, because they need both.

    Args:
        out: output folder of the shards. It may hold several datasets, a folder each.
        progress: called with "merge", chunks done and chunks in all, for each dataset.

    Returns:
        The result of each dataset. Its samples lack the outlines of drawn masks.

    Raises:
        ShardError: shards are missing, unfinished, damaged, there twice, or of other runs, or
            another version measured them; the message says what to do.
        FolderInUseError: another run is writing into the folder.
    """
    folders = _folders(out)
    if not folders:
        raise ShardError(
            f"{out} holds no shards of an evaluation; run `faprompt evaluate DATA --shard I/N "
            f"--out {out}` for each I from 1 to N first."
        )
    evaluations = []
    with hold_folders(out):
        for folder in folders:
            evaluations.append(_merged(folder, progress))
        for folder, evaluation in zip(folders, evaluations, strict=True):
            write_evaluation(evaluation, folder)
    if any(evaluation.config.gallery for evaluation in evaluations):
        logger.info("contact sheets of mistakes are not drawn: they need the model.")
    return evaluations


def _folders(out: Path) -> list[Path]:
    if (out / SHARDS_FOLDER).is_dir():
        return [out]
    return sorted((path.parent for path in out.glob(f"*/{SHARDS_FOLDER}")), key=natural_key)


def _merged(folder: Path, progress: ProgressCallback) -> Evaluation:
    run = read_run(folder)
    _check_version(run, folder)
    chunks = plan_chunks(run.dataset.samples)
    _check_files(run, folder, [len(numbers) for numbers in chunks])
    names = group_names(run.dataset, run.config)
    groups = Groups([names[number] for numbers in chunks for number in numbers], run.config)
    images: dict[int, ImageScore] = {}
    for chunk, numbers in enumerate(chunks):
        path = EvaluationShard.of_chunk(chunk, run.shards).chunk_path(folder, chunk)
        try:
            header, arrays = read_progress(path)
            samples = [run.dataset.samples[number] for number in numbers]
            rows = saved_images(samples, [names[number] for number in numbers], header, arrays)
            counts = read_counts("chunk", arrays, header["groups"])
        except DAMAGED as error:
            again = _again(run, folder, [EvaluationShard.of_chunk(chunk, run.shards)])
            raise ShardError(f"{path} is damaged ({error}). Remove it, and {again}") from error
        groups.add_chunk(range(len(images), len(images) + len(numbers)), counts)
        images.update(zip(numbers, rows, strict=True))
        progress("merge", chunk + 1, len(chunks))
    in_order = [images[number] for number in range(len(images))]
    return conclude(run.model, run.dataset, run.config, in_order, groups)


def _check_version(run: ShardedRun, folder: Path) -> None:
    version = run.model.environment.get("faprompt")
    if version != faprompt.__version__:
        raise ShardError(
            f"{folder / SHARDS_FOLDER} was measured with faprompt {version}, this is "
            f"{faprompt.__version__}; merge with that version, or run all shards again."
        )


def _check_files(run: ShardedRun, folder: Path, sizes: list[int]) -> None:
    """Refuse files that are missing, unfinished, of another run, or there twice."""
    place = folder / SHARDS_FOLDER
    shards = [EvaluationShard.of_chunk(chunk, run.shards) for chunk in range(len(sizes))]
    wanted = {shard.chunk_path(folder, chunk): chunk for chunk, shard in enumerate(shards)}
    if surplus := sorted({*place.glob("*/chunk-*.safetensors")} - wanted.keys()):
        named = ", ".join(sorted({path.parent.name for path in surplus}))
        raise ShardError(
            f"{place} holds chunks that are there twice or belong to another run, in {named}: "
            f"{surplus[0].name}{' and others' * (len(surplus) > 1)}. The run has {run.shards} "
            f"shards and {len(sizes)} chunks; remove what does not belong to it."
        )
    unfinished: dict[EvaluationShard, None] = {}
    for path, chunk in wanted.items():
        try:
            found, done = read_identity(path)
        except DAMAGED:
            unfinished[shards[chunk]] = None
            continue
        identity = with_format(run.chunk_identity(chunk))
        if other := [name for name, text in identity.items() if found.get(name) != text]:
            again = _again(run, folder, [shards[chunk]])
            raise ShardError(f"{path} is of another run (other {', '.join(other)}); {again}")
        if done != sizes[chunk]:
            unfinished[shards[chunk]] = None
    if unfinished:
        listed = sorted(unfinished, key=lambda shard: shard.index)
        named = ", ".join(map(str, listed))
        one = len(listed) == 1
        raise ShardError(
            f"{place}: shard{'' if one else 's'} {named} {'is' if one else 'are'} missing, "
            f"unfinished or damaged; {_again(run, folder, listed)}"
        )


def _again(run: ShardedRun, folder: Path, shards: list[EvaluationShard]) -> str:
    """Return what to run again; the other options are those of the run."""
    command = f"faprompt evaluate {run.dataset.root} ... --shard {shards[0]} --out {folder}"
    rest = " (and likewise the others)" if len(shards) > 1 else ""
    return f"run `{command}` with the same options again{rest}."
