"""Models that people already have, as models of polyad: one file a framework, imported when it is needed."""

from polyad.models.adopt import adopt, release

__all__ = ["adopt", "release"]
