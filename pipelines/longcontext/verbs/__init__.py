"""The verbs that only long contexts have, one file for each."""
