"""Image files and videos in, files out."""
