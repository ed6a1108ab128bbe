"""How the documentation is built."""

from importlib.metadata import version as version_of

project = "callfire_async"
author = "the callfire_async authors"
copyright = author
release = version = version_of("callfire-async")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

# Docstrings name things of ours in single backquotes.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90

# Every reference to a public name of ours must resolve. Those of other libraries would need their inventories, and so
# the network; private rooms and type variables have no entry.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!callfire_async\b).*"),
    (r"py:.*", r"callfire_async\.(.*\.)?(_.*|[A-Z])"),
]

html_theme = "furo"
html_title = "callfire_async"
