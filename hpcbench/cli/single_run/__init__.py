"""One job on this machine, from arguments on a command line: `hpcbench sft` and `hpcbench eval`."""
