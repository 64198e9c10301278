"""The state port over Redis or Valkey: many edges, one place that tells them of every change.

::

    control plane -> Publisher -> records and changes, sharded -> RedisStatePort -> edge
                  <--------------- HTTP: look-ups that Redis cannot answer, resumes, usage, acks

What Redis holds is a copy, and this is how far it is believed:

- a record is read from it only while its changes are followed without a gap (proved by heartbeats, the last one
  asked for at most `port.BELIEVED` seconds ago). Otherwise, and where it has none, the control plane is asked:
  **a miss is never a 404, and a Redis that is gone, slow, flushed, full or talks nonsense never a 503**;
- the wake lease thins out the calls of many edges for one sandbox. That a wake happens once does not
  rest on it, but on the control plane's comparison of incarnations.

Who reads this for the first time begins with ``port`` (the edge's side) or ``publisher`` (the control plane's):

=============  ====================================================================================
both sides     ``layout`` (names, shards), ``kinds`` (of records), ``ids`` (of a stream's entries),
               ``scripts`` (what has to happen in one step), ``connect`` (single server, Sentinel,
               Cluster), ``beside`` (tasks that end with a block)
edge           ``port``, ``changes`` (reading them without a gap), ``following`` (them, or the
               control plane's own events), ``lease``
control plane  ``publisher``, ``usage`` (what edges have left there)
=============  ====================================================================================
"""

from edge.state.redis.port import RedisStatePort
from edge.state.redis.publisher import Publisher
from edge.state.redis.usage import LeftUsage

__all__ = ["LeftUsage", "Publisher", "RedisStatePort"]
