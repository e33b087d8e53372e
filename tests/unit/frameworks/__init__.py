from pathlib import Path

FRAMEWORK_SUITES = Path(__file__).parents[3] / "configs" / "frameworks"
