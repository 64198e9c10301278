"""Decisions. No async, no clock, no sockets: time and bytes come in as arguments."""
