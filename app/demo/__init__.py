"""``python -m app.demo``: the promises of jobrunner, shown on a real shop with a real mail server."""
