"""From prepared data to the report in one command: parts, training, tests, export.

Imported module by module, since a plan needs neither torch's models nor mmdet.
"""
