"""Topics of texts: found, scored, and rated by people and machines."""
