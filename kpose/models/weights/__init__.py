"""Initial weights of networks, from files and packages."""
