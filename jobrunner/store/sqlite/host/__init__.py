"""Uses files, locks and sockets of the operating system; contains no SQL."""
