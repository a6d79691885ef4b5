"""The Reasoning chat tab: answers in words whose phrases are linked to masks."""
