"""A Ray cluster on one machine: how it scales, and how large a machine has to be."""
