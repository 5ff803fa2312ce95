"""The command line: :func:`main` runs one command of ``wic``."""

from wic_layers.cli.program import main

__all__ = ["main"]
