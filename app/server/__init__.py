"""Settings in, running process out: composition root, uvicorn, workers, Ray."""
