"""The API of an open runner.

It has the queue and its blocking form, dead letters, schedules, background tasks and results.
"""
