"""
Check the project's prose and names against words that it does not use: ``python tests/words.py``.

Python files are checked in their names, comments and strings; other text files line by line. The list is in
``words.txt``.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).with_suffix(".txt")
SUFFIXES = {".cfg", ".conf", ".html", ".md", ".py", ".toml", ".yaml", ".yml"}
CHECKED_TOKENS = {
    tokenize.NAME,
    tokenize.COMMENT,
    tokenize.STRING,
    getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING),
}


def rejected_words() -> re.Pattern[str]:
    """Return the pattern of the rejected words."""
    words = [line for line in LIST.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    # An underscore ends a word, so that names are checked part by part.
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(words)})(?![^\W_])", re.IGNORECASE)


def python_texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield each name, comment and line of a string with its line number."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in CHECKED_TOKENS:
            yield from enumerate(token.string.splitlines(), token.start[0])


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of one file with their line numbers."""
    source = path.read_text(encoding="utf-8")
    yield from python_texts(source) if path.suffix == ".py" else enumerate(source.splitlines(), 1)


def findings(paths: list[str]) -> Iterator[str]:
    """Yield a line for each rejected word."""
    pattern = rejected_words()
    for name in paths:
        path = ROOT / name
        if path.suffix in SUFFIXES and path.is_file():
            for number, text in texts(path):
                yield from (f"{name}:{number}: {found[0]}: {text.strip()[:100]}" for found in pattern.finditer(text))


def main() -> int:
    """Print the findings; return 1 if there are any."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    paths = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    found = list(findings(paths))
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
