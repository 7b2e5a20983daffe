"""Untrusted image files: fetched, unpacked, screened, decoded. Knows neither labels nor HTTP."""
