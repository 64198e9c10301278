"""The preview edge: front door of sandboxes' preview URLs, which wakes the ones that sleep.

One line says what it does, and the rooms below say where::

    client -> listener -> scan -> decide -> forward | refuse | settle one need, then decide again

Vocabulary, one word each, used everywhere:

======== ==========================================================================================
client       who sent the request (a browser, an API client, somebody's own proxy)
upstream     the app inside the sandbox
target       what the Host header asks for: a sandbox and a port
grant        what every token of one link rests on, and what can be revoked
record       what the control plane says about a sandbox or a grant, with a version
incarnation  one execution of a sandbox; every resume starts a new one
route        the address of one port of one incarnation
exchange     one request and its answer
need         what has to be found out before an exchange can be decided
way          the decision to forward an exchange: to which incarnation, and on which grant
wake         one resume with everybody who waits for it
window       how long an exchange may wait for resume plus the app's port accepting
admission    room to run or to wait
relay        moving an HTTP body from one side to the other
tunnel       moving bytes both ways after a 101
member       an edge that says over Redis that it is there, and is asked before a pause for inactivity
drain        shutting down without dropping what is under way
======== ==========================================================================================

Rooms, and who may import whom (``tests/test_imports.py`` holds us to it)::

    core  <-  state, wake  <-  traffic  <-  ops  <-  commands  <-  cli
    core, state.{wire,port,keyfiles,redis}  <-  appliance   (nothing in the edge imports it)

``core`` decides and does no I/O; ``state`` is what the edge asks of a control plane; ``wake`` keeps
records fresh and wakes sandboxes; ``traffic`` moves bytes (start reading at ``traffic/flow.py``);
``ops`` starts, observes and stops it all; ``commands`` is what people call beside ``serve``.

For other programs: `redact_preview_url` and `redact_preview_token` make previews fit for logs and
screens. Importing them costs next to nothing.
"""

from edge.core.redact import redact_preview_token, redact_preview_url

__all__ = ["__version__", "redact_preview_token", "redact_preview_url"]

__version__ = "0.1.0"
