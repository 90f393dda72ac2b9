"""Tables of time series."""
