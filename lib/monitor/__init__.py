"""The console monitor: what it sees, how that is drawn, and what its keys do.

`facts` looks at the index; `text`, `frame` and `app` are pure: from facts and
keys to lines; `screen` alone touches the terminal.
"""
