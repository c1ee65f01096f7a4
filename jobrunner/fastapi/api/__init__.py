"""JSON routes that show and change jobs."""
