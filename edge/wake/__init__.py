"""What the edge knows about sandboxes (catalog), how it wakes them (wakes), and for how many it has room."""
