"""Corpora of texts that are put together on the user's machine, out of files that others publish.

Their texts have licences of many kinds, so the package holds none of them: it reads the index files
of a Debian archive, which apt fetches, or the source package of a published corpus.
"""
