"""Bytes between clients and upstreams. Start reading at ``flow.py``."""
