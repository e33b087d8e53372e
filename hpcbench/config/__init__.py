"""Suite files in, checked `Suite` values out; all mistakes at once, each with its file and line.

The way through the rooms: `suite_files` finds files, `yaml_lines` reads them with the line of every value, `layers`
merges suite, experiment and `--set`, `matrix` expands, `aliases` and `typed_fields` turn words into arguments,
`local_paths` and `dataset_probe` look at what is named, `request_checks` refuses what cannot run, `experiment_builder`
puts it together.
"""

from hpcbench.config.loading import load_suites

__all__ = ["load_suites"]
