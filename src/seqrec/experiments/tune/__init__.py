"""Finding good settings: many short trainings, chosen on validation, of which most are stopped early.

`run.py` is the whole of it in order. `space.py` says what is searched, `study.py` keeps what was found and proposes
what to try next, `worker.py` is a process that trains, `pool.py` starts such processes, `report.py` is what is left.
"""
