"""The model bites: each of these ways to break the production code, or what it rests on, is caught by an invariant.

======================================  ==================================  =================================
broken                                  how                                 caught by
======================================  ==================================  =================================
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edge.core.records import SandboxRecord, State
from edge.state.redis import Publisher, RedisStatePort, changes, following, lease, port
from edge.state.redis.changes import Changes, Shard
from edge.state.redis.connect import RedisGone
from edge.state.redis.lease import Lease
from edge.wake.admission import Admission
from edge.wake.barrier import Barrier
from edge.wake.catalog import Catalog
from edge.wake.wakes import Wakes
from tests.model.fleet import scenarios
from tests.model.fleet.control import Plane
from tests.model.fleet.network import Weather
from tests.model.fleet.scenarios import WEATHERS, run, storm
from tests.model.fleet.store import SCRIPTS, Store
from tests.model.fleet.world import Parts, World
