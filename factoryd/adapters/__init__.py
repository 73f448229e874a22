"""The world behind the ports: one outside thing per module, blind to one another."""
