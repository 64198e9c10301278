"""The operator's console: a few pages on the API's own address, for whoever holds the API key.

It shows what the API tells and does what the API does, by the same calls, and nothing more. What keeps
others out, in the order in which it is looked at (``guard.py``, then ``visit.py``):

=============== ===================================================================================
Host            only this machine's own names (and those in ``console_hosts``): a name that a stranger
                points here (DNS rebinding) leads nowhere; nor does a way through the edge
site            what another site's page sends or embeds is refused (``Origin``, ``Sec-Fetch-Site``)
session         the API key is given once, in a form, never in an address; what the browser keeps is
                a random id in a cookie that scripts and other sites' requests do not get
form            every change is a POST with the token of the session
page            a policy that allows the two files of ours, no frame, and no text to become markup;
                every value is escaped where it is put in
=============== ===================================================================================

Every page is whole without scripts. With them it follows what happens: ``live.py`` says *that*
something has changed, and the page asks for itself again.
"""

from edge.appliance.console.app import build_console
from edge.appliance.console.visit import PREFIX

__all__ = ["PREFIX", "build_console"]
