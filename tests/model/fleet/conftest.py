"""Model tests of many edges: a Redis, a control plane and edges in virtual time, each of which may stop at any step."""
