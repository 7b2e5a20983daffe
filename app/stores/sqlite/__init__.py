"""Label sets, vectors and pictures in one SQLite file, shared by worker processes."""
