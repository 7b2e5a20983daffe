"""Image files of strangers: fetched, unpacked, screened, decoded. Knows neither labels nor HTTP."""
