"""What can go wrong on the user's side, as a small family of exceptions.

Every message says what came, what was wanted, and what to do about it. Slips of our own
are `assert`s; slips of the caller's code are `ValueError` or `TypeError`.
"""


class FapromptError(Exception):
    """Base of every error this package raises on purpose."""


class ImageReadError(FapromptError):
    """A picture could not be read: missing, empty, truncated, too large or not a picture."""


class DatasetError(FapromptError):
    """A folder is not the dataset it was taken for, or contradicts itself."""


class ModelError(FapromptError):
    """A model folder or a weights file is missing, incomplete or of another shape."""


class ConfigError(FapromptError):
    """One or more options are unknown or out of range; the message lists all of them."""


class FolderInUseError(FapromptError):
    """Another run is writing into the output folder."""


class MissingExtraError(FapromptError):
    """An optional dependency is needed; the message names the extra to install."""
