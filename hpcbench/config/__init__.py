"""Suite files in, checked `Suite` values out; all mistakes at once, each with its file and line.

The order of the steps, which `loading` takes: `suite_files` finds files and reads them by `storage/located_yaml`, each
value with its line; `layers` merges suite, experiment and `--set`, `matrix` expands, `aliases` and `typed_fields` turn
text into arguments, `local_inputs` checks the files that are named, `request_checks` refuses what cannot run,
`experiment_builder` puts it together.
"""
