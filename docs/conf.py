"""How Sphinx builds the site: ``make docs``. What is generated stands in ``pages.py``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils import nodes
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import pages  # noqa: E402 - beside this file

import wic_layers  # noqa: E402

project = "wic-layers"
author = "The wic-layers developers"
copyright = author
release = wic_layers.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_generated", "README.md", "**/.ipynb_checkpoints"]
templates_path: list[str] = []

# furo: light and dark, narrow and wide, by one small stylesheet
html_theme = "furo"
html_title = "wic-layers"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5fa5", "color-brand-content": "#0b5fa5"},
    "dark_css_variables": {"color-brand-primary": "#7cc0ff", "color-brand-content": "#7cc0ff"},
}
# exporters and kernels tell every step of theirs
for name in ("onnx_ir", "onnxscript", "traitlets"):
    logging.getLogger(name).setLevel(logging.WARNING)

pages.EXTRA.mkdir(parents=True, exist_ok=True)
html_extra_path = [str(pages.EXTRA)]  # the page for the browser, with its networks

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 4

# SITE_NOTEBOOKS=off builds the site in a minute, without running a tutorial
nb_execution_mode = os.environ.get("SITE_NOTEBOOKS", "cache")
suppress_warnings = ["myst-nb.lexer"] if nb_execution_mode == "off" else []
nb_execution_cache_path = str(HERE.parent / "build" / "notebooks")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_render_markdown_format = "gfm"  # has tables

autodoc_member_order = "groupwise"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_inherit_docstrings = False
autodoc_default_options = {"show-inheritance": True}
python_maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

copybutton_prompt_text = "$ "
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_anchors = False


html_math_renderer = "mathml"  # which browsers show by themselves


def _formula(display: str) -> Callable[[Any, Any], None]:
    def visit(translator: Any, node: Any) -> None:
        translator.body.append(latex2mathml.converter.convert(node.astext(), display=display))
        raise nodes.SkipNode

    return visit


def setup(app: Sphinx) -> None:
    """Writes what is generated, and lets links of the repository lead to the site's pages."""
    app.connect("builder-inited", lambda app: pages.generate())
    app.connect("source-read", pages.on_source_read)
    visits = ((_formula("inline"), None), (_formula("block"), None))
    app.add_html_math_renderer("mathml", *visits)  # type: ignore[arg-type]
