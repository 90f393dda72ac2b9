"""Models that answer questions about scenes of coloured letters."""
