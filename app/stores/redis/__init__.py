"""Label sets, vectors and pictures in Redis, shared by machines."""
