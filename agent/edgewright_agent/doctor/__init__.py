"""What is wrong with a board, in plain words, and what to do about it.

A check is a small function from a `Subject` to a `Finding`, or to None where it does not apply; the table in
`checks` lists them in the order they are read. To add one, write it and add a line there.
"""
