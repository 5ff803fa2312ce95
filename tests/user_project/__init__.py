"""A small project of a user, which mypy and pyright read; see ``layers.py``."""
