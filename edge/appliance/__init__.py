"""An embedded control plane for one machine: the reference for the state port, and the demo."""
