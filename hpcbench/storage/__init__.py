"""Files on shared disks: paths, JSON, clocks; no schema."""
