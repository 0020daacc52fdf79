"""From a configuration to a run, and from runs to answers."""
