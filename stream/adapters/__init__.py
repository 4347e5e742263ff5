"""Events of others, as ours: a module for each format, and the registry that names them.

An adapter is a pure function of one record. What it can't know it leaves out, what is no event of
ours it passes over with a reason, and what is broken it refuses.
"""
