def setup_logger(*args, **kwargs):
    raise OSError("a folder of its authors")
