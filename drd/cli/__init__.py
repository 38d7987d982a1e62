"""The command line: parse, call, render; one file a verb."""
