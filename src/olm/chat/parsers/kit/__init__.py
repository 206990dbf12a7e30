"""What parsers are made of: sections of text, syntaxes of calls, values, and the grammars that go with them.

No family is registered here: a module of the kit serves several families, or keeps one family's file short.
"""
