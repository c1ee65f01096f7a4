"""Metrics, traces and logs, as monitoring systems read them."""
