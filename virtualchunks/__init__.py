"""Virtual chunks."""
