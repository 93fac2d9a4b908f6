"""Functions of the trace: which number is ascended, with which derivative."""
