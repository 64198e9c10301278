"""Copies of sandboxes' files: kept as snapshots, or made a new sandbox at once (a fork).

Memory is not carried: processes cannot be copied here. The snapshot of a pause is something else, a name for the
frozen processes and the files where they are (``registry.py``).
"""
