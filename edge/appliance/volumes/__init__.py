"""Volumes: directories that belong to no sandbox, at their places in those that have attached them.

A volume is a directory of its own and a row of the store. An attachment is part of its sandbox, and ends
with it; the directory stays. How a sandbox gets to see it: ``runtime/mounts.py``.
"""
