"""Questions about scenes of coloured letters, in the form of gCOG (arXiv 2401.15030): rules,
scenes, answers, two generators, and files.
"""
