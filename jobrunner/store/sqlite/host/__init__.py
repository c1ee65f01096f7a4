"""Files, locks and sockets of the operating system; no SQL."""
