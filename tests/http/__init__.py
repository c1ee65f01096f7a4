"""The jobs router, its locks and its problem documents, on real runners and files."""
