"""A shop of many files, made by an app factory: tasks are declared at import, the runner inside the factory."""
