"""The data room: documents in, with their licences; cleaning, signals, the held-out split; and every decision as a row.

Each stage is a function from tables to tables. Documents are never changed and never silently lost: what is dropped
has a row in a decision table that says at which step, with which value, against which threshold.
"""
