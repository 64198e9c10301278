"""A fleet of edges over one real Valkey: what requests and wakes cost it, and what edges hold in memory.

``python -m bench.fleet`` starts a Valkey, a control plane that knows 100,000 sandboxes, and twenty edges made by
production's own builder in two processes. ``law`` has the formulas, ``run`` the stages, ``memory`` the rest.

The sandboxes are records: a hundred thousand real ones do not fit on any machine. All of them share one app.
"""
