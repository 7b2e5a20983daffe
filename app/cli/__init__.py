"""The commands, and the client of the service that they share."""
