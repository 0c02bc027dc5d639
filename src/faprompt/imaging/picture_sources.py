"""Where a picture comes from: path, URL, bytes, Pillow picture or array; and its errors."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from PIL import Image

from faprompt.errors import ConfigError, ImageReadError, MissingExtraError
from faprompt.files import is_url
from faprompt.storage import local_path, read_url

FileSource: TypeAlias = "str | os.PathLike[str] | bytes"
ImageSource: TypeAlias = "FileSource | Image.Image | np.ndarray"


@contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Make every failure an `ImageReadError` that begins with the picture's name."""
    try:
        yield
    except ImageReadError as error:
        raise ImageReadError(f"{name}: {error}") from error.__cause__
    except MissingExtraError as error:
        raise ImageReadError(f"{name}: {error}") from error
    except MemoryError as error:
        raise ImageReadError(
            f"{name}: not enough memory to decode it; lower max_pixels or use smaller pictures."
        ) from error
    except Exception as error:  # decoders fail in many ways on broken files
        raise ImageReadError(
            f"{name}: the picture is truncated or corrupt ({reason_of(error)}); "
            "copy or export it again."
        ) from error


def source_name(source: ImageSource) -> str:
    """Return what the errors of a picture begin with."""
    if isinstance(source, np.ndarray):
        return f"array {source.shape} {source.dtype}"
    if isinstance(source, Image.Image):
        return f"Pillow picture {source.size[0]}x{source.size[1]} {source.mode}"
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes"
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    raise TypeError(
        "a picture is a path, bytes, a Pillow picture or an array, "
        f"got {type(source).__name__}; of a stream, pass stream.read()."
    )


@contextmanager
def open_stream(source: FileSource) -> Iterator[IO[bytes]]:
    """Open a picture file or its bytes for reading; a failure is an `ImageReadError`."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
        return
    place = _local_place(os.fspath(source))
    if is_url(place):
        yield io.BytesIO(fetch(place))
        return
    try:
        stream = Path(place).open("rb")  # noqa: SIM115 (closed by the last lines below)
    except FileNotFoundError as error:
        raise ImageReadError("no such file; check the path.") from error
    except IsADirectoryError as error:
        raise ImageReadError("this is a folder; name a picture in it.") from error
    except (OSError, ValueError) as error:
        raise ImageReadError(f"cannot be opened ({reason_of(error)}).") from error
    with stream:
        yield stream


def fetch(url: str) -> bytes:
    """Return the content of a picture file in an object storage.

    Raises:
        ImageReadError: it cannot be read; the message gives the reason alone.
        MissingExtraError: the package of this storage is not installed.
    """
    if url.startswith(("http://", "https://")):
        raise ImageReadError("web addresses are not read; download the picture first.")
    try:
        return read_url(url)
    except FileNotFoundError as error:
        raise ImageReadError(f"no such file ({reason_of(error)}); check the URL.") from error
    except PermissionError as error:
        raise ImageReadError(
            f"access denied ({reason_of(error)}); check the credentials."
        ) from error
    except (OSError, ValueError, ConfigError) as error:
        reason = reason_of(error).removeprefix(f"{url}: ").rstrip(".")
        raise ImageReadError(f"cannot be read ({reason}).") from error


def _local_place(place: str) -> str:
    try:
        return local_path(place)
    except ConfigError as error:
        raise ImageReadError(str(error).removeprefix(f"{place}: ")) from error


def reason_of(error: BaseException) -> str:
    """Return what an error says, without a full stop; its kind if it says nothing."""
    return str(error).strip().rstrip(".") or type(error).__name__
