"""Define the exceptions for faults on the user's side.

Every message says what came, what was wanted, and what to do about it. A fault of this package is
an `assert`; a fault of the caller's code is a `ValueError` or `TypeError`.
"""


class FapromptError(Exception):
    """Base class of the errors that this package raises for users."""


class ImageReadError(FapromptError):
    """A picture could not be read: missing, empty, truncated, too large or not a picture."""


class DatasetError(FapromptError):
    """A folder has another layout than its dataset, or its files contradict each other."""


class ModelError(FapromptError):
    """A model folder or a weights file is missing, incomplete, damaged or of another model."""


class ConfigError(FapromptError):
    """Options are unknown or out of range; the message lists all of them."""


class FolderInUseError(FapromptError):
    """Another run is writing into the output folder."""


class ShardError(FapromptError):
    """Shards of a run are missing or damaged, or do not belong together."""


class MissingExtraError(FapromptError):
    """An optional dependency is needed; the message names the extra to install."""
