"""Watch a folder: a verdict for each picture that appears, and a signed webhook."""

from __future__ import annotations

from faprompt.watching.folder_watch import WatchOptions, watch_folder
from faprompt.watching.webhook import Webhook, read_secret, sign

__all__ = ["WatchOptions", "Webhook", "read_secret", "sign", "watch_folder"]
