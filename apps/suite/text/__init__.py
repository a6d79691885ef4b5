"""The Text query tab: which of many words are in a picture, where, and how that was found."""
