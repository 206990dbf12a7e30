"""What parsers are made of. No family is registered here: a module serves several, or keeps one family's file short.

scan, sections, thinking      finding markers; content with calls and thoughts in it; thinking at the beginning
calls                         the events of calls
json_span, json_calls         calls that are JSON objects
named_json                    calls whose name stands before JSON
xml_calls, arg_calls, atem    calls with tags for parameters; their values by schema: coerce
python_calls                  calls as Python writes them
gemma_calls, gemma_arguments  calls in Gemma's syntax; their grammar: gemma_lark
lark                          grammars of calls
harmony_names                 names of tools as harmony has them
"""
