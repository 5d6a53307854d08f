"""What the documentation site makes from the program itself, each time it is built; nothing of it is committed.

`site.py` is the hook that mkdocs loads (mkdocs.yml), `pages.py` the list of what is made.
"""
