"""The contract between the queue and a database, the values that both sides share, and a store for each database."""
