"""The interactive session of `olm run`: pure parts (commands, composing, history, session) and the loop around them."""
