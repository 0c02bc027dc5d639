"""Every command and snippet that README.md and docs/ print.

`python -m tests.docs.printed` lists them, and those that no test runs, with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = ("sh", "python")  # languages that are run; blocks of others are no commands
OTHERS = ("text", "json", "nginx", "powershell", "toml")
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]*)\")?\n"
    r"(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_NOT_RUN = "Not tested: "  # a title of a block, which the site shows; the reason follows


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int  # its first line
    language: str
    title: str
    code: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def reason(self) -> str:
        """Why it is not run; "" if it is."""
        return self.title.removeprefix(_NOT_RUN) if self.title.startswith(_NOT_RUN) else ""

    @property
    def file(self) -> str:
        """Name of the file that it is the content of; "" for a block to run."""
        return "" if self.reason else self.title


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text("utf-8")
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start()) + 2,
            language=match["language"],
            title=match["title"] or "",
            code=re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE),
        )
        for match in _FENCE.finditer(text)
    ]


def printed(page: Path) -> list[Block]:
    """Return the blocks of a page that hold commands or Python."""
    return [block for block in blocks_of(page) if block.language in RUN]


def commands(code: str) -> list[str]:
    """Return the commands of a shell block: continued lines joined, comments left out."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


def main() -> None:
    """Print every block, whether it is run, and the counts."""
    counts: Counter[str] = Counter()
    for page in PAGES:
        for block in printed(page):
            lines = commands(block.code) if block.language == "sh" else block.code.splitlines()
            state = f"not run: {block.reason}" if block.reason else "run"
            print(f"{block.place}  {block.language}, {len(lines)} lines, {state}")
            counts["blocks not run" if block.reason else "blocks run"] += 1
            counts["lines not run" if block.reason else "lines run"] += len(lines)
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
