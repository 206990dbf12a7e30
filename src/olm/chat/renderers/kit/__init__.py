"""What renderers share: messages with media marks, values and schemas as families spell them, turns and calls.

No family is registered here, and no family's own words are: these are in its file.
"""
