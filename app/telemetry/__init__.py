"""Logs, spans and metrics. Does not know what is counted or traced."""
