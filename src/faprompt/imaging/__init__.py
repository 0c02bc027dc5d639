"""Read pictures, prepare them for a model, show score maps."""

from faprompt.imaging.decoding import IMAGE_EXTENSIONS, Samples
from faprompt.imaging.image_reading import (
    MAX_PIXELS,
    ReadImage,
    count_pixels,
    read_image,
    read_picture_header,
    read_resized,
)
from faprompt.imaging.map_rendering import resize_map
from faprompt.imaging.overlay import (
    colour_bar,
    colour_table,
    encode_jpeg,
    encode_map_png,
    encode_png,
    overlay,
    overlay_layer,
    region_level,
    shrink,
    thumbnail,
)
from faprompt.imaging.picture_sources import ImageSource
from faprompt.imaging.transform import Transform

__all__ = [
    "IMAGE_EXTENSIONS", "MAX_PIXELS", "ImageSource", "ReadImage", "Samples", "Transform",
    "colour_bar", "colour_table", "count_pixels", "encode_jpeg", "encode_map_png", "encode_png",
    "overlay", "overlay_layer", "read_image", "read_picture_header", "read_resized",
    "region_level", "resize_map", "shrink", "thumbnail",
]  # fmt: skip
