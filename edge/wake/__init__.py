"""What the edge knows about sandboxes, how it wakes them, what it has room for, and what it reports of them."""
