"""Run the conformance suite on the inbox of the documentation."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "write-an-inbox.md"

inbox_example, suite_example = re.findall(
    r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
# The tests of the documented examples run the rest, which delivers an event.
exec(inbox_example.partition("\nrouter = ")[0])
exec(suite_example)
