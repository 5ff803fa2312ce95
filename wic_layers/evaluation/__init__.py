"""How networks are judged: on batches while they train, and on folders through 8-bit files."""
