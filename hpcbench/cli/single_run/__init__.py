"""One job here and now, from arguments on a command line: the room behind `hpcbench sft` and `hpcbench eval`."""
