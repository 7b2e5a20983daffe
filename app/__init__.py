"""The service: HTTP, command line, stores, batching, scoring."""
