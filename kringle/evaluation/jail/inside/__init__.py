"""What runs inside the jail: the standard library alone, imported before the root of the file system changes.

A fresh interpreter imports this package by its own name `inside` (the jail's folder is on its path for that moment
only), so nothing of the host process, neither its memory nor its environment nor its other modules, comes along.
"""
