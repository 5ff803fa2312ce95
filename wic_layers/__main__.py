"""``python -m wic_layers`` is ``wic``."""

from wic_layers.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
