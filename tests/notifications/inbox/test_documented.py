"""The inbox that the documentation shows how to write, held to the suite."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "write-an-inbox.md"

written, held = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
# What comes after the class delivers an event to it: the documented examples run that.
exec(written.partition("\nrouter = ")[0])
exec(held)
