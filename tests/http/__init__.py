"""The jobs router, its locks and its problem documents, on real runners and files."""  # noqa: A005 - the folder is named for what it tests
