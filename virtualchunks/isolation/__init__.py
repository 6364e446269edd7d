"""Parsing in a process of its own, with limits: what native code does to that process does not reach this one."""

from __future__ import annotations

from virtualchunks.isolation.parser import Isolated

__all__ = ["Isolated"]
