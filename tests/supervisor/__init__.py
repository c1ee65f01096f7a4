"""The supervisor and what it drives, on a real runner with a real file."""
