"""How the documentation is built."""

from importlib.metadata import version as version_of

project = "callfire_async"
author = "the callfire_async authors"
copyright = author  # noqa: A001 - Sphinx's word
release = version = version_of("callfire-async")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

# Every reference to a name of ours must resolve; those of other libraries would need their inventories,
# and so the network.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!callfire_async\b).*")]

html_theme = "furo"
html_title = "callfire_async"
