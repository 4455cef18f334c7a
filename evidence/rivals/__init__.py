"""Judges that are measured: rollbackd's own, and what people use today; one file each.

Each gives a function from rows to the index of its first alarm. Settings are the ones that the
rival's own documents show, or kinder ones, and each file says which.
"""
