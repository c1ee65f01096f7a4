"""The JSON routes that show and steer jobs."""
