"""What factoryctl and factoryd say to each other: Varlink calls, replies and errors.

`framing` starts fast: it needs nothing but the language. `messages` holds the types.
"""
