"""Models, datasets and chat templates as YAML data."""

from hpcbench.catalog.models import ModelEntry as ModelEntry
from hpcbench.catalog.models import lookup_model as lookup_model
