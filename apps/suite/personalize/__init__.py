"""The Personalize tab: mark an object once, find it in other pictures, follow it in a clip."""
