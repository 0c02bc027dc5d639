"""Show the comment behind a field of a dataclass as its description: an extension of Griffe.

mkdocs.yml names this file. Our fields are described where they are declared, as in
`score: float  # the whole image, 0..1`.
"""

from __future__ import annotations

import io
import tokenize
from functools import cache
from pathlib import Path

import griffe


class FieldComments(griffe.Extension):
    """Take the comment on a field's line, or the lines above it, as its docstring."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: object) -> None:
        if attr.docstring is not None or attr.lineno is None or not attr.parent.is_class:
            return
        comments = _comments(attr.filepath)
        found = comments.get(attr.endlineno or attr.lineno)
        if found:
            attr.docstring = griffe.Docstring(
                found[0].upper() + found[1:].rstrip(".") + ".", lineno=attr.lineno, parent=attr
            )


@cache
def _comments(path: Path) -> dict[int, str]:
    """Return line number -> the comment behind its code, in one file."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    return {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
        and lines[token.start[0] - 1][: token.start[1]].strip()
        and not token.string.startswith(("# type:", "# noqa", "# fmt"))
    }
