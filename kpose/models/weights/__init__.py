"""Initial weights from files and packages."""
