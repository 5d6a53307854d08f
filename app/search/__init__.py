"""Nearest rows of an embedded dataset: which vectors are searched, what the query is, what is shown of the rows."""
