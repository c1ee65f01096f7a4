r"""Tests of the pages: the code on them type-checks and runs, and their links lead somewhere.

Check the pages that you write with ``python -m tests.docs docs/guides/retries.md``. Every ``python`` block of a page is
type-checked by mypy and executed, under these rules:

- The blocks of a page, in their order, form one module. A later block may use the names of an earlier one.
- A comment adds code that readers do not see, such as imports and stand-ins, where it stands. It begins a line, ends
  with a line ``-->``, and must not contain ``-->`` itself::

      <!-- python
      from jobrunner import JobRunner

      jobs = JobRunner("sqlite:///shop.db")
      -->

- A block with a title, ``python title="shop/mail/tasks.py"``, belongs to a module of that name, and the other blocks of
  the page import from it. A second block with the same title continues the module. A comment may have a title as well:
  ``<!-- python title="shop/models.py"``. So a stand-in for a library that is not installed is a module, too.
- ``<!-- python file="tests/docs/stand_ins/readme.txt" -->`` takes the hidden code from a file, to keep a page short.
- ``<!-- python: new page -->`` starts over: no block after it sees a name or a module from before it.
- ``await`` may stand outside a function. From the first statement that awaits to the end of its block, the code is
  type-checked inside an ``async def`` and not executed, and so is a later statement that uses a name assigned there.
  Imports, functions and classes stay in the module.
- ``python {.not-run}`` is type-checked and not executed: what starts a server, or needs the program that it is part of.
- ``python {.theirs}`` is code of another library, which is not installed: it only has to be Python.
  With a title: ``python {.theirs title="tasks.py"}``.
- A block that shows an error ends the line with ``# type: ignore[arg-type]`` and is ``{.not-run}``.

Modules are imported in an empty folder, so ``sqlite:///shop.db`` is safe. Warnings are errors.
"""
