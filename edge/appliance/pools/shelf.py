"""Pools on disk: definitions and states, one row each; instances are made anew."""

from __future__ import annotations

from dataclasses import asdict

from edge.appliance.pools.definition import Definition
from edge.appliance.pools.pool import PoolState, Standing
from edge.appliance.rows import Document, Rows
from edge.appliance.store import Store


def shelf(store: Store) -> Rows[Standing]:
    """The pools' part of the store. Raises `StoreError`."""
    return Rows(store, "warm_pools", write=_to_document, read=_from_document)


def _to_document(standing: Standing) -> Document:
    return asdict(standing) | {"definition": standing.definition.model_dump()}


def _from_document(document: Document) -> Standing:
    definition = Definition.model_validate(document.pop("definition"))
    return Standing(definition=definition, state=PoolState(document.pop("state")), **document)
