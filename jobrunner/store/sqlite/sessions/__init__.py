"""The application's own transactions, which jobs can be part of."""
