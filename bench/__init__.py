"""``make bench``: the edge beside nginx, Envoy and a plain aiohttp proxy, on this machine, now.

Read in this order: ``__main__`` (what is run), ``scenarios`` (what is asked), ``rounds`` (how it is
measured), ``report`` (how it is told). ``docs/performance.md`` says how to read the result.
"""
