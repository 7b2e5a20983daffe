"""Where vectors and definitions are kept."""
