"""How other libraries call our modules, and we theirs."""
