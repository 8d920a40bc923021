"""The measurement itself: protocol, session, backends and statistics."""
