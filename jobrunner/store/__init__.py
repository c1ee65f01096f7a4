"""The contract between the queue and a database, what both sides share, and one store for each database."""
