"""What the edge knows about sandboxes (catalog), how it wakes them (wakes), for how many it has room
(admission), and what their traffic amounts to (usage)."""
