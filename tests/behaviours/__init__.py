"""What users of the library see, section by section; see ``tests/behaviour.py``."""
