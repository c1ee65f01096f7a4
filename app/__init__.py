"""A small shop: the FastAPI application that shows what jobrunner does, and uses its public names only."""
