"""The DreamBooth tab: teach a text-to-image model one thing from a few pictures, and draw it."""
