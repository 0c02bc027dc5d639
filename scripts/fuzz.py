"""Feed damaged files to every reader: each is read, or refused with one of our own errors.

    python scripts/fuzz.py --inputs 100000 --seed 7

Hypothesis damages valid files: bytes are set, flipped, inserted, removed and repeated, files are
cut and spliced; JSON and CSV also get odd values in their places. Each kind of file has a process
of its own. A crash, an error of another type, an input that takes longer than 20 seconds, or more
than 2 GB of memory ends with exit status 1 and the input in `--failures DIR`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from faprompt.errors import FapromptError

SECONDS_PER_INPUT = 20
MEMORY_BYTES = 2 * 2**30
SHARES = {  # of all inputs
    "png": 0.14, "jpeg": 0.12, "tiff": 0.18, "webp": 0.08, "bmp": 0.08, "dicom": 0.05, "mask": 0.08,
    "config.json": 0.09, "model.safetensors": 0.07, "csv": 0.06, "coco": 0.05,
}  # fmt: skip
DAMAGES = ["byte", "number", "insert", "remove", "repeat", "cut", "splice"]
ODD_NUMBERS = [0, 1, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, -1, -(2**31)]
ODD_VALUES = st.sampled_from(
    [None, True, "", "x" * 3000, "../../etc", "\x00", [], {}, [[]], 1e308, -0.0, 0.5, 10**400]
    + [float("nan"), float("inf"), [1] * 50, {"a": {"b": []}}, *ODD_NUMBERS]
)


def seed_pictures(kind: str) -> list[bytes]:
    """Return valid small files of one format, in all modes that Pillow writes."""
    stream = np.random.default_rng(0)
    grey = stream.integers(0, 256, (12, 17), dtype=np.uint8)
    wide = stream.integers(0, 65536, (12, 17), dtype=np.uint16)
    colours = stream.integers(0, 256, (12, 17, 3), dtype=np.uint8)
    if kind == "dicom":
        return _dicom_pictures(grey, wide, colours)
    rgb = Image.fromarray(colours)
    modes = [rgb, Image.fromarray(grey), rgb.convert("RGBA"), rgb.convert("P"), rgb.convert("1")]
    modes += [rgb.convert("LA"), rgb.convert("CMYK"), Image.fromarray(wide)]
    modes.append(Image.fromarray(grey.astype(np.float32) / 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    options: list[dict[str, Any]] = [{}]
    if kind in ("jpeg", "tiff"):
        options.append({"exif": exif})
    if kind == "jpeg":
        options.append({"progressive": True})
    if kind == "webp":
        options.append({"lossless": True})
    if kind == "tiff":
        options += [{"compression": name} for name in ("tiff_lzw", "tiff_deflate", "packbits")]
    found = []
    for picture in modes:
        for option in options:
            buffer = io.BytesIO()
            try:
                picture.save(buffer, kind, **option)
            except (OSError, ValueError, KeyError):  # the format has no such mode
                continue
            found.append(buffer.getvalue())
    return found + (_tifffile_pictures(grey, wide, colours) if kind == "tiff" else [])


def _tifffile_pictures(grey: np.ndarray, wide: np.ndarray, colours: np.ndarray) -> list[bytes]:
    """Return TIFF files of kinds that Pillow does not write."""
    import tifffile

    planar = colours.transpose(2, 0, 1)
    kinds: list[tuple[np.ndarray, dict[str, Any]]] = [
        (planar, {"photometric": "rgb", "planarconfig": "separate"}),
        (planar.astype(np.uint16), {"photometric": "rgb", "planarconfig": "separate"}),
        (wide, {"photometric": "miniswhite"}),
        (grey.astype(np.int8), {}),
        (grey.astype(np.float16), {}),
        (wide >> 6, {"bitspersample": 10}),
        (colours.astype(np.float32), {"photometric": "rgb"}),
        (np.stack([grey] * 3), {"photometric": "minisblack"}),
        (wide, {"bigtiff": True}),
        (grey, {"tile": (16, 16)}),
    ]
    found = []
    for values, options in kinds:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, **options)
        found.append(buffer.getvalue())
    return found


def _dicom_pictures(grey: np.ndarray, wide: np.ndarray, colours: np.ndarray) -> list[bytes]:
    """Return DICOM files: grey and colours, with windows and tables, plain and compressed."""
    from pydicom import Dataset, dcmread, uid
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate

    def make(values: np.ndarray, syntax: str = "", frame: bytes = b"", **elements: Any) -> bytes:
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = syntax or uid.ExplicitVRLittleEndian
        header.SOPClassUID, header.SOPInstanceUID = uid.SecondaryCaptureImageStorage, "1.2"
        header.Rows, header.Columns = values.shape[:2]
        header.SamplesPerPixel = 3 if values.ndim == 3 else 1
        header.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME1"
        header.PlanarConfiguration = 0
        header.BitsAllocated = header.BitsStored = 8 * values.dtype.itemsize
        header.HighBit, header.PixelRepresentation = header.BitsStored - 1, 0
        header.PixelData = encapsulate([frame]) if frame else values.tobytes()
        header["PixelData"].VR = "OB" if frame or header.BitsStored == 8 else "OW"
        for name, value in elements.items():
            setattr(header, name, value)
        buffer = io.BytesIO()
        header.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()

    def compressed(kind: str, picture: np.ndarray, **options: Any) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, kind, **options)
        return buffer.getvalue()

    table = Dataset()
    table.add_new("LUTDescriptor", "US", [256, 9, 16])
    table.add_new("LUTData", "OW", np.arange(256, dtype=np.uint16).tobytes())
    window = {"WindowCenter": [300, 9], "WindowWidth": [900, 9], "RescaleSlope": "2",
              "RescaleIntercept": "-1024", "PixelPaddingValue": 7, "NumberOfFrames": 1}  # fmt: skip
    palette = {f"{name}PaletteColorLookupTable{part}": value for name in ("Red", "Green", "Blue")
               for part, value in (("Descriptor", [256, 0, 16]), ("Data", bytes(512)))}  # fmt: skip
    rle = dcmread(io.BytesIO(make(wide)))
    rle.compress(uid.RLELossless)
    buffer = io.BytesIO()
    rle.save_as(buffer)
    return [
        make(grey), make(colours), make(wide, **window), buffer.getvalue(),
        make(wide, uid.ImplicitVRLittleEndian, VOILUTFunction="SIGMOID", **window),
        make(wide, VOILUTSequence=[table]), make(wide, ModalityLUTSequence=[table]),
        make(grey, PhotometricInterpretation="PALETTE COLOR", **palette),
        make(colours, uid.JPEGBaseline8Bit, compressed("JPEG", colours)),
        make(wide, uid.JPEG2000, compressed("JPEG2000", wide, no_jp2=True)),
    ]  # fmt: skip


@st.composite
def damaged(draw: Callable[..., Any], seeds: list[bytes]) -> bytes:
    """Draw a valid file with a few places damaged."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        if draw(st.booleans()):
            place = min(place, 64)  # headers decide more than pixels
        how = draw(
            st.sampled_from(["byte", "number", "insert", "remove", "repeat", "cut", "splice"])
        )
        if how == "byte":
            data[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif how == "number":
            number = draw(st.sampled_from(ODD_NUMBERS)) % 2**32
            data[place : place + 4] = number.to_bytes(4, draw(st.sampled_from(["big", "little"])))
        elif how == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif how == "remove":
            del data[place : place + draw(st.integers(1, 16))]
        elif how == "repeat":
            data[place:place] = data[place : place + draw(st.integers(1, 64))]
        elif how == "cut":
            del data[place:]
        else:
            other = draw(st.sampled_from(seeds))
            data[place:] = other[min(place, len(other)) :]
    return bytes(data)


@st.composite
def odd_json(draw: Callable[..., Any], seeds: list[bytes]) -> bytes:
    """Draw a JSON document with odd values, missing and unknown keys, or damaged bytes."""
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged(seeds))
    document = json.loads(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        node: Any = document
        while isinstance(node, dict | list) and node:
            key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
            if not isinstance(node[key], dict | list) or draw(st.integers(0, 2)) == 0:
                if isinstance(node, dict) and draw(st.integers(0, 4)) == 0:
                    del node[key]
                else:
                    node[key] = deepcopy(draw(ODD_VALUES))
                break
            node = node[key]
    return json.dumps(document).encode()


@st.composite
def odd_csv(draw: Callable[..., Any], seeds: list[bytes]) -> bytes:
    """Draw a table with odd cells, or damaged bytes."""
    if draw(st.booleans()):
        return draw(damaged(seeds))
    rows = list(csv.reader(io.StringIO(draw(st.sampled_from(seeds)).decode())))
    for _ in range(draw(st.integers(1, 5))):
        row = rows[draw(st.integers(0, len(rows) - 1))]
        if row:
            row[draw(st.integers(0, len(row) - 1))] = str(draw(ODD_VALUES))
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


Job = tuple[st.SearchStrategy[bytes], Callable[[bytes], object]]


def picture_job(kind: str, folder: Path) -> Job:
    """Read bytes as a picture, and count its pixels from a file."""
    from faprompt.imaging.image_reading import count_pixels, read_image

    path = folder / f"picture.{kind}"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        count_pixels(path)
        read_image(data)

    return damaged(seed_pictures(kind)), read


def mask_job(folder: Path) -> Job:
    """Read a damaged file as the mask of a sound picture."""
    from faprompt.data.masks import read_mask
    from faprompt.records import Sample

    Image.new("L", (17, 12)).save(folder / "picture.png")
    mask = folder / "mask.png"
    sample = Sample(folder / "picture.png", 1, "nut", mask_paths=(mask,), has_pixel_label=True)

    def read(data: bytes) -> None:
        mask.write_bytes(data)
        read_mask(sample)

    return damaged([*seed_pictures("png"), *seed_pictures("tiff"), *seed_pictures("bmp")]), read


def model_job(name: str, folder: Path) -> Job:
    """Load a model folder in which one file is damaged; what loads also scores a picture."""
    from faprompt.clip import weights
    from faprompt.detector import Detector
    from faprompt.methods.registry import build_method
    from faprompt.models import load_detector

    load = weights.load_backbone
    backbone = load("test-tiny")
    # drawing the same weights for each input would take most of the time
    weights.load_backbone = lambda source, **options: (
        backbone if source == "test-tiny" else load(source, **options)
    )
    options = {"image_size": 28, "prompts": 2, "patches": 2}
    method = build_method("faprompt", backbone, options)
    Detector(backbone, method, name="fuzzed").save_pretrained(folder)
    picture = np.zeros((8, 8, 3), np.uint8)

    def read(data: bytes) -> None:
        (folder / name).write_bytes(data)
        load_detector(folder).predict(picture)

    seeds = [(folder / name).read_bytes()]
    return (odd_json if name == "config.json" else damaged)(seeds), read


def dataset_job(name: str, folder: Path) -> Job:
    """Read a folder of pictures with a damaged list, and every mask it names."""
    from faprompt.data import read_dataset
    from faprompt.data.masks import read_mask

    for number in range(3):
        Image.new("RGB", (17, 12)).save(folder / f"{number}.png")
    Image.new("L", (17, 12), 255).save(folder / "mask.png")
    table = "image_path,label,mask_path,class_name,split,x0,y0,x1,y1\n"
    table += (
        "0.png,0,,nut,test,,,,\n1.png,1,mask.png,nut,test,0,0,9,9\n2.png,1,mask.png,bolt,test,,,,\n"
    )
    outline: dict[str, Any] = {"segmentation": [[1, 1, 9, 1, 9, 9]], "bbox": [1, 1, 8, 8]}
    runs = {"segmentation": {"counts": [3, 9, 192], "size": [12, 17]}, "bbox": [0, 0, 3, 3]}
    shared = {"category_id": 1, "iscrowd": 0, "area": 9}
    coco = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 17, "height": 12} for n in range(3)],
        "annotations": [
            {"id": 1, "image_id": 1, **shared, **outline},
            {"id": 2, "image_id": 2, **shared, **runs},
        ],
        "categories": [{"id": 1, "name": "scratch"}],
    }
    seed_file = table if name == "csv" else json.dumps(coco)
    place = folder / ("list.csv" if name == "csv" else "instances.json")
    reader = "table" if name == "csv" else "coco"

    def read(data: bytes) -> None:
        place.write_bytes(data)
        for sample in read_dataset(folder, reader).samples:
            if sample.has_pixel_label:
                read_mask(sample)

    return (odd_csv if name == "csv" else odd_json)([seed_file.encode()]), read


def job(name: str, folder: Path) -> Job:
    """Return the inputs of a kind and what reads them."""
    if name == "mask":
        return mask_job(folder)
    if name in ("config.json", "model.safetensors"):
        return model_job(name, folder)
    return dataset_job(name, folder) if name in ("csv", "coco") else picture_job(name, folder)


def run_kind(name: str, count: int, number: int, failures: Path, answers: Any) -> None:
    """Try `count` inputs of a kind; the child process's whole work."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of Pillow, on tags and sizes
    logging.disable()  # of tifffile, on tags
    outcomes: Counter[str] = Counter()

    def too_slow(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS_PER_INPUT} s")

    signal.signal(signal.SIGALRM, too_slow)
    with tempfile.TemporaryDirectory() as folder:
        strategy, read = job(name, Path(folder))
        failures.mkdir(parents=True, exist_ok=True)
        current = failures / f"{name}.current"

        @seed(number)
        @settings(
            max_examples=count, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(strategy)
        def attempt(data: bytes) -> None:
            current.write_bytes(data)  # what a crash of the interpreter leaves behind
            signal.alarm(SECONDS_PER_INPUT)
            try:
                read(data)
                outcomes["read"] += 1
            except FapromptError:
                outcomes["refused"] += 1
            except Exception as error:
                outcomes["failed"] += 1
                kind = f"{type(error).__name__}: {str(error)[:120]}"
                if outcomes[kind] == 0:
                    (failures / f"{name}-{outcomes['failed']}").write_bytes(data)
                outcomes[kind] += 1
            finally:
                signal.alarm(0)
            if _peak_bytes() > MEMORY_BYTES and not outcomes["above the memory limit"]:
                outcomes["above the memory limit"] = 1
                (failures / f"{name}-memory").write_bytes(data)

        attempt()
        current.unlink(missing_ok=True)
    answers.put((dict(outcomes), _peak_bytes()))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    """Run all kinds and print a line of each; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs of all kinds together")
    parser.add_argument("--seed", type=int, default=7, help="other seed, other inputs")
    parser.add_argument("--only", choices=list(SHARES), help="one kind alone, with all inputs")
    parser.add_argument(
        "--failures", type=Path, default=Path("fuzz-failures"), help="where bad inputs are kept"
    )
    given = parser.parse_args()
    context, bad = multiprocessing.get_context("spawn"), 0
    shares = {given.only: 1.0} if given.only else SHARES
    for name, share in shares.items():
        began, answers = time.perf_counter(), context.Queue()
        count = round(given.inputs * share)
        child = context.Process(
            target=run_kind, args=(name, count, given.seed, given.failures, answers)
        )
        child.start()
        while child.is_alive() and answers.empty():
            child.join(0.2)
        outcomes, peak = answers.get() if not answers.empty() else ({"crashed": 1}, 0)
        child.join()
        faults = {k: v for k, v in outcomes.items() if k not in ("read", "refused")}
        bad += bool(faults)
        tried = outcomes.get("read", 0) + outcomes.get("refused", 0) + outcomes.get("failed", 0)
        print(
            f"{name:<18} {tried:>7} inputs: {outcomes.get('read', 0)} read, "
            f"{outcomes.get('refused', 0)} refused, {faults or 'no failure'}; "
            f"{time.perf_counter() - began:.0f} s, peak {peak / 2**20:.0f} MiB",
            flush=True,
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
