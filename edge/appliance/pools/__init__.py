"""Template warm pools: sandboxes made ahead of the creates that will ask for them.

========== ==========================================================================================
instance   a place of the runtime that is made, with its supervisor running: what a create ends with
stock      the instances of one pool, and how they come and go (``stock.py``, start reading here)
pool       what a tenant defined, its state, and its stock (``pool.py``)
checkout   what one create gets from the pool it names (``checkout.py``)
========== ==========================================================================================

An instance is no sandbox yet: it has a sandbox's id, but no record, and nobody outside of this room
hears of it. A checkout gives it to exactly one create, and from then on it is a sandbox like any other.
Only a create that names a pool gets one of its instances; resuming and pausing have nothing to do with
pools. Definitions outlive the process (``store.py`` of the control plane), instances do not.
"""
