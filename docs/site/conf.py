"""How the documentation site is built from the Markdown pages of the repository and the package's docstrings."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fedprune

project = "fedprune"
copyright = "the fedprune developers, Apache-2.0"
version = release = fedprune.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstrings",
    "mathml",
    "pages",
    "reference",
]

# The source folder is the repository's root: pages link to each other, to README.md and to results/ as on GitHub.
root_doc = "README"
include_patterns = ["*.md", "docs/**", "results/**.md"]
exclude_patterns = [".*", "build", "cache", "dist", "runs", "docs/site"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # as GitHub names headings
suppress_warnings = ["myst.header"]  # a rendered table of results/ begins with a heading of the page it belongs to

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # types stand in the signature
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 100
toc_object_entries = False  # a page of a room lists its files, not their hundreds of names

html_theme = "furo"
html_math_renderer = "mathml"
html_title = "fedprune"
html_show_sphinx = False
html_copy_source = False
