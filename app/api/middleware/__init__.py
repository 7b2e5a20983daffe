"""What every request passes before a route: bookkeeping, keys, rates, bounds. Knows no route."""
