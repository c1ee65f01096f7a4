"""The shop's tasks: mail, the steps of an order, tokens, reports, audit entries.

A process can die after a task has done its work and before that is recorded, so a task may run more than once. What it
writes to the shop's tables is part of the transaction that settles its job, and so is written exactly once. Effects
outside the database can be repeated safely: a mail keeps its ``Message-ID``, and the audit file skips a line that it
already has.
"""
