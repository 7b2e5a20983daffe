"""What a GPU is used for, and the bundle that a machine without a package index needs."""
