"""What happens under faults, floods, hostile input, restarts and kill -9."""
