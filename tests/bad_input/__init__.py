"""Whatever is given wrongly: one line that says what was given, what is allowed and what to do; status 1, no traceback, no run.

The tables map a command line to all that is said; a sentence that ends with … is the beginning of a longer one. @name is a
file or folder that inputs.py makes, {here} the folder that the command is given in.
"""
