"""The fault catalogue: each test is named by its row."""
