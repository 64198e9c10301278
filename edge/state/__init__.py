"""What the edge asks of a control plane: the port (a protocol), its wire format, its adapters."""
