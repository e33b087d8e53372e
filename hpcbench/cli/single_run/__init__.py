"""One job on this machine, from arguments on a command line: `hpcbench sft`, `infer`, `eval`, `export-model`."""
