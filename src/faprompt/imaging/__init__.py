"""File, array and tensor: reading pictures, preparing them for a model, showing maps."""

from __future__ import annotations

from faprompt.imaging.formats import IMAGE_EXTENSIONS
from faprompt.imaging.overlay import (
    colour_bar,
    colour_table,
    encode_jpeg,
    encode_map_png,
    encode_png,
    overlay,
    shrink,
    thumbnail,
)
from faprompt.imaging.read import (
    MAX_PIXELS,
    ImageSource,
    PictureHeader,
    ReadImage,
    count_pixels,
    read_image,
    read_luminance,
    read_picture_header,
    read_resized,
    read_samples,
)
from faprompt.imaging.samples import Samples
from faprompt.imaging.transform import CLIP_MEAN, CLIP_STD, Transform, resize_map

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "IMAGE_EXTENSIONS",
    "MAX_PIXELS",
    "ImageSource",
    "PictureHeader",
    "ReadImage",
    "Samples",
    "Transform",
    "colour_bar",
    "colour_table",
    "count_pixels",
    "encode_jpeg",
    "encode_map_png",
    "encode_png",
    "overlay",
    "read_image",
    "read_luminance",
    "read_picture_header",
    "read_resized",
    "read_samples",
    "resize_map",
    "shrink",
    "thumbnail",
]
