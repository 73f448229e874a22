"""Small tools for people who keep notes."""
